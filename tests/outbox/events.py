"""Events, commits and outcomes to fill an outbox with, and a second look at its file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from bson.timestamp import Timestamp

from daemon.model import (
    Answered,
    Body,
    Commit,
    Delivery,
    Intent,
    IntentUpdate,
    NewEvent,
    Outcome,
    Position,
    Profile,
    Recorded,
    StateRow,
    TimedOut,
    Unreachable,
    Verdict,
)
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import START

POSITION = Position(Timestamp(1_700_000_000, 1))
OK = Answered(200, b"fine", 0.25)
REFUSED = Answered(400, b"no", 0.5)
LATE = TimedOut(20.0)
DOWN = Unreachable("ClientConnectorError: refused", 0.01)
ONLY_CRM = {"crm": Profile.GUIDE}
TWO = {"crm": Profile.GUIDE, "archive": Profile.NATIVE}


def event(
    event_id: str,
    session: str = "room",
    *,
    endpoints: Mapping[str, Profile] = ONLY_CRM,
    content: bytes | None = None,
    happened_at: datetime = START,
    files: tuple[tuple[int, str, str, str], ...] = (),
) -> NewEvent:
    bodies = {profile: Body(content or f"{event_id} {profile}".encode(), files) for profile in set(endpoints.values())}
    return NewEvent(event_id, "Message", session, happened_at, endpoints, bodies=bodies)


def intent(
    event_id: str,
    session: str = "room",
    *,
    endpoints: Mapping[str, Profile] = ONLY_CRM,
    completed: Timestamp | None = None,
    cut: datetime = START,
) -> NewEvent:
    kept = Intent(event_id, session, Timestamp(1_700_000_000, 2), completed, cut, f"context of {event_id}".encode())
    return NewEvent(event_id, "LivechatSession", session, START, endpoints, intent=kept)


def skipped(event_id: str, reason: str, session: str = "room") -> NewEvent:
    return NewEvent(event_id, "Change", session, START, ONLY_CRM, skipped=reason)


def commit(
    *events: NewEvent,
    states: Iterable[StateRow] = (),
    updates: Iterable[IntentUpdate] = (),
    position: Position = POSITION,
) -> Commit:
    return Commit(position, events, tuple(updates), tuple(states))


def bodies(event_id: str) -> dict[Profile, Body]:
    return {Profile.GUIDE: Body(f"{event_id} guide".encode()), Profile.NATIVE: Body(f"{event_id} native".encode())}


async def settle(
    outbox: SqliteOutbox, delivery: Delivery, outcome: Outcome, verdict: Verdict, answer: bytes | None = None
) -> None:
    """Record what came of an attempt."""
    await outbox.settle(delivery, Recorded(START, outcome, verdict, answer, probe_every_s=30.0))


def look(path: Path, query: str, *values: Any) -> list[Any]:
    """What another process sees in the file, at this moment."""
    connection = sqlite3.connect(path, isolation_level=None)
    try:
        rows = connection.execute(query, values).fetchall()
    finally:
        connection.close()
    return [row[0] if len(row) == 1 else row for row in rows]
