"""How much is owed and dead, by endpoint. Statements on a connection of one's own: counting takes its time."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from daemon.outbox.lanes import as_time


@dataclass(frozen=True, slots=True)
class Backlog:
    """What an endpoint is owed."""

    endpoint: str
    owed: int
    dead: int
    oldest: datetime | None


def backlog(connection: sqlite3.Connection) -> list[Backlog]:
    """What is owed and dead, by endpoint; endpoints that are no longer configured included."""
    owed = connection.execute(
        "SELECT endpoint, count(*), min(sequence) FROM deliveries INDEXED BY deliveries_owed"
        " WHERE state IN ('intent', 'pending', 'suspended') GROUP BY endpoint"
    ).fetchall()
    query = "SELECT endpoint, count(*) FROM deliveries INDEXED BY deliveries_dead WHERE state = 'dead' GROUP BY endpoint"
    dead = dict(connection.execute(query).fetchall())
    result = []
    for endpoint, count, first in owed:
        (at,) = connection.execute("SELECT happened_at FROM events WHERE sequence = ?", [first]).fetchone()
        result.append(Backlog(endpoint, count, dead.pop(endpoint, 0), as_time(at)))
    return [*result, *(Backlog(endpoint, 0, count, None) for endpoint, count in dead.items())]


def size(connection: sqlite3.Connection) -> int:
    """How many bytes of the file are in use."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, page_size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * page_size
