"""What compose adds: events, intents and their bodies, folded state, the position. Statements of one transaction each."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import bson
from bson.timestamp import Timestamp

from daemon.model import Body, Commit, Intent, IntentUpdate, NewEvent, Pairing, Position, Profile
from daemon.outbox import lanes
from daemon.outbox.lanes import Lane, as_time, settle

_INTENTS = (
    "SELECT i.sequence, e.id, e.session, started_seconds, started_increment, completed_seconds, completed_increment, cut, context"
    " FROM intents i JOIN events e ON e.sequence = i.sequence WHERE completed_seconds IS "
)
_COMPLETE = _INTENTS + "NOT NULL ORDER BY i.sequence LIMIT ?"
_WAITING = _INTENTS + "NULL ORDER BY i.sequence LIMIT ?"
_KEEP_STATE = (
    "INSERT INTO states VALUES (?, ?, ?, ?) ON CONFLICT (kind, id) DO UPDATE"
    " SET document = excluded.document, changed_at = excluded.changed_at"
)
TWIN_WINDOW_S = 600.0
"""How far apart the times of two arrivals of the same thing can be: Rocket.Chat's retries of a webhook take some minutes."""


def append(connection: sqlite3.Connection, commit: Commit, now: float) -> None:
    """Keep all of `commit`. Events that are known already are left as they are."""
    for event in commit.events:
        append_event(connection, event, now)
    for update in commit.intent_updates:
        _update_intent(connection, update)
    for state in commit.states:
        if state.document is None:
            connection.execute("DELETE FROM states WHERE kind = ? AND id = ?", [state.kind, state.id])
        else:
            row = [state.kind, state.id, bson.encode(state.document), now]
            connection.execute(_KEEP_STATE, row)
    save_position(connection, commit.position, now)


def append_event(connection: sqlite3.Connection, event: NewEvent, now: float) -> int:
    """Keep one event, unless it is known already or its twin by another way came first; gives how many deliveries are new."""
    if event.pairing is not None and _has_twin(connection, event.id, event.pairing):
        return 0
    inserted = connection.execute(
        "INSERT INTO events (id, type, session, happened_at, recorded_at, recovered) VALUES (?, ?, ?, ?, ?, ?)"
        " ON CONFLICT (id) DO NOTHING",
        [event.id, event.type, event.session, event.happened_at.timestamp(), now, event.recovered],
    )
    sequence = inserted.lastrowid if inserted.rowcount and inserted.lastrowid else _sequence(connection, event.id)
    state = "skipped" if event.skipped is not None else "intent" if event.intent is not None else "pending"
    settled = now if event.skipped is not None else None
    new = [
        endpoint
        for endpoint, profile in event.endpoints.items()
        if connection.execute(
            "INSERT INTO deliveries (endpoint, sequence, session, profile, state, settled_at, reason)"
            " VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (endpoint, sequence) DO NOTHING",
            [endpoint, sequence, event.session, profile, state, settled, event.skipped],
        ).rowcount
    ]
    if not new or event.skipped is not None:
        return len(new)
    if event.intent is not None:
        _insert_intent(connection, sequence, event.intent)
    else:
        _insert_bodies(connection, sequence, event.bodies)
    due = None if event.intent is not None else lanes.AT_ONCE
    connection.executemany(
        "INSERT INTO lanes (endpoint, session, sequence, due) VALUES (?, ?, ?, ?) ON CONFLICT (endpoint, session) DO NOTHING",
        [(endpoint, event.session, sequence, due) for endpoint in new],
    )
    return len(new)


def _has_twin(connection: sqlite3.Connection, event_id: str, pairing: Pairing) -> bool:
    """Note an arrival; whether it is the second of two, by the other way. The oldest without a twin pairs first."""
    at = pairing.at.timestamp()
    known = connection.execute("SELECT twin FROM arrivals WHERE id = ?", [event_id]).fetchone()
    if known is not None:
        return known[0] is not None and known[0] != event_id
    twin = connection.execute(
        "SELECT id FROM arrivals WHERE key = ? AND way <> ? AND twin IS NULL AND abs(at - ?) <= ? ORDER BY at LIMIT 1",
        [pairing.key, pairing.way, at, TWIN_WINDOW_S],
    ).fetchone()
    twin_id = None if twin is None else twin[0]
    connection.execute("INSERT INTO arrivals VALUES (?, ?, ?, ?, ?)", [event_id, pairing.way, pairing.key, at, twin_id])
    if twin_id is None:
        return False
    # The first arrival is the event: a mark on it that it has met its twin, not that it was dropped.
    connection.execute("UPDATE arrivals SET twin = id WHERE id = ?", [twin_id])
    return True


def _update_intent(connection: sqlite3.Connection, update: IntentUpdate) -> None:
    completed = (None, None) if update.completed is None else (update.completed.time, update.completed.inc)
    connection.execute(
        "UPDATE intents SET completed_seconds = ?, completed_increment = ?, cut = ?, context = coalesce(?, context)"
        " WHERE completed_seconds IS NULL AND sequence = (SELECT sequence FROM events WHERE id = ?)",
        [*completed, update.cut.timestamp(), update.context, update.event_id],
    )


def composed(connection: sqlite3.Connection, event_id: str, bodies: Mapping[Profile, Body]) -> None:
    """An intent got its bodies: its deliveries are pending now. One that was added meanwhile, in another shape, still waits."""
    sequence = _sequence(connection, event_id)
    _insert_bodies(connection, sequence, bodies)
    for profile in bodies:
        # Only lanes that waited for the body: the event may be in flight at an endpoint that had it before.
        connection.execute(
            "UPDATE lanes SET due = ? WHERE sequence = ? AND due IS NULL AND endpoint IN"
            " (SELECT endpoint FROM deliveries WHERE sequence = ? AND profile = ? AND state = 'intent')",
            [lanes.AT_ONCE, sequence, sequence, profile.value],
        )
        connection.execute(
            "UPDATE deliveries SET state = 'pending' WHERE sequence = ? AND profile = ? AND state = 'intent'",
            [sequence, profile.value],
        )
    connection.execute(
        "DELETE FROM intents WHERE sequence = ? AND NOT EXISTS"
        " (SELECT 1 FROM deliveries d WHERE d.sequence = intents.sequence AND d.state = 'intent')",
        [sequence],
    )


def skip(connection: sqlite3.Connection, event_id: str, reason: str, now: float) -> None:
    """An intent cannot be composed: its deliveries are settled as skipped; its context is kept as the record."""
    sequence = _sequence(connection, event_id)
    query = "SELECT endpoint, session FROM deliveries WHERE sequence = ? AND state = 'intent'"
    owed = connection.execute(query, [sequence]).fetchall()
    connection.execute(
        "INSERT OR REPLACE INTO bodies SELECT sequence, 'context', context, '[[], null]' FROM intents WHERE sequence = ?",
        [sequence],
    )
    connection.execute("DELETE FROM intents WHERE sequence = ?", [sequence])
    for endpoint, session in owed:
        settle(connection, Lane(endpoint, session), sequence, "skipped", now, reason=reason)


def save_position(connection: sqlite3.Connection, position: Position, now: float) -> None:
    """Keep where the change stream is read from."""
    token = None if position.token is None else bson.encode(position.token)
    row = [position.cluster_time.time, position.cluster_time.inc, token, now]
    connection.execute("INSERT OR REPLACE INTO position VALUES (1, ?, ?, ?, ?)", row)


def jump(connection: sqlite3.Connection, position: Position, now: float) -> None:
    """Go to another place in the stream. Folded state is dropped, since it missed what lies between."""
    connection.execute("DELETE FROM states")
    save_position(connection, position, now)


def load_position(connection: sqlite3.Connection) -> Position | None:
    """Where the change stream is read from; None before the first start."""
    row = connection.execute("SELECT seconds, increment, token FROM position").fetchone()
    return None if row is None else Position(Timestamp(row[0], row[1]), None if row[2] is None else bson.decode(row[2]))


def load_intents(connection: sqlite3.Connection, *, complete: bool, limit: int) -> list[Intent]:
    """Intents that can be composed, or those that wait for a later change; oldest first, -1 for all."""
    rows: Iterable[Sequence[Any]] = connection.execute(_COMPLETE if complete else _WAITING, [limit]).fetchall()
    intents = []
    for sequence, event_id, session, seconds, increment, done_seconds, done_increment, cut, context in rows:
        profiles = connection.execute(
            "SELECT DISTINCT profile FROM deliveries WHERE sequence = ? AND state = 'intent'", [sequence]
        )
        intents.append(
            Intent(
                event_id=event_id,
                session=session,
                started=Timestamp(seconds, increment),
                completed=None if done_seconds is None else Timestamp(done_seconds, done_increment),
                cut=as_time(cut),
                context=context,
                profiles=tuple(Profile(profile) for (profile,) in profiles),
            )
        )
    return intents


def _sequence(connection: sqlite3.Connection, event_id: str) -> int:
    (sequence,) = connection.execute("SELECT sequence FROM events WHERE id = ?", [event_id]).fetchone()
    return int(sequence)


def _insert_bodies(connection: sqlite3.Connection, sequence: int, bodies: Mapping[Profile, Body]) -> None:
    connection.executemany(
        "INSERT INTO bodies VALUES (?, ?, ?, ?) ON CONFLICT (sequence, profile) DO NOTHING",
        [(sequence, profile.value, body.content, json.dumps([body.files, body.answer])) for profile, body in bodies.items()],
    )


def _insert_intent(connection: sqlite3.Connection, sequence: int, intent: Intent) -> None:
    completed = (None, None) if intent.completed is None else (intent.completed.time, intent.completed.inc)
    connection.execute(
        "INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sequence) DO NOTHING",
        [sequence, intent.started.time, intent.started.inc, *completed, intent.cut.timestamp(), intent.context],
    )
