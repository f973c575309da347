"""The outbox in one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import bson

from daemon.clock import Clock
from daemon.metrics import Metrics
from daemon.model import Body, Commit, Delivery, Document, EndpointState, Intent, NewEvent, Position, Profile, Recorded
from daemon.mongo import CODEC
from daemon.outbox import entries, figures, lanes, prune
from daemon.outbox.figures import Backlog
from daemon.outbox.lock import Lock
from daemon.outbox.refusals import Refusal, find_refusals
from daemon.outbox.rows import marks, padded
from daemon.outbox.writer import Writer, write_error

T = TypeVar("T")
Claimed = tuple[list[Delivery], datetime | None]
_FEW = 200  # events: they hold up the event loop for some 10 ms


class SqliteOutbox:
    """See the package. Opening takes the lock and brings the file to this version; raises `OutboxError` when that cannot be."""

    def __init__(self, path: Path, *, clock: Clock, metrics: Metrics) -> None:
        self._lock = Lock(path)
        try:
            self._writer = Writer(path, metrics)
        except BaseException:
            self._lock.release()
            raise
        self._path = path
        self._clock = clock
        self._reading = _Reader(path, "outbox-reader")
        self._figures = _Reader(path, "outbox-figures")  # counting takes its time; nobody is to wait for it

    @property
    def waiting(self) -> bool:
        """Another process is writing to the file, and nothing can be kept before it is done."""
        return self._writer.waiting

    async def close(self) -> None:
        """Finish what was asked for, then give up the file."""
        async with AsyncExitStack() as stack:  # whatever one of them raises, all are closed
            stack.callback(self._lock.release)
            stack.push_async_callback(self._figures.close)
            stack.push_async_callback(self._reading.close)
            await self._writer.close()

    # -- capture and compose

    async def position(self) -> Position | None:
        """The committed position; None before the first one."""
        return await self._read(entries.load_position)

    async def jump(self, position: Position) -> None:
        """Go to another place in the stream. Folded state is dropped, since it missed what lies between."""
        await self._writer.run(lambda connection: entries.jump(connection, position, self._now()))

    async def forget_position(self) -> None:
        """As if the relay had never been started, as far as the stream goes."""
        await self._writer.run(lambda connection: connection.execute("DELETE FROM position").rowcount)

    def append(self, commit: Commit) -> Awaitable[None]:
        """Keep events, completions, folded state and position, all or nothing. Events that are known already are left as
        they are. What is asked for next, before this is awaited, is done in the same commit.
        """
        return self._writer.run_short(lambda connection: entries.append(connection, commit, self._now()))

    async def add(self, events: Sequence[NewEvent]) -> int:
        """Keep events that did not come from the change stream, all or nothing; gives how many deliveries are new."""
        run = self._writer.run_short if len(events) <= _FEW else self._writer.run
        return await run(lambda connection: entries.append_events(connection, events, self._now()))

    async def load_states(self, kind: str, ids: Collection[str]) -> Mapping[str, Document]:
        """The stored folded documents among `ids`."""
        wanted = list(ids)

        def work(connection: sqlite3.Connection) -> dict[str, Document]:
            found: dict[str, Document] = {}
            for chunk in padded(wanted):
                query = f"SELECT id, document FROM states WHERE kind = ? AND id IN ({marks(len(chunk))})"  # noqa: S608 - question marks only
                found.update((id_, _decode(document)) for id_, document in connection.execute(query, [kind, *chunk]))
            return found

        return await self._read(work)

    async def load_all_states(self, kind: str) -> Mapping[str, Document]:
        """All stored folded documents of a kind."""
        query = "SELECT id, document FROM states WHERE kind = ?"
        return await self._read(lambda connection: {id_: _decode(row) for id_, row in connection.execute(query, [kind])})

    async def waiting_intents(self) -> list[Intent]:
        """The intents that wait for a later change, oldest first."""
        return await self._read(lambda connection: entries.load_intents(connection, complete=False, limit=-1))

    async def complete_intents(self, limit: int) -> list[Intent]:
        """Intents that can be composed now, oldest first."""
        return await self._read(lambda connection: entries.load_intents(connection, complete=True, limit=limit))

    async def composed(self, event_id: str, bodies: Mapping[Profile, Body]) -> None:
        """An intent got its bodies: its deliveries are pending now."""
        await self._writer.run_short(lambda connection: entries.composed(connection, event_id, bodies))

    async def skip(self, event_id: str, reason: str) -> None:
        """An intent cannot be composed: its deliveries are settled as skipped, its context stays as the record."""
        await self._writer.run_short(lambda connection: entries.skip(connection, event_id, reason, self._now()))

    # -- relay

    async def recover(self) -> int:
        """Call before the first claim, when no request is in flight. Gives the number of attempts that were interrupted."""
        return await self._writer.run(lanes.recover)

    def claim(self, endpoint: str, limit: int, retries: int, *, fresh_first: bool = False) -> asyncio.Future[Claimed]:
        """Up to `limit` deliveries that are due, at most `retries` of them tried before, with `fresh_first` none of them while
        others are due; at most one per session.

        Each comes with its attempt counted. The second value is when the next one is due, None when nothing waits for a time.
        """

        def work(connection: sqlite3.Connection) -> Claimed:
            claimed = lanes.claim(connection, endpoint, limit, 0 if fresh_first else retries, self._now())
            if fresh_first and not claimed:
                claimed = lanes.claim(connection, endpoint, limit, retries, self._now())
            return claimed, lanes.next_due(connection, endpoint)

        return self._writer.run_short(work)

    def claim_probe(self, endpoint: str) -> asyncio.Future[Claimed]:
        """The delivery that finds out whether an endpoint that is down is back, if it is due; and when the next one is."""

        def work(connection: sqlite3.Connection) -> Claimed:
            claimed = lanes.claim_probe(connection, endpoint, self._now())
            return claimed, lanes.next_due(connection, endpoint)

        return self._writer.run_short(work)

    async def endpoint_state(self, endpoint: str) -> EndpointState:
        """Whether an endpoint is down, and when it last took anything."""
        return await self._read(lambda connection: lanes.endpoint_state(connection, endpoint))

    async def mend_times(self, endpoint: str, longest_wait_s: float, probe_every_s: float) -> int:
        """Make due what waits longer than any wait is, because the clock was set back; gives how many sessions."""
        waits = (endpoint, longest_wait_s, probe_every_s)
        if not await self._read(lambda connection: lanes.waits_too_long(connection, *waits, self._now())):
            return 0
        return await self._writer.run(lambda connection: lanes.mend_times(connection, *waits, self._now()))

    async def end_outage(self, endpoint: str) -> None:
        """The endpoint counts as up."""
        await self._writer.run(lambda connection: lanes.end_outage(connection, endpoint))

    async def expire(self, endpoint: str, max_age_s: float) -> int:
        """Give up what waited too long for an endpoint that is down; gives how many of a page."""
        return await self._writer.run(lambda connection: lanes.expire(connection, endpoint, max_age_s, self._now()))

    def settle(self, delivery: Delivery, recorded: Recorded) -> Awaitable[None]:
        """Keep what came of an attempt and what follows from it, the state of the endpoint included."""
        return self._writer.run_together(self._record, (delivery, recorded))

    # -- operation

    async def size(self) -> int:
        """How many bytes of the file are in use."""
        return await self._read(figures.size)

    async def disk_size(self) -> int:
        """How many bytes the file and its write-ahead log take on disk."""

        def work(_: sqlite3.Connection) -> int:
            files = (self._path, self._path.with_name(f"{self._path.name}-wal"))
            return sum(file.stat().st_size for file in files if file.exists())

        return await self._figures.run(work)

    async def refusals(self) -> list[Refusal]:
        """Which endpoints refuse every event of a type."""
        return await self._figures.run(lambda connection: find_refusals(connection, self._now()))

    async def backlog(self) -> list[Backlog]:
        """What is owed and dead, by endpoint; endpoints that are no longer configured included."""
        return await self._figures.run(figures.count_backlog)

    async def prune(self, retention: prune.Retention, place: prune.Place) -> prune.Place | None:
        """Forget what is old enough in the page after `place`; gives the next place, None at the end of the round."""

        def work(connection: sqlite3.Connection) -> prune.Place | None:
            following = prune.prune_page(connection, retention, place, self._now())
            connection.execute("PRAGMA incremental_vacuum(4000)").fetchall()  # gives pages back to the file system
            return following

        return await self._writer.run(work)

    def _record(self, connection: sqlite3.Connection, items: Sequence[tuple[Delivery, Recorded]]) -> None:
        lanes.record(connection, items, self._now())

    def _now(self) -> float:
        return self._clock.now().timestamp()

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._reading.run(work)


class _Reader:
    """A thread and a connection of its own for reading."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._connection: sqlite3.Connection | None = None

    async def run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._run, work)

    async def close(self) -> None:
        await self.run(lambda connection: connection.close())
        self._thread.shutdown()

    def _run(self, work: Callable[[sqlite3.Connection], T]) -> T:
        if self._connection is None:
            self._connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
            self._connection.execute("PRAGMA query_only = ON")
            self._connection.execute("PRAGMA busy_timeout = 10000")
        try:
            return work(self._connection)
        except sqlite3.Error as error:
            raise write_error(self._path, error) from error


def _decode(document: bytes) -> Document:
    decoded: Document = bson.decode(document, codec_options=CODEC)
    return decoded
