"""A change of a room, a message or an inquiry, and the room around it: which events it means. Pure.

Whether something happened is read from the change itself; folded state only gives values. A room seeded after the fact already
shows what a change has yet to tell, so that deciding by "it was absent before" would lose events.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import Enum, auto
from types import MappingProxyType
from typing import Any, NamedTuple

from daemon.compose.documents import NOT_A_SAVE, SERVED_BEFORE, TRANSFER
from daemon.compose.fold import touches
from daemon.compose.versions import Behaviour
from daemon.model import Change, Document, EventType

TO_AGENT = frozenset({"agent", "autoTransferUnansweredChatsToAgent"})
TO_DEPARTMENT = frozenset({"department", "queue"})
_CREATION = timedelta(seconds=10)  # room and queue entry are made one after the other
_EDITED = ("topic", "tags", "livechatData", "priorityId", "slaId")


class Awaits(Enum):
    """The later change that completes an event."""

    NOTHING = auto()
    CLOSING_MESSAGE = auto()
    VISITOR_UPDATE = auto()


class Transition(NamedTuple):
    """An event that a change means.

    `room` is the room as the event sees it. `message` is the one message of its payload, else the payload lists the transcript
    (`transcript`) or nothing. `extra` are members of this event alone; `departments` more departments that it concerns.
    """

    type: EventType
    event_id: str
    room: Document
    message: Document | None = None
    transcript: bool = False
    awaits: Awaits = Awaits.NOTHING
    extra: Document = MappingProxyType({})
    departments: tuple[str, ...] = ()


def of_room(change: Change, before: Document | None, room: Document) -> list[Transition]:
    """The events of a change of a livechat room, `room` as after it; edits of closed rooms are told apart by
    `is_edit_of_closed`.
    """
    room_id = str(change.id)
    if change.operation == "insert":
        return [Transition(EventType.SESSION_START, f"{EventType.SESSION_START}:{room_id}", room)]
    if change.operation != "update":
        return []
    events: list[Transition] = []
    closed = is_closed(room, change.wall_time)
    transfer = room.get(TRANSFER)
    if transfer is not None and touches(change, "departmentId"):
        events.append(_forwarded_to_department(before, room, transfer))
    served = room.get("servedBy")
    if touches(change, "servedBy") and isinstance(served, Mapping) and not closed:
        event_id = f"{EventType.SESSION_TAKEN}:{room_id}:{served.get('_id')}:{milliseconds(served.get('ts'))}"
        events.append(Transition(EventType.SESSION_TAKEN, event_id, room, transcript=True))
    if _is_queued_again(change) and not closed:
        event_id = f"{EventType.SESSION_QUEUED}:{room_id}:{when(change, 'queuedAt')}"
        events.append(Transition(EventType.SESSION_QUEUED, event_id, room, transcript=True))
    if "open" in change.removed and "closedAt" in change.updated:
        event_id = f"{EventType.SESSION}:{room_id}:{milliseconds(change.updated['closedAt'])}"
        events.append(Transition(EventType.SESSION, event_id, room, transcript=True, awaits=Awaits.CLOSING_MESSAGE))
    return events


def of_inquiry(change: Change, before: Document | None, room: Document, server: Behaviour) -> list[Transition]:
    """The events of a change of a queue entry: only its beginning counts, what follows is told by the room."""
    if change.operation == "insert":
        inquiry = change.document or {}
        if inquiry.get("status") != "queued" and not server.queued_for_every_new_room:
            return []
        at = milliseconds(inquiry.get("queuedAt") or inquiry.get("ts"))
    elif change.updated.get("status") == "queued" and before is not None and before.get("status") == "verifying":
        at = when(change, "queuedAt")
    else:
        return []
    event_id = f"{EventType.SESSION_QUEUED}:{room['_id']}:{at}"
    if change.operation == "insert" and server.queued_as_created and _is_new(room, change.document or {}):
        room = {**room, "lm": room.get("ts")}  # the room as its creation returned it
    return [Transition(EventType.SESSION_QUEUED, event_id, room, transcript=True)]


def of_message(change: Change, message: Document, room: Document, server: Behaviour) -> list[Transition]:
    """The events of a new or edited message of a livechat room; `message` is as after the change. Leads are told by their
    text.
    """
    kind = message.get("t")
    if kind == "livechat_transfer_history" and change.operation == "insert":
        return _forwarded_to_agent(message, room)
    comment = kind == "livechat-close" and server.closing_comment_is_message
    if (kind and not comment) or message.get("_hidden") is True or message.get("imported"):
        return []
    event_id = f"{EventType.MESSAGE}:{change.id}"
    if change.operation == "update":
        event_id += f":{milliseconds(change.updated.get('editedAt'))}"
    return [Transition(EventType.MESSAGE, event_id, room, message=message)]


def of_lead(change: Change, room: Document, *, matches: bool) -> Transition:
    """A lead in a new message of the visitor. What matched is added to the visitor by an update that follows."""
    awaits = Awaits.VISITOR_UPDATE if matches else Awaits.NOTHING
    return Transition(EventType.LEAD, f"{EventType.LEAD}:{change.id}", room, awaits=awaits)


def remember(change: Change, before: Document | None, room: dict[str, Any]) -> dict[str, Any]:
    """`room` after a change, with the marks that later changes need."""
    if change.operation == "insert":
        return room
    marks: dict[str, Any] = {}
    if touches(change, "servedBy") or "servedBy" in change.removed:
        marks[SERVED_BEFORE] = (before or {}).get("servedBy")
    if TRANSFER in room and _is_queued_again(change):
        marks[TRANSFER] = None  # a transfer changes the department before it queues, or not at all
    return {**room, **marks} if marks else room


def remember_transfer(message: Document, room: dict[str, Any]) -> dict[str, Any] | None:
    """`room` with the mark of a transfer that a change of its department will use; None when `message` is no such transfer."""
    if scope(message) not in TO_DEPARTMENT:
        return None
    return {**room, TRANSFER: {"_id": message["_id"], "ts": message.get("ts")}}


def is_edit_of_closed(change: Change, room: Document) -> bool:
    """Whether a change of a closed room is (part of) an edit of its information by an agent."""
    if change.operation != "update" or "closedAt" in change.updated or touches(change, "contactId"):
        return False  # a close, or a merge of contacts
    if not is_closed(room, change.wall_time):
        return False
    return edits_information(change) or edits_name(change)


def edits_information(change: Change) -> bool:
    """Topic, tags, custom fields, priority or SLA."""
    return any(touches(change, name) or _removes(change, name) for name in _EDITED) or any(
        str(cut["field"]) == "tags" for cut in change.truncated
    )


def edits_name(change: Change) -> bool:
    """The guest's name."""
    return touches(change, "fname")


def can_be_save(change: Change) -> bool:
    """Whether an update of a visitor can be half of the saving of a guest."""
    return change.operation == "update" and not any(touches(change, name) for name in NOT_A_SAVE)


def can_save_lead(change: Change) -> bool:
    """Whether an update of a visitor can be the saving of a lead, which changes nothing when the address was known already."""
    keys = {key.partition(".")[0] for key in (*change.updated, *change.removed)}
    return change.operation == "update" and keys <= {"_updatedAt", "visitorEmails", "phone"}


def is_closing_message(message: Document) -> bool:
    """Whether this message completes the close of its room."""
    return message.get("t") == "livechat-close"


def is_visitor_text(message: Document) -> bool:
    """Whether this is something that a visitor wrote."""
    hidden = message.get("_hidden") is True
    return bool(message.get("token")) and not message.get("t") and not hidden and not message.get("imported")


def is_edit(change: Change) -> bool:
    """Whether an update of a message is an edit: a deletion sets `editedAt` too, with the type `rm` or hidden."""
    updated = change.updated
    return (
        change.operation == "update" and "editedAt" in updated and updated.get("t") != "rm" and updated.get("_hidden") is not True
    )


def is_closed(room: Document, at: datetime) -> bool:
    """Whether the room was closed at `at`: a room seeded later may already show a close that is yet to come."""
    closed_at = room.get("closedAt")
    return isinstance(closed_at, datetime) and closed_at <= at


def scope(message: Document) -> object:
    """What kind of transfer a message tells of; None when it tells of none."""
    data = message.get("transferData")
    if message.get("t") != "livechat_transfer_history" or not isinstance(data, Mapping):
        return None
    return data.get("scope")


def when(change: Change, name: str) -> int | str:
    """A time that tells this change from others of its kind: of the field if it is set, else of the change itself."""
    value = change.updated.get(name)
    if isinstance(value, datetime):
        return milliseconds(value)
    return f"{change.cluster_time.time}.{change.cluster_time.inc}"


def milliseconds(value: Any) -> int | str:
    """Milliseconds since 1970, for event ids."""
    if not isinstance(value, datetime):
        return str(value)
    since = value - datetime(1970, 1, 1, tzinfo=UTC)
    return (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000


def _is_queued_again(change: Change) -> bool:
    """The agent was removed, or an unserved room got its place in a queue again; a room that is re-opened is told by its
    inquiry.
    """
    return ("servedBy" in change.removed or touches(change, "queuedAt")) and "open" not in change.updated


def _is_new(room: Document, inquiry: Document) -> bool:
    """Whether a queue entry came with its room, not with the re-opening of an old one."""
    created, entered = room.get("ts"), inquiry.get("ts")
    return isinstance(created, datetime) and isinstance(entered, datetime) and entered - created < _CREATION


def _forwarded_to_agent(message: Document, room: Document) -> list[Transition]:
    if scope(message) not in TO_AGENT:
        return []
    old = room.get(SERVED_BEFORE)
    return [
        Transition(
            EventType.SESSION_FORWARDED,
            f"{EventType.SESSION_FORWARDED}:{room['_id']}:{message['_id']}",
            {**room, "lm": _later(room.get("lm"), message.get("ts"))},
            transcript=True,
            extra={} if old is None else {"oldServedBy": old},
        )
    ]


def _forwarded_to_department(before: Document | None, room: Document, transfer: Document) -> Transition:
    old = (before or {}).get("departmentId")
    return Transition(
        EventType.SESSION_FORWARDED,
        f"{EventType.SESSION_FORWARDED}:{room['_id']}:{transfer['_id']}",
        {**room, "lm": _later(room.get("lm"), transfer.get("ts"))},
        transcript=True,
        extra={} if old is None else {"oldDepartmentId": old},
        departments=() if old is None else (str(old),),
    )


def _later(one: Any, other: Any) -> Any:
    if isinstance(one, datetime) and isinstance(other, datetime):
        return max(one, other)
    return one if other is None else other


def _removes(change: Change, name: str) -> bool:
    return any(key == name or key.startswith(f"{name}.") for key in change.removed)
