"""The outbox in one SQLite file."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

import bson

from daemon.clock import Clock
from daemon.metrics import Metrics
from daemon.model import Body, Commit, Delivery, Document, EndpointState, Intent, NewEvent, Position, Profile, Recorded
from daemon.mongo import CODEC
from daemon.outbox import entries, lanes, prune
from daemon.outbox.lanes import as_time
from daemon.outbox.lock import Lock
from daemon.outbox.writer import Writer, write_error

T = TypeVar("T")
_IDS_PER_QUERY = 500


@dataclass(frozen=True, slots=True)
class Backlog:
    """What an endpoint is owed."""

    endpoint: str
    owed: int
    dead: int
    oldest: datetime | None


class SqliteOutbox:
    """See the package. Opening takes the lock and brings the file to this version; raises `OutboxError` when that cannot be."""

    def __init__(self, path: Path, *, clock: Clock, metrics: Metrics) -> None:
        self._lock = Lock(path)
        try:
            self._writer = Writer(path, metrics)
        except BaseException:
            self._lock.release()
            raise
        self._clock = clock
        self._path = path
        self._reading = _Reader(path, "outbox-reader")
        self._figures = _Reader(path, "outbox-figures")  # counting takes its time; nobody is to wait for it

    async def close(self) -> None:
        """Finish what was asked for, then give up the file."""
        await asyncio.to_thread(self._writer.close)
        await self._reading.close()
        await self._figures.close()
        self._lock.release()

    # -- capture and compose

    async def position(self) -> Position | None:
        """The committed position; None before the first one."""
        return await self._read(entries.load_position)

    async def jump(self, position: Position) -> None:
        """Go to another place in the stream. Folded state is dropped, since it missed what lies between."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM states")
            entries.save_position(connection, position, self._now())

        await self._writer.run(work)

    async def forget_position(self) -> None:
        """As if the relay had never been started, as far as the stream goes."""
        await self._writer.run(lambda connection: connection.execute("DELETE FROM position").rowcount)

    async def append(self, commit: Commit) -> None:
        """Keep events, completions, folded state and position, all or nothing. Events that are known already are left as
        they are.
        """
        await self._writer.run(lambda connection: entries.append(connection, commit, self._now()))

    async def add(self, event: NewEvent) -> None:
        """Keep an event that did not come from the change stream."""
        await self._writer.run(lambda connection: entries.append_event(connection, event, self._now()))

    async def load_states(self, kind: str, ids: Collection[str]) -> Mapping[str, Document]:
        """The stored folded documents among `ids`."""
        wanted = list(ids)

        def work(connection: sqlite3.Connection) -> dict[str, Document]:
            found: dict[str, Document] = {}
            for start in range(0, len(wanted), _IDS_PER_QUERY):
                page = wanted[start : start + _IDS_PER_QUERY]
                marks = ",".join("?" * len(page))
                query = f"SELECT id, document FROM states WHERE kind = ? AND id IN ({marks})"  # noqa: S608 - question marks only
                found.update((id_, _decode(document)) for id_, document in connection.execute(query, [kind, *page]))
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
        await self._writer.run(lambda connection: entries.composed(connection, event_id, bodies))

    async def skip(self, event_id: str, reason: str) -> None:
        """An intent cannot be composed: its deliveries are settled as skipped, its context stays as the record."""
        await self._writer.run(lambda connection: entries.skip(connection, event_id, reason, self._now()))

    # -- relay

    async def recover(self) -> int:
        """Call once, before the first claim. Gives the number of attempts that the last stop interrupted."""
        return await self._writer.run(lanes.recover)

    async def claim(self, endpoint: str, limit: int, retries: int) -> tuple[list[Delivery], datetime | None]:
        """Up to `limit` deliveries that are due, at most `retries` of them tried before; at most one per session.

        Each comes with its attempt counted. The second value is when the next one is due, None when nothing waits for a time.
        """

        def work(connection: sqlite3.Connection) -> tuple[list[Delivery], datetime | None]:
            claimed = lanes.claim(connection, endpoint, limit, retries, self._now())
            return claimed, lanes.next_due(connection, endpoint)

        return await self._writer.run(work)

    async def claim_probe(self, endpoint: str) -> tuple[list[Delivery], datetime | None]:
        """The delivery that finds out whether an endpoint that is down is back, if it is due; and when the next one is."""

        def work(connection: sqlite3.Connection) -> tuple[list[Delivery], datetime | None]:
            claimed = lanes.claim_probe(connection, endpoint, self._now())
            return claimed, lanes.next_due(connection, endpoint)

        return await self._writer.run(work)

    async def endpoint_state(self, endpoint: str) -> EndpointState:
        """Whether an endpoint is down, and when it last took anything."""
        return await self._read(lambda connection: lanes.endpoint_state(connection, endpoint))

    async def expire(self, endpoint: str, max_age_s: float) -> int:
        """Give up what waited too long for an endpoint that is down; gives how many of a page."""
        return await self._writer.run(lambda connection: lanes.expire(connection, endpoint, max_age_s, self._now()))

    def settle(self, delivery: Delivery, recorded: Recorded) -> Awaitable[None]:
        """Keep what came of an attempt and what follows from it, the state of the endpoint included."""
        return self._writer.run(lambda connection: lanes.record(connection, delivery, recorded, self._now()))

    # -- operation

    async def size(self) -> int:
        """How many bytes of the file are in use."""

        def work(connection: sqlite3.Connection) -> int:
            names = ("page_count", "freelist_count", "page_size")
            pages, free, page_size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
            return (pages - free) * page_size

        return await self._read(work)

    async def backlog(self) -> list[Backlog]:
        """What is owed and dead, by endpoint; endpoints that are no longer configured included."""

        def work(connection: sqlite3.Connection) -> list[Backlog]:
            owed = connection.execute(
                "SELECT endpoint, count(*), min(sequence) FROM deliveries INDEXED BY deliveries_owed"
                " WHERE state IN ('intent', 'pending', 'suspended') GROUP BY endpoint"
            ).fetchall()
            query = "SELECT endpoint, count(*) FROM deliveries INDEXED BY deliveries_dead WHERE state = 'dead' GROUP BY endpoint"
            dead = dict(connection.execute(query).fetchall())
            result = []
            for endpoint, count, first in owed:
                (at,) = connection.execute("SELECT happened_at FROM events WHERE sequence = ?", [first]).fetchone()
                result.append(Backlog(endpoint, count, dead.pop(endpoint, 0), as_time(at)))
            return [*result, *(Backlog(endpoint, 0, count, None) for endpoint, count in dead.items())]

        return await self._figures.run(work)

    async def prune(self, retention: prune.Retention, place: prune.Place) -> prune.Place | None:
        """Forget what is old enough in the page after `place`; gives the next place, None at the end of the round."""

        def work(connection: sqlite3.Connection) -> prune.Place | None:
            following = prune.prune_page(connection, retention, place, self._now())
            connection.execute("PRAGMA incremental_vacuum(2000)").fetchall()  # gives pages back to the file system
            return following

        return await self._writer.run(work)

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
