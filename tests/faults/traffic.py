"""The livechat traffic of a run, and single sessions besides it, where a fault needs something to happen."""

from __future__ import annotations

import asyncio
import random
from typing import Any

from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import PyMongoError

from daemon.clock import SystemClock
from daemon.demo.documents import Chat
from daemon.demo.initial import AGENTS
from daemon.demo.plan import Traffic
from daemon.demo.simulator import Simulator
from daemon.demo.workspace import Workspace
from tests.faults.evidence import Written


class Writer:
    """Writes the traffic of a plan. What a failing write leaves uncertain is known: the session ends there."""

    def __init__(self, database: AsyncIOMotorDatabase[dict[str, Any]], traffic: Traffic) -> None:
        clock = SystemClock()
        self._simulator = Simulator(database, traffic, clock=clock)
        self._workspace = Workspace(database, self._simulator.ledger, clock)
        self._extra = 0
        self._seed = traffic.seed

    async def prepare(self) -> None:
        """What exists before the first visitor."""
        await self._simulator.prepare()

    async def run(self) -> None:
        """All of the traffic."""
        await self._simulator.run(asyncio.Event())

    async def one_more(self) -> None:
        """A short session from its beginning to its end."""
        self._extra += 1
        chat = Chat(chance=random.Random(repr((self._seed, "extra", self._extra))), name="Vera Visitor")  # noqa: S311
        workspace = self._workspace
        try:
            await workspace.open(chat, None, None)
            await workspace.say(chat, "is anybody there?", by_visitor=True)
            await workspace.take(chat, AGENTS[self._extra % len(AGENTS)])
            await workspace.close(chat, "gone", [], by_visitor=self._extra % 2 == 0)
        except PyMongoError as error:
            self._simulator.failures.append(f"one more session: {error}")

    @property
    def failures(self) -> list[str]:
        """Writes that MongoDB did not acknowledge."""
        return self._simulator.failures

    @property
    def written(self) -> dict[str, Written]:
        """Every event that was written or tried to be, by id."""
        return {
            entry.id: Written(
                entry.id, entry.session, entry.place, None if entry.written_at is None else entry.written_at.timestamp()
            )
            for entry in self._simulator.ledger.entries.values()
        }
