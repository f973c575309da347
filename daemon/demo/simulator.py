"""Livechat traffic in a MongoDB database: many sessions at once, offline messages, and noise that is no livechat.

For tests, the demo and measurements: `Traffic` says how much and how fast; the ledger says afterwards what must arrive.
"""

from __future__ import annotations

import asyncio
import random

from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo.errors import PyMongoError

from daemon.clock import Clock, SystemClock, wait_until_set
from daemon.demo.documents import Chat
from daemon.demo.initial import AGENTS, COLLEAGUES, DEPARTMENTS, GENERAL, Document
from daemon.demo.ledger import Ledger
from daemon.demo.plan import Action, OfflinePlan, SessionPlan, Step, Traffic, make_plan
from daemon.demo.texts import FILES
from daemon.demo.workspace import Workspace


class Simulator:
    """Writes the traffic into `database`, which must be empty before `prepare` and belong to a replica set.

    A session whose write fails ends there and is noted in `failures`; the others go on.
    """

    def __init__(
        self, database: AsyncIOMotorDatabase[Document], traffic: Traffic | None = None, *, clock: Clock | None = None
    ) -> None:
        self._clock = clock or SystemClock()
        self._traffic = traffic or Traffic()
        self.plan = make_plan(self._traffic)
        self.ledger = Ledger(self._clock)
        self.chats: list[Chat] = []
        self.failures: list[str] = []
        self._workspace = Workspace(database, self.ledger, self._clock)
        self._begun = 0.0
        self._places = asyncio.Semaphore(self._traffic.at_once)

    async def prepare(self) -> None:
        """Write what exists before the first visitor; no event comes from it."""
        await self._workspace.prepare()

    async def run(self, stop: asyncio.Event) -> None:
        """Write everything, or until `stop`: then each session ends with the step it is at."""
        self._begun = self._clock.monotonic()
        async with asyncio.TaskGroup() as tasks:
            for plan in self.plan.sessions:
                tasks.create_task(self._session(plan, stop))
            tasks.create_task(self._offline(self.plan.offline, stop))
            tasks.create_task(self._noise(self.plan.noise, stop))

    async def _session(self, plan: SessionPlan, stop: asyncio.Event) -> None:
        if not await self._until(plan.steps[0].at_s, stop):
            return
        chance = self._chance(plan.number)
        chat = Chat(chance=chance, name=plan.conversation.visitor, left_open=plan.left_open)
        async with self._places:
            for step in plan.steps:
                if not await self._until(step.at_s, stop):
                    return
                try:
                    await self._step(plan, chat, step)
                except PyMongoError as error:
                    self.failures.append(f"session {plan.number} at {step.action.name}: {error}")
                    return

    async def _step(self, plan: SessionPlan, chat: Chat, step: Step) -> None:
        workspace, tags = self._workspace, list(plan.conversation.tags)
        match step.action:
            case Action.OPEN:
                self.chats.append(chat)
                email = f"visitor{plan.number}@client.example" if plan.number % 2 == 0 else None
                department = None if plan.department is None else str(DEPARTMENTS[plan.department]["_id"])
                await workspace.open(chat, email, department)
            case Action.TAKE:
                await workspace.take(chat, AGENTS[plan.agent])
            case Action.VISITOR_TEXT | Action.AGENT_TEXT:
                await workspace.say(chat, step.text, by_visitor=step.action is Action.VISITOR_TEXT)
            case Action.VISITOR_FILE | Action.AGENT_FILE:
                by_visitor = step.action is Action.VISITOR_FILE
                await workspace.send_file(chat, step.text, FILES[step.text], by_visitor=by_visitor)
            case Action.VISITOR_EDIT | Action.AGENT_EDIT:
                await workspace.edit_last(chat, step.text)
            case Action.SAVE_INFO:
                await workspace.save_info(chat, step.text, tags)
            case Action.AGENT_CLOSE | Action.VISITOR_CLOSE:
                await workspace.close(chat, step.text, tags, by_visitor=step.action is Action.VISITOR_CLOSE)

    async def _offline(self, plans: tuple[OfflinePlan, ...], stop: asyncio.Event) -> None:
        chance = self._chance("offline")
        for plan in plans:
            if not await self._until(plan.at_s, stop):
                return
            department = None if plan.department is None else DEPARTMENTS[plan.department]
            try:
                await self._workspace.leave_offline_message(chance, plan.message, department)
            except PyMongoError as error:
                self.failures.append(f"offline message: {error}")

    async def _noise(self, steps: tuple[Step, ...], stop: asyncio.Event) -> None:
        chance = self._chance("noise")
        for step in steps:
            if not await self._until(step.at_s, stop):
                return
            try:
                await self._workspace.chatter(chance, GENERAL, chance.choice(COLLEAGUES), step.text)
            except PyMongoError as error:
                self.failures.append(f"channel message: {error}")

    async def _until(self, at_s: float, stop: asyncio.Event) -> bool:
        """Wait for a moment of the traffic; False when it was stopped."""
        wait = self._begun + at_s - self._clock.monotonic()
        if wait > 0:
            await wait_until_set(stop, wait)
        return not stop.is_set()

    def _chance(self, what: object) -> random.Random:
        return random.Random(repr((self._traffic.seed, "write", what)))  # noqa: S311  (repeatable, not secret)
