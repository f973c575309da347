"""What an operator does to a relay by hand, running or stopped. Used by the command line and by the API of the running relay.

Every call has a connection of its own, reads and writes in short pages, and may run in a thread beside the relay.
"""

from __future__ import annotations

import base64
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson
from bson.timestamp import Timestamp

from daemon.clock import SystemClock
from daemon.config.types import parse_duration
from daemon.errors import OutboxError
from daemon.model import Position
from daemon.outbox import entries, records
from daemon.outbox.lanes import as_time
from daemon.outbox.lock import Lock
from daemon.outbox.move import move_owed, move_settled
from daemon.outbox.records import AttemptRecord, Filter, Place, Record
from daemon.outbox.schema import VERSION
from daemon.outbox.writer import write_error

_PAGE = 200  # in a transaction: the relay waits while one is open
_BUSY_MS = 10_000


@dataclass(frozen=True, slots=True)
class Changed:
    """What came of an action: how many were changed, how many could not be, and where to go on (None: nothing is left)."""

    done: int
    left: int
    following: Place | None


@contextmanager
def opened(path: Path, *, writing: bool = False, longest_s: float | None = None) -> Iterator[sqlite3.Connection]:
    """A connection to an outbox that exists, beside the relay or without it. Raises `OutboxError` when that cannot be, or when
    what is asked takes longer than `longest_s`.
    """
    if not path.exists():
        raise OutboxError(
            f"there is no outbox at {path}", hint="check outbox.url in the configuration; the relay makes it when it runs"
        )
    try:
        mode = "rw" if writing else "ro"
        connection = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None, check_same_thread=False
        )
        try:
            connection.execute(f"PRAGMA busy_timeout = {_BUSY_MS}")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise OutboxError(
                    f"{path} is of schema {version}, this livechat-relay knows {VERSION}",
                    hint="use the command of the version that runs; a newer relay brings the file up to date when it starts",
                )
            if writing:
                connection.execute("BEGIN IMMEDIATE")
            with _interrupted_after(connection, longest_s):
                yield connection
            if writing:
                connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
            raise OutboxError(
                f"this takes longer than {longest_s:g} s",
                hint="narrow it by session, by endpoint, or by states other than delivered",
            ) from error
        raise write_error(path, error) from error


@contextmanager
def _interrupted_after(connection: sqlite3.Connection, longest_s: float | None) -> Iterator[None]:
    if longest_s is None:
        yield
        return
    timer = threading.Timer(longest_s, connection.interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()  # it must not interrupt a connection that is closed


@dataclass(frozen=True, slots=True)
class CommittedPosition:
    """Where the change stream is read from, and since when that is known. `token` None: from the cluster time on."""

    cluster_time: datetime
    saved_at: datetime
    token: str | None

    def as_json(self) -> dict[str, Any]:
        """For machines."""
        return {"cluster_time": self.cluster_time, "saved_at": self.saved_at, "token": self.token}


def position(path: Path) -> CommittedPosition | None:
    """The committed position; None before the first one."""
    with opened(path) as connection:
        found = entries.load_position(connection)
        if found is None:
            return None
        (saved_at,) = connection.execute("SELECT saved_at FROM position").fetchone()
    token = None if found.token is None else str(found.token.get("_data"))
    return CommittedPosition(as_time(found.cluster_time.time), as_time(saved_at), token)


def set_position(path: Path, at: datetime) -> None:
    """Read from `at` on at the next start. Raises `OutboxError` while a relay runs: it would save its own position again."""
    with Lock(path), opened(path, writing=True) as connection:
        entries.jump(connection, Position(Timestamp(int(at.timestamp()), 0)), SystemClock().now().timestamp())


def retry(path: Path, wanted: Filter, after: Place | None = None, limit: int | None = None) -> Changed:
    """Owe dead and cancelled deliveries again."""
    return _each(path, wanted, records.retry, after, limit)


def cancel(path: Path, wanted: Filter, reason: str, after: Place | None = None, limit: int | None = None) -> Changed:
    """Give up owed deliveries; what is settled already or in flight is left."""
    now = SystemClock().now().timestamp()
    return _each(path, wanted, lambda connection, record: records.cancel(connection, record, reason, now), after, limit)


def move(path: Path, old: str, new: str, report: Callable[[int, int], None]) -> tuple[int, int]:
    """Give everything of endpoint `old`, which is no longer configured, to `new`; gives how many rows moved and how many did not.

    Owed events go first, session by session in their order; then what is settled, so that it is not sent again.
    """
    with opened(path) as connection:
        total = records.count(connection, Filter(old))
    moved = 0
    session: str | None = ""
    while session is not None:  # short transactions: the relay waits while one is open
        with opened(path, writing=True) as connection:
            more, session = move_owed(connection, old, new, session, SystemClock().now().timestamp())
        moved += more
        report(moved, total)
    sequence: int | None = 0
    while sequence is not None:
        with opened(path, writing=True) as connection:
            more, sequence = move_settled(connection, old, new, sequence)
        moved += more
        report(moved, total)
    return moved, total - moved


def _each(
    path: Path,
    wanted: Filter,
    action: Callable[[sqlite3.Connection, Record], bool],
    after: Place | None,
    limit: int | None,
) -> Changed:
    """Do `action` to what matches after a place, a page at a time. What enters the outbox meanwhile is left alone."""
    done = seen = 0
    place: Place | None = after or Place()
    with opened(path) as connection:
        last = records.last_sequence(connection)
    while place is not None and (limit is None or seen < limit):
        with opened(path) as connection:
            found = [record for record in records.page(connection, wanted, place, _PAGE) if record.sequence <= last]
        if found:
            with opened(path, writing=True) as connection:
                done += sum(action(connection, record) for record in found)
        seen += len(found)
        place = Place(found[-1].sequence, found[-1].endpoint) if len(found) == _PAGE else None
    return Changed(done, seen - done, place)


def moment(text: str) -> datetime:
    """`2026-11-23T08:00:00Z`, or `2h` for two hours ago. Raises `ValueError` for anything else."""
    try:
        return SystemClock().now() - parse_duration(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a time such as 2026-11-23T08:00:00Z nor an age such as 2h") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def as_json(record: Record, attempts: list[AttemptRecord] | None = None, body: bytes | None = None) -> dict[str, Any]:
    """A delivery for machines: the members of `Record`, with attempts and payload where given."""
    result: dict[str, Any] = {name: getattr(record, name) for name in Record.__slots__}
    if attempts is not None:
        result["history"] = [
            {name: getattr(attempt, name) for name in AttemptRecord.__slots__ if name != "answer"}
            | {"answer": None if attempt.answer is None else _text(attempt.answer)}
            for attempt in attempts
        ]
    if body is not None:
        result["payload"] = (
            orjson.Fragment(body) if record.state is not records.State.SKIPPED else base64.b64encode(body).decode()
        )
    return result


def _text(answer: bytes) -> str:
    return answer.decode("utf-8", "replace")
