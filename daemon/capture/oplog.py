"""How far back the oplog reaches, and so for how long capture may stand still.

The role `read` on Rocket.Chat's database does not let a user see `local.oplog.rs`. But MongoDB compares the start of a change
stream with the oldest entry of the oplog before anything else, and refuses a start before it (ChangeStreamHistoryLost), so asking
for some starts tells where the oldest entry is.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from bson.timestamp import Timestamp
from pymongo.errors import ExecutionTimeout, OperationFailure, PyMongoError

from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Document, Position
from daemon.mongo import CODEC, Database, problem

_HISTORY_LOST = 286
_LONGEST_PROBE_MS = 500
_LONGEST_LOOK_S = 10.0
_FIRST_STEP_S = 3600
_SHARE = 200  # how exact: to this part of the window
_INITIATED = "initiating set"  # the message in the first oplog entry that a replica set ever writes

log = get_logger("capture")


@dataclass(frozen=True, slots=True)
class OplogWindow:
    """What the oplog holds: from `oldest` to `now`, in seconds since 1970 by the clock of the server.

    `complete`: everything since the replica set began, because the oplog was never full yet.
    """

    oldest: int
    now: int
    complete: bool

    @property
    def length_s(self) -> int:
        """From the oldest entry to now."""
        return max(0, self.now - self.oldest)

    def left_s(self, position: Position) -> float:
        """How far the oldest entry is behind `position`: about the time until it is overtaken, if as much is written as of late.

        Infinite while the oplog was never full.
        """
        return float("inf") if self.complete else float(max(0, position.cluster_time.time - self.oldest))


class Oplog:
    """Asks the primary; reads a handful of entries, whatever the size of the oplog.

    MongoDB notes every refusal in its own log, so what was learnt is kept: most looks after the first one are refused nothing.
    """

    def __init__(self, database: Callable[[], Database]) -> None:
        self._database = database
        self._may_read = True  # local.oplog.rs
        self._missed: int | None = None  # before the oldest entry, as far as known; None: the oplog may never have been full
        self._reached: int | None = None  # not before it, at the last look

    async def window(self, near: Position | None = None) -> OplogWindow:
        """What the oplog holds now. Raises `PyMongoError` when MongoDB cannot tell.

        Without the right to read the oplog itself `oldest` may be too late by half a percent of the window, by less the
        closer it is to `near`.
        """
        client = self._database().client
        hello = await client.admin.command("hello", codec_options=CODEC)
        local_time: datetime = hello["localTime"]
        now = int(local_time.timestamp())
        if self._may_read:
            try:
                first = await client.local["oplog.rs"].find_one({}, {"ts": 1, "o.msg": 1}, sort=[("$natural", 1)])
            except OperationFailure:  # which is the rule
                self._may_read = False
            else:
                complete = first is not None and (first.get("o") or {}).get("msg") == _INITIATED
                return OplogWindow(now if first is None else first["ts"].time, now, complete)
        return await self._search(now, now if near is None else near.cluster_time.time)

    async def reaches(self, cluster_time: Timestamp) -> bool:
        """Whether a change stream can start at this time. Raises `PyMongoError` when MongoDB cannot tell."""
        return await self._first_after(cluster_time) is not None

    async def _search(self, now: int, near: int) -> OplogWindow:
        if self._missed is None:
            beginning = await self._first_after(Timestamp(1, 1))
            if beginning is not None:
                return OplogWindow(beginning[0]["clusterTime"].time if beginning else now, now, complete=True)
            self._missed = 1
        if self._reached is None:
            reached, missed = await self._step_back(now)
        else:
            reached, missed = await self._step_forward(self._reached, self._missed, now)
        while reached - missed > max(1, min((now - reached) // _SHARE, (near - reached) // 4)):
            middle = (reached + missed) // 2
            if await self.reaches(Timestamp(middle, 1)):
                reached = middle
            else:
                missed = middle
        self._reached, self._missed = reached, missed
        return OplogWindow(reached, now, complete=False)

    async def _step_back(self, now: int) -> tuple[int, int]:
        """From now back in steps that double, until before the oldest entry."""
        reached, step = now, _FIRST_STEP_S
        while await self.reaches(Timestamp(max(1, now - step), 1)):
            reached, step = max(1, now - step), step * 2
        return reached, max(1, now - step)

    async def _step_forward(self, reached: int, missed: int, now: int) -> tuple[int, int]:
        """From what was reached at the last look on, in steps that double, until not before the oldest entry."""
        step = max(1, (now - reached) // _SHARE)
        while not await self.reaches(Timestamp(reached, 1)):
            reached, missed, step = reached + step, reached, step * 2
        return reached, missed

    async def _first_after(self, cluster_time: Timestamp) -> list[Document] | None:
        """The first change from this time on, if it is found soon; None when the oplog does not reach back to this time."""
        database = self._database()
        try:
            reply = await database.command(
                "aggregate",
                1,
                pipeline=[{"$changeStream": {"startAtOperationTime": cluster_time}}, {"$project": {"clusterTime": 1}}],
                cursor={"batchSize": 1},  # the comparison comes with the first read: an empty first batch would not do it
                maxTimeMS=_LONGEST_PROBE_MS,
                codec_options=CODEC,
            )
        except ExecutionTimeout:  # it looked for a change, so the comparison had gone well
            return []
        except OperationFailure as error:
            if error.code == _HISTORY_LOST:
                return None
            raise
        if reply["cursor"]["id"]:
            await database.command("killCursors", "$cmd.aggregate", cursors=[reply["cursor"]["id"]])
        first: list[Document] = reply["cursor"]["firstBatch"]
        return first


class OplogWatch:
    """Keeps the figures of the oplog. Never raises for a MongoDB that cannot tell, and never takes long."""

    def __init__(self, oplog: Oplog, position: Callable[[], Awaitable[Position | None]], metrics: Metrics) -> None:
        self._oplog = oplog
        self._position = position
        self._metrics = metrics

    async def look(self) -> float | None:
        """Set the figures, and give how many seconds of oplog are left behind the committed position; None: cannot be told."""
        position = await self._position()
        try:
            async with asyncio.timeout(_LONGEST_LOOK_S):
                window = await self._oplog.window(position)
        except (PyMongoError, TimeoutError) as error:
            log.debug("capture.oplog_unknown", problem=problem(error))
            self._metrics.oplog_left.set(float("nan"))
            return None
        self._metrics.oplog_window.set(window.length_s)
        if position is None:
            return None
        left = window.left_s(position)
        self._metrics.oplog_left.set(left)
        return left
