"""What is due: claiming the heads of lanes, and settling deliveries. Statements of one transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import groupby
from typing import Any, assert_never

import orjson

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
from daemon.outbox.rows import insert, marks, padded

# What is sent, of each head that this finds; a body that is no longer kept is NULL. The endpoint's last answer in this session
# belongs to the payload, at every further attempt the same one; empty: there was none.
_TO_SEND = (
    "SELECT l.session, l.sequence, d.state, d.attempts, d.failures, d.round_at, e.id, e.type, e.happened_at, e.recorded_at,"
    " b.content, b.slots, coalesce(d.answer, a.answer, x''), e.recovered, d.answer IS NULL AND a.answer IS NOT NULL FROM"
    " (SELECT endpoint, session, sequence FROM lanes WHERE {heads} ORDER BY due, sequence LIMIT ?) l"
    " CROSS JOIN deliveries d ON d.endpoint = l.endpoint AND d.sequence = l.sequence"
    " CROSS JOIN events e ON e.sequence = l.sequence"
    " LEFT JOIN bodies b ON b.sequence = l.sequence AND b.profile = d.profile"
    " LEFT JOIN answers a ON a.endpoint = l.endpoint AND a.session = l.session"
)
_DUE = _TO_SEND.format(heads="endpoint = ? AND retry = ? AND due <= ?")
_LONGEST_AGO = _TO_SEND.format(heads="endpoint = ? AND retry = 1 AND due IS NOT NULL")
_FAILED = "UPDATE deliveries SET failures = failures + 1 WHERE endpoint = ? AND sequence = ?"
_TRY_AGAIN = "UPDATE lanes SET due = ?, retry = 1, started_at = NULL WHERE endpoint = ? AND session = ?"
_WAIT_TURN = f"{_TRY_AGAIN} AND due IS NOT NULL"
_UP = (
    "INSERT INTO endpoints (name, probe_at, last_success_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET down_since = NULL, last_success_at = excluded.last_success_at"
)
_DOWN = (
    "INSERT INTO endpoints (name, down_since, probe_at) VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE"
    " SET down_since = coalesce(down_since, excluded.down_since), probe_at = excluded.probe_at"
)
_NEXT_DUE = (
    "SELECT (SELECT due FROM lanes WHERE endpoint = :name AND retry = 0 AND due IS NOT NULL ORDER BY due LIMIT 1),"
    " (SELECT due FROM lanes WHERE endpoint = :name AND retry = 1 AND due IS NOT NULL ORDER BY due LIMIT 1),"
    " (SELECT probe_at FROM endpoints WHERE name = :name AND down_since IS NOT NULL)"
)
_OWED = (
    "FROM deliveries d INDEXED BY deliveries_owed WHERE d.endpoint = lanes.endpoint AND d.session = lanes.session"
    " AND d.state IN ('intent', 'pending', 'suspended')"
)
_SETTLED = (
    "UPDATE OR FAIL deliveries SET state = ?, settled_at = ?, reason = ?, attempts = attempts + ?"
    " WHERE endpoint = ? AND sequence IN ({marks})"
)
_OF_SETTLED = "endpoint = ? AND session IN ({marks}) AND sequence IN ({marks})"
_NOTHING_FOLLOWS = f"DELETE FROM lanes WHERE {_OF_SETTLED} AND NOT EXISTS (SELECT 1 {_OWED})"  # noqa: S608 - texts of ours
_NEXT_HEAD = (
    f"UPDATE OR FAIL lanes SET (sequence, due) = (SELECT d.sequence, iif(d.state = 'intent', NULL, 0.0) {_OWED}"  # noqa: S608 - texts of ours
    f" ORDER BY d.sequence LIMIT 1), retry = 0, started_at = NULL WHERE {_OF_SETTLED}"
)
_ATTEMPTS = "attempts (endpoint, sequence, number, started_at, duration, outcome, status, error, answer)"


AT_ONCE = 0.0
"""Due for a first try: always, whatever the clock says. Ties go by sequence, which is the order of what happened."""
_KEPT_ANSWER = 1024  # bytes of an answer in the record of an attempt


def recover(connection: sqlite3.Connection) -> int:
    """Record attempts that a stop interrupted, and make their lanes due; gives how many there were."""
    interrupted = connection.execute(
        "INSERT INTO attempts (endpoint, sequence, number, started_at, outcome)"
        " SELECT l.endpoint, l.sequence, d.attempts + 1, l.started_at, 'interrupted' FROM lanes l"
        " CROSS JOIN deliveries d ON d.endpoint = l.endpoint AND d.sequence = l.sequence WHERE l.started_at IS NOT NULL"
    ).rowcount
    if interrupted:
        connection.execute(
            "UPDATE deliveries SET attempts = attempts + 1, answer = coalesce(answer, x'')"
            " FROM lanes l WHERE l.started_at IS NOT NULL"
            " AND deliveries.endpoint = l.endpoint AND deliveries.sequence = l.sequence"
        )
        connection.execute("UPDATE lanes SET due = ?, started_at = NULL WHERE started_at IS NOT NULL", [AT_ONCE])
    return interrupted


def claim(connection: sqlite3.Connection, endpoint: str, limit: int, retries: int, now: float) -> list[Delivery]:
    """Up to `limit` due deliveries, at most `retries` of them tried before, each with its attempt counted."""
    most_again = min(retries, limit)
    again = connection.execute(_DUE, [endpoint, 1, now, most_again]).fetchall() if most_again else []
    fresh = connection.execute(_DUE, [endpoint, 0, now, limit - len(again)]).fetchall()
    return _claim(connection, endpoint, [*again, *fresh], now)


def claim_probe(connection: sqlite3.Connection, endpoint: str, now: float) -> list[Delivery]:
    """The one delivery that finds out whether an endpoint that is down is back, its attempt counted; none when it is not due.

    At once a lane that was not tried since the endpoint went down, else the one that was tried longest ago.
    """
    heads = connection.execute(_DUE, [endpoint, 0, now, 1]).fetchall()
    if not heads:
        (probe_at,) = connection.execute("SELECT probe_at FROM endpoints WHERE name = ?", [endpoint]).fetchone()
        heads = connection.execute(_LONGEST_AGO, [endpoint, 1]).fetchall() if probe_at <= now else []
    return _claim(connection, endpoint, heads, now, probe=True)


def next_due(connection: sqlite3.Connection, endpoint: str) -> datetime | None:
    """When the next delivery is due; None when nothing waits for a time."""
    fresh, again, probe_at = connection.execute(_NEXT_DUE, {"name": endpoint}).fetchone()
    if again is not None and probe_at is not None:
        again = probe_at
    found = [due for due in (fresh, again) if due is not None]
    return as_time(min(found)) if found else None


def waits_too_long(
    connection: sqlite3.Connection, endpoint: str, longest_wait_s: float, probe_every_s: float, now: float
) -> bool:
    """Whether something waits longer than any wait is: the clock was set back."""
    (due,) = connection.execute(
        "SELECT max(due) FROM lanes WHERE endpoint = ? AND retry = 1 AND due IS NOT NULL", [endpoint]
    ).fetchone()
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
    reason = "older than max_age, while the endpoint was down"
    settle(connection, endpoint, old, "dead", now, reason=reason)
    return len(old)


def _claim(
    connection: sqlite3.Connection, endpoint: str, heads: Sequence[Sequence[Any]], now: float, *, probe: bool = False
) -> list[Delivery]:
    """The deliveries of `heads` (rows of `_TO_SEND`), each with its attempt counted."""
    lost = [(session, sequence) for session, sequence, *rest in heads if rest[8] is None]
    if lost:
        settle(connection, endpoint, lost, "skipped", now, reason="its payload is no longer kept")
    claimed = [_delivery(endpoint, row, now, probe=probe) for row in heads if row[10] is not None]
    answers = [(row[12], endpoint, row[1]) for row in heads if row[14]]
    connection.executemany("UPDATE deliveries SET answer = ? WHERE endpoint = ? AND sequence = ?", answers)
    for chunk in padded([delivery.session for delivery in claimed]):
        statement = f"UPDATE OR FAIL lanes SET due = NULL, started_at = ? WHERE endpoint = ? AND session IN ({marks(len(chunk))})"  # noqa: S608 - question marks only
        connection.execute(statement, [now, endpoint, *chunk])
    return claimed


def _delivery(endpoint: str, row: Sequence[Any], now: float, *, probe: bool) -> Delivery:
    session, sequence, state, attempts, failures, round_at, event_id, event_type, happened_at, recorded_at, *rest = row
    content, slots, answer, recovered, _ = rest
    if state == "suspended" and not probe:  # the endpoint is back: a new round
        failures, round_at = 0, now
    files, place = orjson.loads(slots)
    body = Body(content, tuple(map(tuple, files)), tuple(place) if place else None)
    # By place: names cost more than the rest of it.
    return Delivery(
        endpoint,
        sequence,
        event_id,
        event_type,
        session,
        attempts + 1,
        failures,
        as_time(happened_at),
        as_time(recorded_at),
        as_time(now if round_at is None else round_at),
        body,
        answer or None,
        probe,
        bool(recovered),
    )


def record(connection: sqlite3.Connection, items: Sequence[tuple[Delivery, Recorded]], now: float) -> None:
    """Keep what came of attempts, what follows from it, and whether the endpoints are up, as of the last of each.

    In the order of the decisions; successes in a row are kept together.
    """
    rows = [
        (item.endpoint, item.sequence, item.attempt, recorded.started_at.timestamp(), *_columns(recorded.outcome))
        for item, recorded in items
    ]
    insert(connection, _ATTEMPTS, rows)
    for (endpoint, delivered), run in groupby(items, lambda item: (item[0].endpoint, isinstance(item[1].verdict, Delivered))):
        if delivered:
            _record_delivered(connection, endpoint, list(run), now)
        else:
            for delivery, recorded in run:
                _record_failed(connection, delivery, recorded, now)


def _record_delivered(
    connection: sqlite3.Connection, endpoint: str, items: Sequence[tuple[Delivery, Recorded]], now: float
) -> None:
    answers = [(endpoint, item.session, recorded.answer, now) for item, recorded in items if recorded.answer is not None]
    for row in answers:
        connection.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
    connection.execute(_UP, [endpoint, now, now])
    settle(connection, endpoint, [(item.session, item.sequence) for item, _ in items], "delivered", now, tried=True)


def _record_failed(connection: sqlite3.Connection, delivery: Delivery, recorded: Recorded, now: float) -> None:
    endpoint, session, sequence = delivery.endpoint, delivery.session, delivery.sequence
    key = [endpoint, sequence]
    state = "suspended" if delivery.probe else "pending"  # one that was suspended has begun a new round
    connection.execute(
        "UPDATE deliveries SET attempts = ?, failures = ?, round_at = ?, state = iif(state = 'suspended', ?, state),"
        " answer = coalesce(answer, ?) WHERE endpoint = ? AND sequence = ?",
        [delivery.attempt, delivery.failures, delivery.round_at.timestamp(), state, delivery.answer or b"", *key],
    )
    match recorded.verdict:
        case Dead(reason):
            connection.execute(_FAILED, key)
            settle(connection, endpoint, [(session, sequence)], "dead", now, reason=reason)
            if delivery.probe:  # the endpoint is still down: what follows in the lane waits for its turn
                connection.execute(_WAIT_TURN, [now, endpoint, session])
                connection.execute(_DOWN, [endpoint, now, now + recorded.probe_every_s])
        case RetryAt(due):
            if not isinstance(recorded.outcome, Broken) or recorded.outcome.counts:
                connection.execute(_FAILED, key)
            connection.execute(_TRY_AGAIN, [due.timestamp(), endpoint, session])
            if delivery.probe:  # it could not be made: the next one waits too
                connection.execute("UPDATE endpoints SET probe_at = ? WHERE name = ?", [due.timestamp(), endpoint])
        case Suspended(reason):
            connection.execute(
                "UPDATE deliveries SET state = 'suspended', reason = ?, failures = failures + ?"
                " WHERE endpoint = ? AND sequence = ?",
                [reason, not delivery.probe, *key],
            )
            connection.execute(_TRY_AGAIN, [now, endpoint, session])
            connection.execute(_DOWN, [endpoint, now, now + recorded.probe_every_s])
        case Delivered():
            raise AssertionError("a success is recorded elsewhere")
        case _:
            assert_never(recorded.verdict)


def settle(
    connection: sqlite3.Connection,
    endpoint: str,
    settled: Sequence[tuple[str, int]],
    state: str,
    now: float,
    *,
    reason: str | None = None,
    tried: bool = False,
) -> None:
    """Settle deliveries (session and sequence) of an endpoint, by one more attempt each when `tried`. Where one was the head of
    its lane, the next one of the session follows.
    """
    for chunk in padded(settled):
        sessions, sequences = [session for session, _ in chunk], [sequence for _, sequence in chunk]
        listed = marks(len(chunk))
        connection.execute(_SETTLED.format(marks=listed), [state, now, reason, tried, endpoint, *sequences])
        lanes = [endpoint, *sessions, *sequences]
        connection.execute(_NOTHING_FOLLOWS.format(marks=listed), lanes)
        connection.execute(_NEXT_HEAD.format(marks=listed), lanes)


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
