"""What the outbox knows of deliveries, for the operator: looking, and deciding by hand. Statements on a connection of one's own.

Every action compares before it sets, so that it can run beside the relay: what is in flight is never touched, and the relay
sees the rest at its next poll.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from daemon.outbox import lanes
from daemon.outbox.lanes import AT_ONCE, as_time

_PAGE = 500
_COLUMNS = (
    "SELECT d.endpoint, d.sequence, e.id, e.type, d.session, d.state, d.attempts + (l.started_at IS NOT NULL), e.happened_at,"
    " d.settled_at, l.due, d.reason, d.profile, e.recovered"
)
_NEXT_TRY = " LEFT JOIN lanes l ON l.endpoint = d.endpoint AND l.sequence = d.sequence AND l.session = d.session"
# Each of these gives deliveries in their order; CROSS JOIN keeps SQLite from turning the join around.
_OF_SESSION = "events e INDEXED BY events_of_session CROSS JOIN deliveries d INDEXED BY deliveries_of_event USING (sequence)"
_OF_EVENTS = "events e CROSS JOIN deliveries d INDEXED BY deliveries_of_event USING (sequence)"
_UNFINISHED = "deliveries d INDEXED BY deliveries_unfinished CROSS JOIN events e USING (sequence)"
_OF_ENDPOINT = "deliveries d CROSS JOIN events e USING (sequence)"
_ALL = "deliveries d INDEXED BY deliveries_of_event CROSS JOIN events e USING (sequence)"
_IN_FLIGHT = "SELECT 1 FROM lanes WHERE endpoint = ? AND session = ? AND sequence = ? AND started_at IS NOT NULL"


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

    What is owed to an endpoint that is not among `configured` is orphaned; None: nothing is.
    """

    endpoint: str | None = None
    states: Sequence[State] = ()
    type: str | None = None
    session: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    event_ids: Sequence[str] = ()
    configured: Collection[str] | None = None

    @property
    def narrows(self) -> bool:
        """Whether it names anything."""
        return replace(self, configured=None) != Filter()

    def source(self) -> str:
        """The tables to read, in the way that meets the fewest rows that do not match."""
        if self.event_ids:
            return _OF_EVENTS
        if self.session:
            return _OF_SESSION
        if self._unfinished():
            return _UNFINISHED
        return _OF_ENDPOINT if self.endpoint else _ALL

    def _unfinished(self) -> bool:
        return bool(self.states) and State.DELIVERED not in self.states

    def sql(self) -> tuple[str, list[Any]]:
        """A condition on `d` (deliveries) and `e` (events), and its parameters."""
        # The index of what is not delivered can be used only where the condition says so in so many words.
        terms: list[tuple[str, list[Any]]] = [("d.state <> 'delivered'" if self._unfinished() else "1", [])]
        if self.endpoint:
            terms.append(("d.endpoint = ?", [self.endpoint]))
        if self.states:
            terms.append(self._in_states())
        if self.type:
            terms.append(("e.type = ?", [self.type]))
        if self.session:
            terms.append(("e.session = ?", [self.session]))
        if self.since:
            terms.append(("e.happened_at >= ?", [self.since.timestamp()]))
        if self.until:
            terms.append(("e.happened_at < ?", [self.until.timestamp()]))
        if self.event_ids:
            terms.append((f"e.id IN ({_marks(self.event_ids)})", list(self.event_ids)))
        return " AND ".join(term for term, _ in terms), [value for _, values in terms for value in values]

    def _in_states(self) -> tuple[str, list[Any]]:
        states = [state.value for state in self.states if state is not State.ORPHANED]
        if self.configured is None:
            return f"d.state IN ({_marks(states)})", [*states]
        names = list(self.configured)
        settled, owed = [s for s in states if s not in _STORED_OWED], [s for s in states if s in _STORED_OWED]
        term = f"(d.state IN ({_marks(settled)}) OR (d.state IN ({_marks(owed)}) AND d.endpoint IN ({_marks(names)}))"
        values: list[Any] = [*settled, *owed, *names]
        if State.ORPHANED in self.states:
            term += f" OR (d.state IN ({_marks(_STORED_OWED)}) AND d.endpoint NOT IN ({_marks(names)}))"
            values += [*_STORED_OWED, *names]
        return f"{term})", values

    def state_of(self, endpoint: str, stored: str) -> State:
        """The state of a delivery."""
        orphaned = self.configured is not None and endpoint not in self.configured and stored in _STORED_OWED
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


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the list of deliveries: after this one."""

    sequence: int = 0
    endpoint: str = ""


def page(connection: sqlite3.Connection, wanted: Filter, after: Place, size: int) -> list[Record]:
    """At most `size` deliveries after a place, in the order of their events."""
    condition, values = wanted.sql()
    ordered = "e" if wanted.event_ids or wanted.session else "d"
    query = (
        f"{_COLUMNS} FROM {wanted.source()}{_NEXT_TRY} WHERE {condition} AND ({ordered}.sequence, d.endpoint) > (?, ?)"
        f" AND {ordered}.sequence >= ? ORDER BY {ordered}.sequence, d.endpoint LIMIT ?"
    )
    rows = connection.execute(query, [*values, after.sequence, after.endpoint, after.sequence, size]).fetchall()
    return [_record(row, wanted) for row in rows]


def select(connection: sqlite3.Connection, wanted: Filter, limit: int | None = None) -> Iterator[Record]:
    """Deliveries in the order of their events, read a page at a time, so that no read is long."""
    after = Place()
    left = limit
    while left is None or left > 0:
        size = _PAGE if left is None else min(_PAGE, left)
        found = page(connection, wanted, after, size)
        yield from found
        if len(found) < size:
            return
        after = Place(found[-1].sequence, found[-1].endpoint)
        left = None if left is None else left - len(found)


def _record(row: Sequence[Any], wanted: Filter) -> Record:
    endpoint, sequence, event_id, event_type, session, state, tries, happened_at, settled_at, due, reason, *rest = row
    profile, recovered = rest
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


def last_sequence(connection: sqlite3.Connection) -> int:
    """The newest event's."""
    (found,) = connection.execute("SELECT max(sequence) FROM events").fetchone()
    return found or 0


def count(connection: sqlite3.Connection, wanted: Filter) -> int:
    """How many deliveries there are."""
    condition, values = wanted.sql()
    query = f"SELECT count(*) FROM {wanted.source()} WHERE {condition}"  # noqa: S608 - ours
    return int(connection.execute(query, values).fetchone()[0])


def attempts(connection: sqlite3.Connection, record: Record) -> list[AttemptRecord]:
    """Every attempt of a delivery that is still kept, oldest first."""
    rows = connection.execute(
        "SELECT number, started_at, duration, outcome, status, error, answer FROM attempts WHERE endpoint = ? AND sequence = ?"
        " UNION ALL SELECT d.attempts + 1, l.started_at, NULL, NULL, NULL, NULL, NULL FROM lanes l JOIN deliveries d"
        " ON d.endpoint = l.endpoint AND d.sequence = l.sequence WHERE l.endpoint = ? AND l.session = ? AND l.sequence = ?"
        " AND l.started_at IS NOT NULL ORDER BY 1",
        [record.endpoint, record.sequence, record.endpoint, record.session, record.sequence],
    )
    return [AttemptRecord(row[0], as_time(row[1]), *row[2:]) for row in rows]


def body(connection: sqlite3.Connection, record: Record) -> bytes | None:
    """The payload without file tokens, of a skipped one the state it was to be made of; None when there is none yet or it is no
    longer kept.
    """
    query = "SELECT content FROM bodies WHERE sequence = ? AND profile = ?"
    profile = "context" if record.state is State.SKIPPED else record.profile
    row = connection.execute(query, [record.sequence, profile]).fetchone()
    return None if row is None else row[0]


def retry(connection: sqlite3.Connection, record: Record) -> bool:
    """Owe a dead or cancelled delivery again, with a new round of tries, or try a suspended one now: its endpoint counts as up.

    False when it is none of these, its payload is gone, or it is in flight at this moment. It takes its old place among what its
    session still waits for, so it comes later than what was delivered meanwhile.
    """
    if connection.execute(_IN_FLIGHT, [record.endpoint, record.session, record.sequence]).fetchone():
        return False
    if record.state is State.SUSPENDED:
        lanes.end_outage(connection, record.endpoint)
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
        " WHERE lanes.sequence >= excluded.sequence AND lanes.started_at IS NULL",
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
    if connection.execute(_IN_FLIGHT, key).fetchone():
        return False
    lanes.settle(connection, record.endpoint, [(record.session, record.sequence)], "cancelled", now, reason=reason)
    return True


def _marks(values: Sequence[Any]) -> str:
    return ",".join("?" * len(values))
