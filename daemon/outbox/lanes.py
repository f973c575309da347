"""What is due: claiming the heads of lanes, and settling deliveries. Statements of one transaction each."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from datetime import UTC, datetime

from daemon.model import (
    Answered,
    Body,
    Broken,
    Dead,
    Delivered,
    Delivery,
    EndpointState,
    Outcome,
    Recorded,
    RetryAt,
    Suspended,
    TimedOut,
    Unreachable,
)

_DUE = "SELECT session, sequence FROM lanes WHERE endpoint = ? AND retry = ? AND due <= ? ORDER BY due, sequence LIMIT ?"
_LONGEST_AGO = (
    "SELECT session, sequence FROM lanes WHERE endpoint = ? AND retry = 1 AND due IS NOT NULL ORDER BY due, sequence LIMIT 1"
)
_FAILED = "UPDATE deliveries SET failures = failures + 1 WHERE endpoint = ? AND sequence = ?"
_TRY_AGAIN = "UPDATE lanes SET due = ?, retry = 1 WHERE endpoint = ? AND session = ?"
_WAIT_TURN = f"{_TRY_AGAIN} AND due IS NOT NULL"
_UP = (
    "INSERT INTO endpoints (name, probe_at, last_success_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET down_since = NULL, last_success_at = excluded.last_success_at"
)
_DOWN = (
    "INSERT INTO endpoints (name, down_since, probe_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET down_since = coalesce(down_since, excluded.down_since), probe_at = excluded.probe_at"
)
_EARLIEST = "SELECT due FROM lanes WHERE endpoint = ? AND retry = ? AND due IS NOT NULL ORDER BY due LIMIT 1"
_FOLLOWING = (
    "SELECT sequence, state FROM deliveries INDEXED BY deliveries_owed WHERE endpoint = ? AND session = ?"
    " AND state IN ('intent', 'pending', 'suspended') ORDER BY sequence LIMIT 1"
)
_NEXT_HEAD = "UPDATE lanes SET sequence = ?, due = ?, retry = 0 WHERE endpoint = ? AND session = ? AND sequence = ?"
_TO_SEND = (
    "SELECT d.state, d.attempts, d.failures, d.round_at, e.id, e.type, e.happened_at, e.recorded_at, b.content, b.slots,"
    # From the first attempt on the endpoint's answer in this session belongs to the payload; empty: there was none.
    " coalesce(d.answer, a.answer, x''), e.recovered FROM deliveries d"
    " JOIN events e ON e.sequence = d.sequence JOIN bodies b ON b.sequence = d.sequence AND b.profile = d.profile"
    " LEFT JOIN answers a ON a.endpoint = d.endpoint AND a.session = d.session"
    " WHERE d.endpoint = ? AND d.sequence = ?"
)
# No column that an index holds: those of `state` change in the rare cases only.
_COUNT = "UPDATE deliveries SET attempts = ?, round_at = ?, answer = ? WHERE endpoint = ? AND sequence = ?"
_NEW_ROUND = "UPDATE deliveries SET state = 'pending', failures = 0 WHERE endpoint = ? AND sequence = ?"


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
        " WHERE d.endpoint = lanes.endpoint AND d.sequence = lanes.sequence AND d.state IN ('pending', 'suspended'))",
        [AT_ONCE],
    )
    return interrupted


def claim(connection: sqlite3.Connection, endpoint: str, limit: int, retries: int, now: float) -> list[Delivery]:
    """Up to `limit` due deliveries, at most `retries` of them tried before, each with its attempt counted."""
    again = connection.execute(_DUE, [endpoint, 1, now, min(retries, limit)]).fetchall()
    fresh = connection.execute(_DUE, [endpoint, 0, now, limit - len(again)]).fetchall()
    claimed = [_claim_head(connection, Lane(endpoint, session), sequence, now) for session, sequence in [*again, *fresh]]
    return [delivery for delivery in claimed if delivery is not None]


def claim_probe(connection: sqlite3.Connection, endpoint: str, now: float) -> list[Delivery]:
    """The one delivery that finds out whether an endpoint that is down is back, its attempt counted; none when it is not due.

    At once a lane that was not tried since the endpoint went down, else the one that was tried longest ago.
    """
    heads = connection.execute(_DUE, [endpoint, 0, now, 1]).fetchall()
    if not heads:
        (probe_at,) = connection.execute("SELECT probe_at FROM endpoints WHERE name = ?", [endpoint]).fetchone()
        heads = connection.execute(_LONGEST_AGO, [endpoint]).fetchall() if probe_at <= now else []
    claimed = [_claim_head(connection, Lane(endpoint, session), sequence, now, probe=True) for session, sequence in heads]
    return [delivery for delivery in claimed if delivery is not None]


def next_due(connection: sqlite3.Connection, endpoint: str) -> datetime | None:
    """When the next delivery is due; None when nothing waits for a time."""
    found = {retry: due for retry in (0, 1) for (due,) in connection.execute(_EARLIEST, [endpoint, retry])}
    down = connection.execute("SELECT probe_at FROM endpoints WHERE name = ? AND down_since IS NOT NULL", [endpoint]).fetchone()
    if down is not None and 1 in found:
        found[1] = down[0]
    return as_time(min(found.values())) if found else None


def waits_too_long(
    connection: sqlite3.Connection, endpoint: str, longest_wait_s: float, probe_every_s: float, now: float
) -> bool:
    """Whether something waits longer than any wait is: the clock was set back."""
    (due,) = connection.execute("SELECT max(due) FROM lanes WHERE endpoint = ? AND retry = 1", [endpoint]).fetchone()
    probe = connection.execute("SELECT probe_at FROM endpoints WHERE name = ? AND down_since IS NOT NULL", [endpoint]).fetchone()
    return (due or 0) > now + longest_wait_s or (probe is not None and probe[0] > now + probe_every_s)


def mend_times(connection: sqlite3.Connection, endpoint: str, longest_wait_s: float, probe_every_s: float, now: float) -> int:
    """Make due what waits longer than any wait is; gives how many lanes."""
    query = "UPDATE endpoints SET probe_at = ? WHERE name = ? AND probe_at > ?"
    connection.execute(query, [now, endpoint, now + probe_every_s])
    return connection.execute(
        "UPDATE lanes SET due = ? WHERE endpoint = ? AND retry = 1 AND due > ?", [now, endpoint, now + longest_wait_s]
    ).rowcount


def end_outage(connection: sqlite3.Connection, endpoint: str) -> None:
    """The endpoint counts as up."""
    connection.execute("UPDATE endpoints SET down_since = NULL WHERE name = ?", [endpoint])


def endpoint_state(connection: sqlite3.Connection, endpoint: str) -> EndpointState:
    """Whether an endpoint is down, and when it last took anything."""
    row = connection.execute("SELECT down_since, last_success_at FROM endpoints WHERE name = ?", [endpoint]).fetchone()
    times = [None if row is None or row[index] is None else as_time(row[index]) for index in (0, 1)]
    return EndpointState(times[0], times[1])


def expire(connection: sqlite3.Connection, endpoint: str, max_age_s: float, now: float) -> int:
    """Give up suspended deliveries that are too old, a page at a time; gives how many."""
    old = connection.execute(
        "SELECT d.session, d.sequence FROM deliveries d INDEXED BY deliveries_suspended JOIN events e ON e.sequence = d.sequence"
        " WHERE d.endpoint = ? AND d.state = 'suspended' AND e.recorded_at < ? AND EXISTS (SELECT 1 FROM lanes l"
        " WHERE l.endpoint = d.endpoint AND l.session = d.session AND l.due IS NOT NULL) LIMIT 200",
        [endpoint, now - max_age_s],
    ).fetchall()
    for session, sequence in old:
        settle(
            connection, Lane(endpoint, session), sequence, "dead", now, reason="older than max_age, while the endpoint was down"
        )
    return len(old)


def _claim_head(connection: sqlite3.Connection, lane: Lane, sequence: int, now: float, *, probe: bool = False) -> Delivery | None:
    key = [lane.endpoint, sequence]
    row = connection.execute(_TO_SEND, key).fetchone()
    if row is None:
        settle(connection, lane, sequence, "skipped", now, reason="its payload is no longer kept")
        return None
    (state, attempts, failures, round_at, event_id, event_type, happened_at, recorded_at, content, slots, answer, recovered) = row
    attempt = attempts + 1
    if state == "suspended" and not probe:  # the endpoint is back
        connection.execute(_NEW_ROUND, key)
        failures, round_at = 0, now
    if round_at is None:
        round_at = now
    connection.execute(_COUNT, [attempt, round_at, answer, *key])
    connection.execute("UPDATE lanes SET due = NULL WHERE endpoint = ? AND session = ?", [lane.endpoint, lane.session])
    connection.execute("INSERT INTO attempts (endpoint, sequence, number, started_at) VALUES (?, ?, ?, ?)", [*key, attempt, now])
    files, place = json.loads(slots)
    return Delivery(
        endpoint=lane.endpoint,
        sequence=sequence,
        event_id=event_id,
        type=event_type,
        session=lane.session,
        attempt=attempt,
        failures=failures,
        happened_at=as_time(happened_at),
        recorded_at=as_time(recorded_at),
        round_at=as_time(round_at),
        body=Body(
            content, tuple((offset, room, user, file) for offset, room, user, file in files), tuple(place) if place else None
        ),
        answer=answer or None,
        probe=probe,
        recovered=bool(recovered),
    )


def record(connection: sqlite3.Connection, delivery: Delivery, recorded: Recorded, now: float) -> None:
    """Keep what came of an attempt, what follows from it, and whether the endpoint is up."""
    lane = Lane(delivery.endpoint, delivery.session)
    key = [delivery.endpoint, delivery.sequence]
    connection.execute(
        "UPDATE attempts SET duration = ?, outcome = ?, status = ?, error = ?, answer = ?"
        " WHERE endpoint = ? AND sequence = ? AND number = ?",
        [*_columns(recorded.outcome), *key, delivery.attempt],
    )
    match recorded.verdict:
        case Delivered():
            if recorded.answer is not None:
                row = [lane.endpoint, lane.session, recorded.answer, now]
                connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
            connection.execute(_UP, [lane.endpoint, now, now])
            settle(connection, lane, delivery.sequence, "delivered", now)
        case Dead(reason):
            connection.execute(_FAILED, key)
            settle(connection, lane, delivery.sequence, "dead", now, reason=reason)
            if delivery.probe:  # the endpoint is still down: what follows in the lane waits for its turn
                connection.execute(_WAIT_TURN, [now, lane.endpoint, lane.session])
                connection.execute(_DOWN, [lane.endpoint, now, now + recorded.probe_every_s])
        case RetryAt(due):
            if not isinstance(recorded.outcome, Broken) or recorded.outcome.counts:
                connection.execute(_FAILED, key)
            connection.execute(_TRY_AGAIN, [due.timestamp(), lane.endpoint, lane.session])
            if delivery.probe:  # it could not be made: the next one waits too
                connection.execute("UPDATE endpoints SET probe_at = ? WHERE name = ?", [due.timestamp(), lane.endpoint])
        case Suspended(reason):
            connection.execute(
                "UPDATE deliveries SET state = 'suspended', reason = ?, failures = failures + ?"
                " WHERE endpoint = ? AND sequence = ?",
                [reason, not delivery.probe, *key],
            )
            connection.execute(_TRY_AGAIN, [now, lane.endpoint, lane.session])
            connection.execute(_DOWN, [lane.endpoint, now, now + recorded.probe_every_s])


def settle(
    connection: sqlite3.Connection, lane: Lane, sequence: int, state: str, now: float, *, reason: str | None = None
) -> None:
    """Settle a delivery; where it was the head of its lane, the next one of the session follows."""
    connection.execute(
        "UPDATE deliveries SET state = ?, settled_at = ?, reason = ? WHERE endpoint = ? AND sequence = ?",
        [state, now, reason, lane.endpoint, sequence],
    )
    key = [lane.endpoint, lane.session]
    following = connection.execute(_FOLLOWING, key).fetchone()
    if following is None:
        connection.execute("DELETE FROM lanes WHERE endpoint = ? AND session = ? AND sequence = ?", [*key, sequence])
        return
    due = None if following[1] == "intent" else AT_ONCE
    connection.execute(_NEXT_HEAD, [following[0], due, *key, sequence])


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
        case Broken(error, duration):
            return duration, "broken", None, error, None
