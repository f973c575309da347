"""What compose adds: events, intents and their bodies, folded state, the position. Statements of one transaction each."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import bson
import orjson
from bson.timestamp import Timestamp

from daemon.model import Body, Commit, Intent, IntentUpdate, NewEvent, Pairing, Position, Profile
from daemon.outbox import lanes
from daemon.outbox.lanes import as_time, settle
from daemon.outbox.rows import insert, marks, padded

_INTENTS = (
    "SELECT i.sequence, e.id, e.session, started_seconds, started_increment, completed_seconds, completed_increment, cut, context"
    " FROM intents i JOIN events e ON e.sequence = i.sequence WHERE completed_seconds IS "
)
_COMPLETE = _INTENTS + "NOT NULL ORDER BY i.sequence LIMIT ?"
_WAITING = _INTENTS + "NULL ORDER BY i.sequence LIMIT ?"
_KEEP_STATE = "ON CONFLICT (kind, id) DO UPDATE SET document = excluded.document, changed_at = excluded.changed_at"
TWIN_WINDOW_S = 600.0
"""How far apart the times of two arrivals of the same thing can be: Rocket.Chat's retries of a webhook take some minutes."""


def append(connection: sqlite3.Connection, commit: Commit, now: float) -> None:
    """Keep all of `commit`. Events that are known already are left as they are."""
    append_events(connection, commit.events, now)
    for update in commit.intent_updates:
        _update_intent(connection, update)
    kept = [(state.kind, state.id, bson.encode(state.document), now) for state in commit.states if state.document is not None]
    insert(connection, "states", kept, _KEEP_STATE)
    for state in commit.states:
        if state.document is None:
            connection.execute("DELETE FROM states WHERE kind = ? AND id = ?", [state.kind, state.id])
    save_position(connection, commit.position, now)


def append_events(connection: sqlite3.Connection, events: Sequence[NewEvent], now: float) -> int:
    """Keep events, each at the endpoints that do not know it yet, unless its twin by another way came first; gives how many
    deliveries are new.
    """
    arrived = [event for event in events if event.pairing is None or not _has_twin(connection, event.id, event.pairing)]
    if not arrived:
        return 0
    known = _known(connection, [event.id for event in arrived])
    sequences = _keep_events(connection, arrived, known, now)
    deliveries: list[tuple[Any, ...]] = []
    heads: list[tuple[Any, ...]] = []
    bodies: list[tuple[Any, ...]] = []
    for event in arrived:
        sequence = sequences[event.id]
        have = known.setdefault(event.id, set())
        new = [(endpoint, profile) for endpoint, profile in event.endpoints.items() if endpoint not in have]
        have.update(endpoint for endpoint, _ in new)
        state = "skipped" if event.skipped is not None else "intent" if event.intent is not None else "pending"
        settled = now if event.skipped is not None else None
        deliveries += [(endpoint, sequence, event.session, profile, state, settled, event.skipped) for endpoint, profile in new]
        if not new or event.skipped is not None:
            continue
        due = None if event.intent is not None else lanes.AT_ONCE
        heads += [(endpoint, event.session, sequence, due) for endpoint, _ in new]
        if event.intent is not None:
            _insert_intent(connection, sequence, event.intent)
        else:
            bodies += _body_rows(sequence, event.bodies)
    _insert_bodies(connection, bodies)
    insert(connection, "deliveries (endpoint, sequence, session, profile, state, settled_at, reason)", deliveries)
    insert(connection, "lanes (endpoint, session, sequence, due)", heads, "ON CONFLICT (endpoint, session) DO NOTHING")
    return len(deliveries)


def _known(connection: sqlite3.Connection, ids: Sequence[str]) -> dict[str, set[str]]:
    """The endpoints of those events that are known."""
    known: dict[str, set[str]] = {}
    for chunk in padded(ids):
        query = (
            f"SELECT e.id, d.endpoint FROM events e LEFT JOIN deliveries d USING (sequence) WHERE e.id IN ({marks(len(chunk))})"  # noqa: S608 - question marks only
        )
        for event_id, endpoint in connection.execute(query, chunk):
            known.setdefault(event_id, set()).add(endpoint)
    return known


def _keep_events(
    connection: sqlite3.Connection, events: Sequence[NewEvent], known: Collection[str], now: float
) -> dict[str, int]:
    """Give every event its sequence, in this order, and keep those that are new."""
    last = connection.execute("SELECT seq FROM sqlite_sequence WHERE name = 'events'").fetchone()
    following = 1 + (0 if last is None else last[0])
    sequences = {event_id: _sequence(connection, event_id) for event_id in known}
    rows: list[tuple[Any, ...]] = []
    for event in events:
        if event.id not in sequences:
            sequence = sequences[event.id] = following + len(rows)
            rows.append((sequence, event.id, event.type, event.session, event.happened_at.timestamp(), now, event.recovered))
    insert(connection, "events (sequence, id, type, session, happened_at, recorded_at, recovered)", rows)
    return sequences


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
    _insert_bodies(connection, _body_rows(sequence, bodies))
    for profile in bodies:
        # Only lanes that waited for the body: the event may be in flight at an endpoint that had it before.
        connection.execute(
            "UPDATE lanes SET due = ? WHERE endpoint IN"
            " (SELECT endpoint FROM deliveries WHERE sequence = ? AND profile = ? AND state = 'intent')"
            " AND session = (SELECT session FROM events WHERE sequence = ?) AND sequence = ? AND due IS NULL",
            [lanes.AT_ONCE, sequence, profile.value, sequence, sequence],
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
        settle(connection, endpoint, [(session, sequence)], "skipped", now, reason=reason)


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


def _insert_bodies(connection: sqlite3.Connection, rows: Sequence[Sequence[Any]]) -> None:
    insert(connection, "bodies (sequence, profile, content, slots)", rows, "ON CONFLICT (sequence, profile) DO NOTHING")


def _body_rows(sequence: int, bodies: Mapping[Profile, Body]) -> list[tuple[int, str, bytes, str]]:
    return [(sequence, profile.value, body.content, _slots(body)) for profile, body in bodies.items()]


def _slots(body: Body) -> str:
    return orjson.dumps([body.files, body.answer]).decode()


def _insert_intent(connection: sqlite3.Connection, sequence: int, intent: Intent) -> None:
    completed = (None, None) if intent.completed is None else (intent.completed.time, intent.completed.inc)
    connection.execute(
        "INSERT INTO intents VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (sequence) DO NOTHING",
        [sequence, intent.started.time, intent.started.inc, *completed, intent.cut.timestamp(), intent.context],
    )
