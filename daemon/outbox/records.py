"""What the outbox knows of deliveries, for the operator: looking, and deciding by hand. Statements on a connection of one's own.

Every action compares before it sets, so that it can run beside the relay: what is in flight is never touched, and the relay
sees the rest at its next poll.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from daemon.outbox import lanes
from daemon.outbox.lanes import AT_ONCE, Lane, as_time

_PAGE = 500
_COLUMNS = (
    "SELECT d.endpoint, d.sequence, e.id, e.type, d.session, d.state, d.attempts, e.happened_at, d.settled_at, l.due, d.reason,"
    " d.profile, e.recovered FROM deliveries d JOIN events e ON e.sequence = d.sequence"
    " LEFT JOIN lanes l ON l.endpoint = d.endpoint AND l.sequence = d.sequence AND l.session = d.session"
)
_IN_FLIGHT = "SELECT 1 FROM lanes WHERE endpoint = ? AND session = ? AND sequence = ? AND due IS NULL"


class State(StrEnum):
    """What became of a delivery. `orphaned` is never stored: owed to an endpoint that is no longer configured."""

    INTENT = "intent"
    PENDING = "pending"
    SUSPENDED = "suspended"
    DELIVERED = "delivered"
    DEAD = "dead"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"
    ORPHANED = "orphaned"


OWED = (State.INTENT, State.PENDING, State.SUSPENDED, State.ORPHANED)
_STORED_OWED = ("intent", "pending", "suspended")
CAN_BE_RETRIED = (State.SUSPENDED, State.DEAD, State.CANCELLED)


@dataclass(frozen=True, slots=True)
class Filter:
    """Which deliveries; empty members do not narrow. Times are of what happened.

    What is owed to an endpoint that is not among `configured` is orphaned.
    """

    configured: Collection[str]
    endpoint: str | None = None
    states: Sequence[State] = ()
    type: str | None = None
    session: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    event_ids: Sequence[str] = ()

    def sql(self) -> tuple[str, list[Any]]:
        """A condition on `d` (deliveries) and `e` (events), and its parameters."""
        terms: list[tuple[str, list[Any]]] = [("1", [])]
        if self.endpoint:
            terms.append(("d.endpoint = ?", [self.endpoint]))
        if self.states:
            terms.append(self._in_states())
        if self.type:
            terms.append(("e.type = ?", [self.type]))
        if self.session:
            terms.append(("d.session = ?", [self.session]))
        if self.since:
            terms.append(("e.happened_at >= ?", [self.since.timestamp()]))
        if self.until:
            terms.append(("e.happened_at < ?", [self.until.timestamp()]))
        if self.event_ids:
            terms.append((f"e.id IN ({_marks(self.event_ids)})", list(self.event_ids)))
        return " AND ".join(term for term, _ in terms), [value for _, values in terms for value in values]

    def _in_states(self) -> tuple[str, list[Any]]:
        names = list(self.configured)
        settled = [state.value for state in self.states if state not in OWED]
        owed = [state.value for state in self.states if state in _STORED_OWED]
        term = f"(d.state IN ({_marks(settled)}) OR (d.state IN ({_marks(owed)}) AND d.endpoint IN ({_marks(names)}))"
        values = [*settled, *owed, *names]
        if State.ORPHANED in self.states:
            term += f" OR (d.state IN ({_marks(_STORED_OWED)}) AND d.endpoint NOT IN ({_marks(names)}))"
            values += [*_STORED_OWED, *names]
        return f"{term})", values

    def state_of(self, endpoint: str, stored: str) -> State:
        """The state of a delivery."""
        orphaned = stored in _STORED_OWED and endpoint not in self.configured
        return State.ORPHANED if orphaned else State(stored)


@dataclass(frozen=True, slots=True)
class Record:
    """One delivery."""

    endpoint: str
    sequence: int
    event_id: str
    type: str
    session: str
    state: State
    attempts: int
    happened_at: datetime
    settled_at: datetime | None
    next_try: datetime | None
    reason: str | None
    profile: str
    recovered: bool


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """One attempt. `outcome` None: in flight."""

    number: int
    started_at: datetime
    duration_s: float | None
    outcome: str | None
    status: int | None
    error: str | None
    answer: bytes | None


def select(connection: sqlite3.Connection, wanted: Filter, limit: int | None = None) -> Iterator[Record]:
    """Deliveries in the order of their events, read a page at a time, so that no read is long."""
    condition, values = wanted.sql()
    after = (0, "")
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        query = f"{_COLUMNS} WHERE {condition} AND (d.sequence, d.endpoint) > (?, ?) ORDER BY d.sequence, d.endpoint LIMIT ?"
        rows = connection.execute(query, [*values, *after, size]).fetchall()
        yield from (_record(row, wanted) for row in rows)
        if len(rows) < size:
            return
        after = (rows[-1][1], rows[-1][0])
        left = None if left is None else left - len(rows)


def _record(row: Sequence[Any], wanted: Filter) -> Record:
    (
        endpoint,
        sequence,
        event_id,
        event_type,
        session,
        state,
        tries,
        happened_at,
        settled_at,
        due,
        reason,
        profile,
        recovered,
    ) = row
    return Record(
        endpoint,
        sequence,
        event_id,
        event_type,
        session,
        wanted.state_of(endpoint, state),
        tries,
        as_time(happened_at),
        None if settled_at is None else as_time(settled_at),
        as_time(due) if due else None,
        reason,
        profile,
        bool(recovered),
    )


def is_known(connection: sqlite3.Connection, event_id: str, endpoint: str) -> bool:
    """Whether an endpoint is owed an event, or ever was, as far back as ids are remembered."""
    query = "SELECT 1 FROM deliveries d JOIN events e ON e.sequence = d.sequence WHERE e.id = ? AND d.endpoint = ?"
    return connection.execute(query, [event_id, endpoint]).fetchone() is not None


def count(connection: sqlite3.Connection, wanted: Filter) -> int:
    """How many deliveries there are."""
    condition, values = wanted.sql()
    query = f"SELECT count(*) FROM deliveries d JOIN events e ON e.sequence = d.sequence WHERE {condition}"  # noqa: S608 - ours
    return int(connection.execute(query, values).fetchone()[0])


def attempts(connection: sqlite3.Connection, record: Record) -> list[AttemptRecord]:
    """Every attempt of a delivery that is still kept, oldest first."""
    rows = connection.execute(
        "SELECT number, started_at, duration, outcome, status, error, answer FROM attempts WHERE endpoint = ? AND sequence = ?"
        " ORDER BY number",
        [record.endpoint, record.sequence],
    )
    return [AttemptRecord(row[0], as_time(row[1]), *row[2:]) for row in rows]


def body(connection: sqlite3.Connection, record: Record) -> bytes | None:
    """The payload without file tokens; None when there is none yet or it is no longer kept."""
    query = "SELECT content FROM bodies WHERE sequence = ? AND profile = ?"
    row = connection.execute(query, [record.sequence, record.profile]).fetchone()
    return None if row is None else row[0]


def retry(connection: sqlite3.Connection, record: Record) -> bool:
    """Owe a dead or cancelled delivery again, with a new round of tries, or try a suspended one now: its endpoint counts as up.

    False when it is none of these, or its payload is gone. It takes its old place among what its session still waits for, so
    it comes later than what was delivered meanwhile.
    """
    if record.state is State.SUSPENDED:
        connection.execute("UPDATE endpoints SET down_since = NULL WHERE name = ?", [record.endpoint])
    lane = [record.endpoint, record.session]
    changed = connection.execute(
        "UPDATE deliveries SET state = 'pending', failures = 0, round_at = NULL, settled_at = NULL, reason = NULL"
        " WHERE endpoint = ? AND sequence = ? AND state IN ('suspended', 'dead', 'cancelled')"
        " AND EXISTS (SELECT 1 FROM bodies b WHERE b.sequence = deliveries.sequence AND b.profile = deliveries.profile)",
        [record.endpoint, record.sequence],
    ).rowcount
    if not changed:
        return False
    connection.execute(
        "INSERT INTO lanes (endpoint, session, sequence, due) VALUES (?, ?, ?, ?) ON CONFLICT (endpoint, session) DO UPDATE"
        # A lane in flight finds it by itself when that is settled.
        " SET sequence = excluded.sequence, due = excluded.due, retry = 0"
        " WHERE lanes.sequence >= excluded.sequence AND lanes.due IS NOT NULL",
        [*lane, record.sequence, AT_ONCE],
    )
    return True


def cancel(connection: sqlite3.Connection, record: Record, reason: str, now: float) -> bool:
    """Give up an owed delivery; False when it is settled already or in flight at this moment."""
    state = connection.execute(
        "SELECT state FROM deliveries WHERE endpoint = ? AND sequence = ?", [record.endpoint, record.sequence]
    ).fetchone()
    if state is None or state[0] not in _STORED_OWED:
        return False
    key = [record.endpoint, record.session, record.sequence]
    if state[0] != State.INTENT and connection.execute(_IN_FLIGHT, key).fetchone():
        return False
    lanes.settle(connection, Lane(record.endpoint, record.session), record.sequence, "cancelled", now, reason=reason)
    return True


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
