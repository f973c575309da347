"""What is due: claiming the heads of lanes, and settling deliveries. Statements of one transaction each."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon.model import Answered, Body, Dead, Delivered, Delivery, Outcome, RetryAt, TimedOut, Unreachable, Verdict

_DUE = "SELECT session, sequence FROM lanes WHERE endpoint = ? AND retry = ? AND due <= ? ORDER BY due, sequence LIMIT ?"
_EARLIEST = "SELECT due FROM lanes WHERE endpoint = ? AND retry = ? AND due IS NOT NULL ORDER BY due LIMIT 1"
_FOLLOWING = (
    "SELECT sequence, state FROM deliveries INDEXED BY deliveries_owed WHERE endpoint = ? AND session = ?"
    " AND state IN ('intent', 'pending') ORDER BY sequence LIMIT 1"
)
_TO_SEND = (
    "SELECT d.attempts, d.failures, e.id, e.type, e.happened_at, b.content, b.slots, d.answer FROM deliveries d"
    " JOIN events e ON e.sequence = d.sequence JOIN bodies b ON b.sequence = d.sequence AND b.profile = d.profile"
    " WHERE d.endpoint = ? AND d.sequence = ?"
)


AT_ONCE = 0.0
"""Due for a first try: always, whatever the clock says. Ties go by sequence, which is the order of what happened."""
_KEPT_ANSWER = 1024  # bytes of an answer in the record of an attempt


@dataclass(frozen=True, slots=True)
class Lane:
    """The lane of a session at an endpoint."""

    endpoint: str
    session: str


def recover(connection: sqlite3.Connection) -> int:
    """Mark attempts that a stop interrupted, and make their lanes due; gives how many there were.

    Without a request in flight, every lane whose head has a body has a time.
    """
    interrupted = connection.execute(
        "UPDATE attempts SET outcome = 'interrupted' WHERE outcome IS NULL AND (endpoint, sequence) IN"
        " (SELECT endpoint, sequence FROM lanes WHERE due IS NULL)"
    ).rowcount
    connection.execute(
        "UPDATE lanes SET due = ? WHERE due IS NULL AND EXISTS (SELECT 1 FROM deliveries d"
        " WHERE d.endpoint = lanes.endpoint AND d.sequence = lanes.sequence AND d.state = 'pending')",
        [AT_ONCE],
    )
    return interrupted


def claim(connection: sqlite3.Connection, endpoint: str, limit: int, retries: int, now: float) -> list[Delivery]:
    """Up to `limit` due deliveries, at most `retries` of them tried before, each with its attempt counted."""
    again = connection.execute(_DUE, [endpoint, 1, now, min(retries, limit)]).fetchall()
    fresh = connection.execute(_DUE, [endpoint, 0, now, limit - len(again)]).fetchall()
    claimed = [_claim_head(connection, Lane(endpoint, session), sequence, now) for session, sequence in [*again, *fresh]]
    return [delivery for delivery in claimed if delivery is not None]


def next_due(connection: sqlite3.Connection, endpoint: str) -> datetime | None:
    """When the next delivery is due; None when nothing waits for a time."""
    found = [due for retry in (0, 1) for (due,) in connection.execute(_EARLIEST, [endpoint, retry])]
    return as_time(min(found)) if found else None


def _claim_head(connection: sqlite3.Connection, lane: Lane, sequence: int, now: float) -> Delivery | None:
    key = [lane.endpoint, sequence]
    connection.execute("UPDATE deliveries SET attempts = attempts + 1 WHERE endpoint = ? AND sequence = ?", key)
    row = connection.execute(_TO_SEND, key).fetchone()
    if row is None:
        settle(connection, lane, sequence, "skipped", now, reason="its payload is no longer kept")
        return None
    attempt, failures, event_id, event_type, happened_at, content, slots, answer = row
    if answer is None:
        answer = _freeze_answer(connection, lane, sequence)
    connection.execute("UPDATE lanes SET due = NULL WHERE endpoint = ? AND session = ?", [lane.endpoint, lane.session])
    connection.execute("INSERT INTO attempts (endpoint, sequence, number, started_at) VALUES (?, ?, ?, ?)", [*key, attempt, now])
    files, place = json.loads(slots)
    body = Body(content, tuple((offset, room, user, file) for offset, room, user, file in files), tuple(place) if place else None)
    return Delivery(
        lane.endpoint, sequence, event_id, event_type, lane.session, attempt, failures, as_time(happened_at), body, answer or None
    )


def _freeze_answer(connection: sqlite3.Connection, lane: Lane, sequence: int) -> bytes:
    """The endpoint's last answer in this session, empty when there is none; from the first attempt on it belongs to the
    payload.
    """
    query = "SELECT answer FROM answers WHERE endpoint = ? AND session = ?"
    found = connection.execute(query, [lane.endpoint, lane.session]).fetchone()
    answer: bytes = b"" if found is None else found[0]
    connection.execute("UPDATE deliveries SET answer = ? WHERE endpoint = ? AND sequence = ?", [answer, lane.endpoint, sequence])
    return answer


def record(
    connection: sqlite3.Connection, delivery: Delivery, outcome: Outcome, verdict: Verdict, now: float, *, answer: bytes | None
) -> None:
    """Record what came of an attempt and what follows from it; `answer` (JSON) is what later payloads of the session return."""
    lane = Lane(delivery.endpoint, delivery.session)
    key = [delivery.endpoint, delivery.sequence]
    connection.execute(
        "UPDATE attempts SET duration = ?, outcome = ?, status = ?, error = ?, answer = ?"
        " WHERE endpoint = ? AND sequence = ? AND number = ?",
        [*_columns(outcome), *key, delivery.attempt],
    )
    if not isinstance(verdict, Delivered):
        connection.execute("UPDATE deliveries SET failures = failures + 1 WHERE endpoint = ? AND sequence = ?", key)
    match verdict:
        case Delivered():
            if answer is not None:
                row = [lane.endpoint, lane.session, answer, now]
                connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
            settle(connection, lane, delivery.sequence, "delivered", now)
        case Dead(reason):
            settle(connection, lane, delivery.sequence, "dead", now, reason=reason)
        case RetryAt(due):
            connection.execute(
                "UPDATE lanes SET due = ?, retry = 1 WHERE endpoint = ? AND session = ?",
                [due.timestamp(), lane.endpoint, lane.session],
            )


def settle(
    connection: sqlite3.Connection, lane: Lane, sequence: int, state: str, now: float, *, reason: str | None = None
) -> None:
    """Settle a delivery; where it was the head of its lane, the next one of the session follows."""
    connection.execute(
        "UPDATE deliveries SET state = ?, settled_at = ?, reason = ? WHERE endpoint = ? AND sequence = ?",
        [state, now, reason, lane.endpoint, sequence],
    )
    key = [lane.endpoint, lane.session]
    head = connection.execute("SELECT sequence FROM lanes WHERE endpoint = ? AND session = ?", key).fetchone()
    if head is None or head[0] != sequence:
        return
    following = connection.execute(_FOLLOWING, key).fetchone()
    if following is None:
        connection.execute("DELETE FROM lanes WHERE endpoint = ? AND session = ?", key)
        return
    due = AT_ONCE if following[1] == "pending" else None
    connection.execute(
        "UPDATE lanes SET sequence = ?, due = ?, retry = 0 WHERE endpoint = ? AND session = ?", [following[0], due, *key]
    )


def as_time(seconds: float) -> datetime:
    """A stored time."""
    return datetime.fromtimestamp(seconds, UTC)


def _columns(outcome: Outcome) -> tuple[float, str, int | None, str | None, bytes | None]:
    match outcome:
        case Answered(status, answer, duration):
            return duration, "answered", status, None, answer[:_KEPT_ANSWER]
        case TimedOut(duration):
            return duration, "timeout", None, "no answer in time", None
        case Unreachable(error, duration):
            return duration, "unreachable", None, error, None
