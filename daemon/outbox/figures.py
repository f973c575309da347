"""What the outbox counts for the operator: what each endpoint is owed, whether it is up, where capture stands.

Statements that read indexes only, for a connection that nobody waits for.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from daemon.outbox.lanes import as_time

_STATES = ("intent", "pending", "suspended")
_COUNTS = ", ".join(f"sum(state = '{state}'), min(sequence) FILTER (WHERE state = '{state}')" for state in _STATES)
_OWED = (
    f"SELECT endpoint, {_COUNTS} FROM deliveries INDEXED BY deliveries_owed"  # noqa: S608 - states of ours
    " WHERE state IN ('intent', 'pending', 'suspended') GROUP BY endpoint"
)
_DEAD = (
    "SELECT endpoint, count(*) FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE state <> 'delivered' AND state = 'dead' GROUP BY endpoint"
)
_LANES = "SELECT endpoint, count(*), sum(retry AND due IS NOT NULL) FROM lanes GROUP BY endpoint"


@dataclass(frozen=True, slots=True)
class Backlog:
    """What an endpoint is owed: by state how many and when the first of them happened; its dead letters; its lanes, and those
    of them that wait for another try.
    """

    endpoint: str
    states: Mapping[str, tuple[int, datetime | None]] = field(default_factory=dict)
    dead: int = 0
    lanes: int = 0
    retrying: int = 0

    @property
    def owed(self) -> int:
        """In all states together."""
        return sum(count for count, _ in self.states.values())

    @property
    def oldest(self) -> datetime | None:
        """When the first of all happened."""
        return min((first for _, first in self.states.values() if first is not None), default=None)


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


def count_backlog(connection: sqlite3.Connection) -> list[Backlog]:
    """Of every endpoint that is owed anything or has dead letters, endpoints that are no longer configured included."""
    owed = {endpoint: counts for endpoint, *counts in connection.execute(_OWED)}
    dead = dict(connection.execute(_DEAD).fetchall())
    lanes = {endpoint: (count, retrying) for endpoint, count, retrying in connection.execute(_LANES)}
    return [
        Backlog(
            endpoint,
            _by_state(connection, owed.get(endpoint, [])),
            dead.get(endpoint, 0),
            *lanes.get(endpoint, (0, 0)),
        )
        for endpoint in sorted({*owed, *dead, *lanes})
    ]


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


def _by_state(connection: sqlite3.Connection, counts: list[int]) -> dict[str, tuple[int, datetime | None]]:
    pairs = zip(counts[::2], counts[1::2], strict=True)
    return {state: (count, _happened_at(connection, first)) for state, (count, first) in zip(_STATES, pairs, strict=False)}


def _happened_at(connection: sqlite3.Connection, sequence: int | None) -> datetime | None:
    row = connection.execute("SELECT happened_at FROM events WHERE sequence = ?", [sequence]).fetchone()
    return None if row is None else as_time(row[0])


def size(connection: sqlite3.Connection) -> int:
    """How many bytes of the file are in use."""
    names = ("page_count", "freelist_count", "page_size")
    pages, free, page_size = (int(connection.execute(f"PRAGMA {name}").fetchone()[0]) for name in names)
    return (pages - free) * page_size
