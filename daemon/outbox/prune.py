"""Forgetting what is old enough, a page at a time, so that no transaction is long and the write-ahead log stays small."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

_PAGE = 500
_DELETE_ATTEMPTS = """
    DELETE FROM attempts WHERE (endpoint, sequence) IN (SELECT endpoint, sequence FROM deliveries WHERE sequence = ?)
"""
_KEEPS_BODY = """
    SELECT EXISTS (SELECT 1 FROM deliveries WHERE sequence = ?
    AND (settled_at IS NULL OR settled_at > CASE state WHEN 'delivered' THEN ? ELSE ? END))
"""
_KEEPS_ID = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE sequence = ? AND (settled_at IS NULL OR settled_at > ?))"


@dataclass(frozen=True, slots=True)
class Retention:
    """Ages in seconds."""

    delivered_s: float
    dead_s: float
    ids_s: float
    state_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """How far a round of pruning has come: the last sequences, and the last row of folded state, that were looked at."""

    bodies: int = 0
    events: int = 0
    states: int = 0


def prune_page(connection: sqlite3.Connection, retention: Retention, place: Place, now: float) -> Place | None:
    """Look at one page after `place` and forget what is old enough; gives the place after it, None when the round is over.

    An event's payload and attempts go when every endpoint settled it long enough ago, its id when that is `ids_s` ago.
    Settings and departments stay folded for as long as the outbox exists.
    """
    bodies, last_body = _old_bodies(connection, retention, place.bodies, now)
    connection.executemany(_DELETE_ATTEMPTS, bodies)
    connection.executemany("DELETE FROM bodies WHERE sequence = ?", bodies)
    events, last_event = _old_events(connection, retention, place.events, now)
    connection.executemany(_DELETE_ATTEMPTS, events)
    connection.executemany("DELETE FROM bodies WHERE sequence = ?", events)
    connection.executemany("DELETE FROM deliveries WHERE sequence = ?", events)
    connection.executemany("DELETE FROM events WHERE sequence = ?", events)
    last_state = _prune_states(connection, place.states, now - retention.state_s)
    answers = connection.execute(
        "DELETE FROM answers WHERE (endpoint, session) IN (SELECT endpoint, session FROM answers WHERE received_at < ? LIMIT ?)",
        [now - retention.state_s, _PAGE],
    ).rowcount
    connection.execute("DELETE FROM arrivals WHERE at < ?", [now - retention.ids_s])
    if last_body is None and last_event is None and last_state is None and answers < _PAGE:
        return None
    return Place(last_body or place.bodies, last_event or place.events, last_state or place.states)


def _prune_states(connection: sqlite3.Connection, after: int, cut: float) -> int | None:
    query = "SELECT max(rowid), count(*) FROM (SELECT rowid FROM states WHERE rowid > ? ORDER BY rowid LIMIT ?)"
    last, count = connection.execute(query, [after, _PAGE]).fetchone()
    if last is not None:
        connection.execute(
            "DELETE FROM states WHERE rowid > ? AND rowid <= ? AND changed_at < ?"
            " AND kind NOT IN ('setting', 'department', 'server')",
            [after, last, cut],
        )
    return last if count == _PAGE else None


def _old_bodies(
    connection: sqlite3.Connection, retention: Retention, after: int, now: float
) -> tuple[list[tuple[int]], int | None]:
    page = connection.execute(
        "SELECT DISTINCT sequence FROM bodies WHERE sequence > ? ORDER BY sequence LIMIT ?", [after, _PAGE]
    ).fetchall()
    cuts = [now - retention.delivered_s, now - retention.dead_s]
    old = [key for key in page if not connection.execute(_KEEPS_BODY, [*key, *cuts]).fetchone()[0]]
    return old, page[-1][0] if len(page) == _PAGE else None


def _old_events(
    connection: sqlite3.Connection, retention: Retention, after: int, now: float
) -> tuple[list[tuple[int]], int | None]:
    cut = now - retention.ids_s
    page = connection.execute(
        "SELECT sequence FROM (SELECT sequence, recorded_at FROM events WHERE sequence > ? ORDER BY sequence LIMIT ?)"
        " WHERE recorded_at < ?",
        [after, _PAGE, cut],
    ).fetchall()
    old = [key for key in page if not connection.execute(_KEEPS_ID, [*key, cut]).fetchone()[0]]
    return old, page[-1][0] if page else None
