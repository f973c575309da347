"""What an operator does to a relay by hand, running or stopped. Used by the command line."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import orjson
from bson.timestamp import Timestamp

from daemon.clock import SystemClock
from daemon.errors import OutboxError
from daemon.model import Position
from daemon.outbox import entries, records
from daemon.outbox.lanes import as_time
from daemon.outbox.lock import Lock
from daemon.outbox.move import move_owed, move_settled
from daemon.outbox.records import AttemptRecord, Filter, Record
from daemon.outbox.schema import VERSION
from daemon.outbox.writer import write_error


@contextmanager
def opened(path: Path, *, writing: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection to an outbox that exists, beside the relay or without it. Raises `OutboxError` when that cannot be."""
    if not path.exists():
        raise OutboxError(
            f"there is no outbox at {path}", hint="check outbox.url in the configuration; the relay makes it when it runs"
        )
    try:
        mode = "rw" if writing else "ro"
        connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, isolation_level=None)
        try:
            connection.execute("PRAGMA busy_timeout = 10000")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise OutboxError(
                    f"{path} is of schema {version}, this livechat-relay knows {VERSION}",
                    hint="use the command of the version that runs; a newer relay brings the file up to date when it starts",
                )
            if writing:
                connection.execute("BEGIN IMMEDIATE")
            yield connection
            if writing:
                connection.execute("COMMIT")
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise write_error(path, error) from error


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


def retry(path: Path, wanted: Filter) -> tuple[int, int]:
    """Owe dead and cancelled deliveries again; gives how many were, and how many could not be."""
    return _each(path, wanted, records.retry)


def cancel(path: Path, wanted: Filter, reason: str) -> tuple[int, int]:
    """Give up owed deliveries; gives how many were, and how many could not be (settled, or in flight)."""
    now = SystemClock().now().timestamp()
    return _each(path, wanted, lambda connection, record: records.cancel(connection, record, reason, now))


def move(path: Path, old: str, new: str, report: Callable[[int, int], None]) -> tuple[int, int]:
    """Give everything of endpoint `old`, which is no longer configured, to `new`; gives how many rows moved and how many did not.

    Owed events go first, session by session in their order; then what is settled, so that it is not sent again.
    """
    with opened(path) as connection:
        total = records.count(connection, Filter((), old))
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


def _each(path: Path, wanted: Filter, action: Any) -> tuple[int, int]:
    with opened(path) as connection:
        found = list(records.select(connection, wanted))
    done = 0
    for start in range(0, len(found), 200):  # short transactions: the relay waits while one is open
        with opened(path, writing=True) as connection:
            done += sum(action(connection, record) for record in found[start : start + 200])
    return done, len(found) - done


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
