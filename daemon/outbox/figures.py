"""What the outbox counts for the operator: what each endpoint is owed, whether it is up, where capture stands."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from datetime import datetime

from daemon.outbox.lanes import as_time

_OWED = (
    "SELECT endpoint, count(*), min(sequence) FROM deliveries INDEXED BY deliveries_owed"
    " WHERE state IN ('intent', 'pending', 'suspended') GROUP BY endpoint"
)
_DEAD = (
    "SELECT endpoint, count(*) FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state <> 'delivered' AND state = 'dead' GROUP BY endpoint"
)


@dataclass(frozen=True, slots=True)
class Backlog:
    """What an endpoint is owed."""

    endpoint: str
    owed: int
    dead: int
    oldest: datetime | None


@dataclass(frozen=True, slots=True)
class EndpointRow:
    """What is remembered of an endpoint that had an attempt. `down_since` None: it is up."""

    name: str
    down_since: datetime | None
    probe_at: datetime | None
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class PositionRow:
    """Where capture stands: the cluster time up to which everything is kept, and when that was saved."""

    cluster_time: datetime
    saved_at: datetime


def backlog(connection: sqlite3.Connection) -> list[Backlog]:
    """What is owed and dead, by endpoint; endpoints that are no longer configured included."""
    dead = dict(connection.execute(_DEAD).fetchall())
    result = []
    for endpoint, count, first in connection.execute(_OWED).fetchall():
        (at,) = connection.execute("SELECT happened_at FROM events WHERE sequence = ?", [first]).fetchone()
        result.append(Backlog(endpoint, count, dead.pop(endpoint, 0), as_time(at)))
    return [*result, *(Backlog(endpoint, 0, count, None) for endpoint, count in dead.items())]


def endpoint_rows(connection: sqlite3.Connection) -> list[EndpointRow]:
    """Every endpoint that ever had an outcome."""
    rows = connection.execute("SELECT name, down_since, probe_at, last_success_at FROM endpoints ORDER BY name").fetchall()
    return [
        EndpointRow(
            name,
            None if down_since is None else as_time(down_since),
            None if down_since is None else as_time(probe_at),
            None if last_success_at is None else as_time(last_success_at),
        )
        for name, down_since, probe_at, last_success_at in rows
    ]


def position(connection: sqlite3.Connection) -> PositionRow | None:
    """Where capture stands; None before the first start."""
    row = connection.execute("SELECT seconds, saved_at FROM position").fetchone()
    return None if row is None else PositionRow(as_time(row[0]), as_time(row[1]))
