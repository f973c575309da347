"""Giving the rows of one endpoint to another, after it was renamed. Statements of one transaction each.

What the new endpoint knows already stays with the old one, and is cancelled where it was owed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from daemon.outbox import lanes
from daemon.outbox.lanes import AT_ONCE

_SESSIONS = 20
_ROWS = 500
_OWED_SESSIONS = (
    "SELECT DISTINCT session FROM deliveries INDEXED BY deliveries_owed WHERE endpoint = ? AND session > ?"
    " AND state IN ('intent', 'pending', 'suspended') ORDER BY session LIMIT ?"
)
_OWED = (
    "SELECT sequence FROM deliveries INDEXED BY deliveries_owed WHERE endpoint = ? AND session = ?"
    " AND state IN ('intent', 'pending', 'suspended') ORDER BY sequence"
)
_SETTLED = (
    "SELECT sequence FROM deliveries WHERE endpoint = ? AND sequence > ?"
    " AND state NOT IN ('intent', 'pending', 'suspended') ORDER BY sequence LIMIT ?"
)
_IN_FLIGHT = "SELECT 1 FROM lanes WHERE endpoint = ? AND session = ? AND started_at IS NOT NULL"


def move_owed(connection: sqlite3.Connection, old: str, new: str, after: str, now: float) -> tuple[int, str | None]:
    """Move what is owed in the next sessions after `after`, each session as a whole, so that its order stays.

    Gives how many rows moved and the last session of the page, None at the end. A session with a request in flight is left out.
    """
    sessions = [session for (session,) in connection.execute(_OWED_SESSIONS, [old, after, _SESSIONS])]
    moved = sum(_move_session(connection, old, new, session, now) for session in sessions)
    return moved, sessions[-1] if sessions else None


def move_settled(connection: sqlite3.Connection, old: str, new: str, after: int) -> tuple[int, int | None]:
    """Move the next rows that are settled, after the sequence `after`, so that nothing of them is sent again.

    Gives how many moved and the last sequence of the page, None at the end.
    """
    sequences = [sequence for (sequence,) in connection.execute(_SETTLED, [old, after, _ROWS])]
    moved = _move_rows(connection, old, new, sequences)
    if not sequences:
        connection.execute("UPDATE OR REPLACE answers SET endpoint = ? WHERE endpoint = ?", [new, old])
    return moved, sequences[-1] if sequences else None


def _move_session(connection: sqlite3.Connection, old: str, new: str, session: str, now: float) -> int:
    if connection.execute(_IN_FLIGHT, [old, session]).fetchone():
        return 0
    moved = _move_rows(connection, old, new, _owed(connection, old, session))
    known = [(session, sequence) for sequence in _owed(connection, old, session)]
    lanes.settle(connection, old, known, "cancelled", now, reason=f"moved: {new} has it already")
    connection.execute("DELETE FROM lanes WHERE endpoint = ? AND session = ?", [old, session])
    if not connection.execute(_IN_FLIGHT, [new, session]).fetchone():  # in flight it finds what follows by itself
        _open_lane(connection, new, session)
    return moved


def _move_rows(connection: sqlite3.Connection, old: str, new: str, sequences: Iterable[int]) -> int:
    moved = 0
    for sequence in sequences:
        key = [new, old, sequence]
        if connection.execute("UPDATE OR IGNORE deliveries SET endpoint = ? WHERE endpoint = ? AND sequence = ?", key).rowcount:
            connection.execute("UPDATE OR REPLACE attempts SET endpoint = ? WHERE endpoint = ? AND sequence = ?", key)
            moved += 1
    return moved


def _owed(connection: sqlite3.Connection, endpoint: str, session: str) -> list[int]:
    return [sequence for (sequence,) in connection.execute(_OWED, [endpoint, session])]


def _open_lane(connection: sqlite3.Connection, endpoint: str, session: str) -> None:
    """The first owed event is the head of its lane."""
    head = _owed(connection, endpoint, session)[:1]
    if not head:
        return
    key = [endpoint, *head]
    (state,) = connection.execute("SELECT state FROM deliveries WHERE endpoint = ? AND sequence = ?", key).fetchone()
    connection.execute(
        "INSERT INTO lanes (endpoint, session, sequence, due) VALUES (?, ?, ?, ?) ON CONFLICT (endpoint, session) DO UPDATE"
        " SET sequence = excluded.sequence, due = excluded.due, retry = 0",
        [endpoint, session, *head, None if state == "intent" else AT_ONCE],
    )
