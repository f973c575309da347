"""Endpoints that answer the same 4xx to every event of a type, and will do so until somebody changes something."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass

from daemon.log import get_logger

_FEWEST = 5
_WITHIN_S = 86400.0
_NEWEST = 1000  # dead letters that are looked at, an endpoint
_ENDPOINTS = (
    "SELECT DISTINCT endpoint FROM deliveries INDEXED BY deliveries_unfinished WHERE state <> 'delivered' AND state = 'dead'"
)
_DEAD = (
    "SELECT d.sequence, e.type, (SELECT a.status FROM attempts a WHERE a.endpoint = d.endpoint AND a.sequence = d.sequence"
    " ORDER BY a.number DESC LIMIT 1) FROM ("
    "SELECT endpoint, sequence, settled_at FROM deliveries INDEXED BY deliveries_unfinished"
    " WHERE endpoint = ? AND state <> 'delivered' AND state = 'dead' ORDER BY sequence DESC LIMIT ?"
    ") d JOIN events e ON e.sequence = d.sequence WHERE d.settled_at >= ? ORDER BY d.sequence DESC"
)
_DELIVERED = (
    "SELECT EXISTS (SELECT 1 FROM deliveries d JOIN events e ON e.sequence = d.sequence"
    " WHERE d.endpoint = ? AND d.sequence > ? AND d.state = 'delivered' AND e.type = ?)"
)
_OTHERS = "SELECT EXISTS (SELECT 1 FROM deliveries WHERE endpoint = ? AND sequence > ? AND state = 'delivered')"
_PASSING = {408, 425, 429}  # the receiver is busy; that is no answer to what it was sent

log = get_logger("relay")


@dataclass(frozen=True, slots=True)
class Refusal:
    """`endpoint` answers `status` to every event of `type`. `others`: it took events of other types meanwhile."""

    endpoint: str
    type: str
    status: int
    others: bool

    @property
    def hint(self) -> str:
        """What to do about it."""
        name = f"endpoints.{self.endpoint}"
        leave_out = f"leave {self.type} out of {name}.events, or list {self.status} in {name}.retry.final to spare the tries"
        return leave_out if self.others else f"check url and secret_token of {name}: it takes nothing else either; or {leave_out}"


def find_refusals(connection: sqlite3.Connection, now: float) -> list[Refusal]:
    """Endpoint, type and status where within a day the last five events or more of the type are dead by that status, and no later
    one of the type was delivered. Reads little: the newest dead letters, and where there are five, what was delivered since.
    """
    endpoints = connection.execute(_ENDPOINTS)
    return [refusal for (endpoint,) in endpoints.fetchall() for refusal in _of_endpoint(connection, endpoint, now)]


def _of_endpoint(connection: sqlite3.Connection, endpoint: str, now: float) -> list[Refusal]:
    dead: dict[str, list[tuple[int, int | None]]] = defaultdict(list)
    for sequence, event_type, status in connection.execute(_DEAD, [endpoint, _NEWEST, now - _WITHIN_S]):
        dead[event_type].append((sequence, status))
    found = []
    for event_type, letters in sorted(dead.items()):
        first, status = letters[_FEWEST - 1] if len(letters) >= _FEWEST else (0, None)
        if status is None or not 400 <= status < 500 or status in _PASSING or any(one != status for _, one in letters[:_FEWEST]):
            continue
        if connection.execute(_DELIVERED, [endpoint, first, event_type]).fetchone()[0]:
            continue
        others = connection.execute(_OTHERS, [endpoint, first]).fetchone()[0]
        found.append(Refusal(endpoint, event_type, status, bool(others)))
    return found


def report_refusals(found: Collection[Refusal], reported: Collection[tuple[str, str, int]]) -> set[tuple[str, str, int]]:
    """Log those that were not there before; gives what is there now."""
    now = {(refusal.endpoint, refusal.type, refusal.status): refusal for refusal in found}
    for key, refusal in now.items():
        if key not in reported:
            log.warning(
                "endpoint.refuses_type", endpoint=refusal.endpoint, type=refusal.type, status=refusal.status, hint=refusal.hint
            )
    return set(now)
