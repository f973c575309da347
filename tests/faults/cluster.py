"""A replica set of three members on loopback, with elections in a second."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from types import TracebackType
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from daemon.demo.mongod import REPLICA_SET, EmbeddedMongod

Client = AsyncIOMotorClient[dict[str, Any]]
_PATIENCE_S = 60.0
# A member that is told to end does so at once, rather than to wait for its successor.
_ARGUMENTS = ("--setParameter", "shutdownTimeoutMillisForSignaledShutdown=100")


class Member(EmbeddedMongod):
    """One member: ready when it answers. The set is initiated by `Cluster`."""

    async def _is_ready(self, client: Client) -> bool:
        if not self.running:
            return await super()._is_ready(client)  # tells why it ended
        try:
            await client.admin.command("hello")
        except PyMongoError:
            return False
        return True


class Cluster:
    """Three members; use as an async context manager."""

    def __init__(self) -> None:
        self.members = [Member(oplog_mb=100, arguments=_ARGUMENTS) for _ in range(3)]
        self._stack = AsyncExitStack()
        self._client: Client | None = None

    @property
    def uri(self) -> str:
        """All members."""
        return f"mongodb://{','.join(member.address for member in self.members)}/?replicaSet={REPLICA_SET}"

    @property
    def client(self) -> Client:
        """The driver's own client."""
        assert self._client is not None
        return self._client

    async def __aenter__(self) -> Cluster:
        async with AsyncExitStack() as stack:
            for member in self.members:
                await stack.enter_async_context(member)
            await self._initiate()
            self._client = AsyncIOMotorClient(self.uri, tz_aware=True, serverSelectionTimeoutMS=30_000, heartbeatFrequencyMS=500)
            await self.healthy()
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.client.close()
        for member in self.members:
            await member.kill()  # its data are thrown away
        await self._stack.aclose()

    async def heal(self) -> None:
        """Bring back whatever a run left stopped or frozen."""
        for member in self.members:
            self.thaw(member)
            await member.start()
        await self.healthy()

    async def healthy(self) -> None:
        """Wait until all members are up, one of them the primary."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                states = await self._states()
                if sorted(states) == [1, 2, 2]:
                    return
                await asyncio.sleep(0.05)

    async def primary(self) -> Member:
        """The member that takes writes."""
        async with asyncio.timeout(_PATIENCE_S):
            while True:
                states = await self._states()
                if 1 in states:
                    return self.members[states.index(1)]
                await asyncio.sleep(0.05)

    async def secondary(self) -> Member:
        """One that follows, else any but the first."""
        states = await self._states()
        return self.members[states.index(2)] if 2 in states else self.members[1]

    async def step_down(self, seconds: int) -> None:
        """The primary gives up for some seconds; another one is elected."""
        member = await self.primary()
        client: Client = AsyncIOMotorClient(member.address, directConnection=True, serverSelectionTimeoutMS=3000)
        try:
            await client.admin.command("replSetStepDown", seconds, secondaryCatchUpPeriodSecs=min(1, seconds), force=True)
        except PyMongoError:
            pass  # a member that steps down may end the connection
        finally:
            client.close()

    def freeze(self, member: Member) -> None:
        """Stop it in its tracks (SIGSTOP)."""
        if member.running and member.pid is not None:
            os.kill(member.pid, signal.SIGSTOP)

    def thaw(self, member: Member) -> None:
        """Let it go on."""
        if member.running and member.pid is not None:
            os.kill(member.pid, signal.SIGCONT)

    async def _initiate(self) -> None:
        client: Client = AsyncIOMotorClient(self.members[0].address, directConnection=True)
        members = [{"_id": number, "host": member.address} for number, member in enumerate(self.members)]
        settings = {"electionTimeoutMillis": 1000, "heartbeatIntervalMillis": 300, "catchUpTimeoutMillis": 1000}
        try:
            await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members, "settings": settings})
        finally:
            client.close()

    async def _states(self) -> list[int]:
        """The state of each member as one that answers sees it: 1 primary, 2 secondary."""
        for member in self.members:
            if not member.running:
                continue
            client: Client = AsyncIOMotorClient(
                member.address, directConnection=True, serverSelectionTimeoutMS=500, socketTimeoutMS=2000
            )
            try:
                status = await client.admin.command("replSetGetStatus")
                return [found["state"] if found["health"] else 8 for found in status["members"]]
            except PyMongoError:
                continue
            finally:
                client.close()
        return [8, 8, 8]
