"""A change of a room or a message, and the room around it: which events it means. Pure.

Whether something happened is read from the change itself; folded state only gives values. A room seeded after the fact
already shows what a change has yet to tell, so that deciding by "it was absent before" would lose events.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from daemon.compose.fold import touches
from daemon.model import Change, Document, EventType


@dataclass(frozen=True, slots=True)
class Transition:
    """An event that a change means.

    `message` is the one message of its payload, else the payload lists the transcript (`transcript`) or nothing.
    `awaits_closing`: it is complete at the room's closing message, which follows.
    """

    type: EventType
    event_id: str
    message: Document | None = None
    transcript: bool = False
    awaits_closing: bool = False


def of_room(change: Change, room: Document) -> list[Transition]:
    """The events of a change of a livechat room; `room` is as after the change."""
    room_id = str(change.id)
    if change.operation == "insert":
        return [Transition(EventType.SESSION_START, f"{EventType.SESSION_START}:{room_id}")]
    if change.operation != "update":
        return []
    events: list[Transition] = []
    served = room.get("servedBy")
    if touches(change, "servedBy") and isinstance(served, dict) and not _closed(room, change.wall_time):
        event_id = f"{EventType.SESSION_TAKEN}:{room_id}:{served.get('_id')}:{milliseconds(served.get('ts'))}"
        events.append(Transition(EventType.SESSION_TAKEN, event_id, transcript=True))
    if "open" in change.removed and "closedAt" in change.updated:
        event_id = f"{EventType.SESSION}:{room_id}:{milliseconds(change.updated['closedAt'])}"
        events.append(Transition(EventType.SESSION, event_id, transcript=True, awaits_closing=True))
    return events


def of_message(change: Change, message: Document) -> list[Transition]:
    """The events of a new or edited message of a livechat room; `message` is as after the change."""
    if message.get("t") or message.get("_hidden") is True:
        return []
    event_id = f"{EventType.MESSAGE}:{change.id}"
    if change.operation == "update":
        event_id += f":{milliseconds(change.updated.get('editedAt'))}"
    return [Transition(EventType.MESSAGE, event_id, message=message)]


def is_closing_message(message: Document) -> bool:
    """Whether this message completes the close of its room."""
    return message.get("t") == "livechat-close"


def is_edit(change: Change) -> bool:
    """Whether an update of a message is an edit: a deletion sets `editedAt` too, with the type `rm` or hidden."""
    updated = change.updated
    return (
        change.operation == "update" and "editedAt" in updated and updated.get("t") != "rm" and updated.get("_hidden") is not True
    )


def milliseconds(value: Any) -> int | str:
    """Milliseconds since 1970, for event ids."""
    if not isinstance(value, datetime):
        return str(value)
    since = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _closed(room: Document, at: datetime) -> bool:
    closed_at = room.get("closedAt")
    return isinstance(closed_at, datetime) and closed_at <= at
