"""What stored rooms and messages still tell of events whose changes can no longer be read. Pure.

Traces are left by: the beginning of a session, its last agent, forwards, its end, messages and the last edit of each, leads.
`WITHOUT_TRACE` is what leaves none.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from typing import Any

from bson.timestamp import Timestamp

from daemon.compose import documents, transitions
from daemon.compose.transitions import Awaits, Transition
from daemon.compose.versions import Behaviour
from daemon.model import Change, Document, EventType

WITHOUT_TRACE = (
    EventType.SESSION_QUEUED.value,
    EventType.EDIT.value,
    f"{EventType.SESSION_TAKEN} before the last one",
    f"{EventType.SESSION} before a re-opening",
    f"{EventType.MESSAGE} edits before the last one, and deleted messages",
)
"""What cannot be recovered, in words."""

# Messages that move a room's `lm`, beside those without a type.
_ACTIVITY = (None, "", "livechat-started", "livechat_transfer_history", "rm")


@dataclass(frozen=True, slots=True)
class Trace:
    """An event as its trace tells it, with the change that it stands for."""

    transition: Transition
    change: Change


@dataclass(frozen=True)
class Stored:
    """A livechat room and all of its messages in order of `ts`, as they are stored."""

    room: Document
    messages: Sequence[Document]

    def as_of(self, at: datetime) -> dict[str, Any]:
        """The room as far as it can be told how it was at `at`: its last activity, its department and agent, whether closed."""
        room = dict(self.room)
        before = bisect_left(self._activity, at)
        room["lm"] = self._activity[before - 1] if before else room.get("ts")
        if not transitions.is_closed(room, at):
            room = {name: value for name, value in room.items() if name not in ("closedAt", "closedBy", "closer")}
            room["open"] = True
        served = room.get("servedBy")
        if isinstance(served, Mapping) and _moment(served.get("ts"), default=at) > at:
            del room["servedBy"]
            earlier = [data for ts, data in self._transfers if ts <= at and data.get("transferredTo")]
            if earlier:
                room["servedBy"] = dict(earlier[-1]["transferredTo"])
        later = [data for ts, data in self._transfers if ts > at and _changes_department(data)]
        if later:
            room["departmentId"] = later[0].get("previousDepartment")
            if not room["departmentId"]:
                del room["departmentId"]
        return room

    @cached_property
    def _activity(self) -> list[datetime]:
        return sorted(message["ts"] for message in self.messages if message.get("t") in _ACTIVITY)

    @cached_property
    def _transfers(self) -> list[tuple[datetime, Mapping[str, Any]]]:
        transfers = (message for message in self.messages if message.get("t") == "livechat_transfer_history")
        return [(message["ts"], data) for message in transfers if isinstance(data := message.get("transferData"), Mapping)]


def traces(stored: Stored, since: datetime, until: datetime, server: Behaviour) -> list[Trace]:
    """The events of a room from `since` on and before `until`, in the order they happened. Leads are told by their text."""
    found = [*_of_room(stored)]
    for message in stored.messages:
        if any(since <= at < until for at in (message["ts"], message.get("editedAt")) if isinstance(at, datetime)):
            found += _of_message(stored, message, server)
    found = [trace for trace in found if since <= trace.change.wall_time < until]
    return sorted(found, key=lambda trace: (trace.change.wall_time, trace.transition.type is not EventType.SESSION_START))


def _of_room(stored: Stored) -> Iterator[Trace]:
    room = stored.room
    served, closed_at = room.get("servedBy"), room.get("closedAt")
    if isinstance(room.get("ts"), datetime):
        change = stand_in(documents.ROOMS, room["_id"], room["ts"])
        yield from _traces(transitions.of_room(change, None, stored.as_of(room["ts"])), change)
    if isinstance(served, Mapping) and isinstance(served.get("ts"), datetime):
        change = stand_in(documents.ROOMS, room["_id"], served["ts"])._replace(operation="update", updated={"servedBy": served})
        yield from _traces(transitions.of_room(change, None, stored.as_of(served["ts"])), change)
    if isinstance(closed_at, datetime) and not room.get("open"):
        change = stand_in(documents.ROOMS, room["_id"], closed_at)
        change = change._replace(operation="update", updated={"closedAt": closed_at}, removed=("open",))
        yield from _traces(transitions.of_room(change, None, stored.as_of(closed_at)), change)


def _of_message(stored: Stored, message: Document, server: Behaviour) -> Iterator[Trace]:
    at = message["ts"]
    change = stand_in(documents.MESSAGES, message["_id"], at)
    if message.get("t") == "livechat_transfer_history":
        yield from _forwarded(stored, message, change)
        return
    room = stored.as_of(at)
    yield from _traces(transitions.of_message(change, message, room, server), change)
    edited_at = message.get("editedAt")
    if isinstance(edited_at, datetime):
        edit = stand_in(documents.MESSAGES, message["_id"], edited_at)
        edit = edit._replace(operation="update", updated={"editedAt": edited_at})
        if transitions.is_edit(edit):
            yield from _traces(transitions.of_message(edit, message, stored.as_of(edited_at), server), edit)


def _forwarded(stored: Stored, message: Document, change: Change) -> Iterator[Trace]:
    room = {**stored.as_of(message["ts"]), "lm": message["ts"]}
    scope = transitions.scope(message)
    data = message.get("transferData") or {}
    event_id = f"{EventType.SESSION_FORWARDED}:{room['_id']}:{message['_id']}"
    event = Transition(EventType.SESSION_FORWARDED, event_id, room, transcript=True)
    if scope in transitions.TO_AGENT:
        yield Trace(event, change)
    elif scope in transitions.TO_DEPARTMENT and _changes_department(data):
        old = data.get("previousDepartment")
        room["departmentId"] = data["nextDepartment"]["_id"]
        extra = {"oldDepartmentId": old} if old else {}
        yield Trace(event._replace(extra=extra, departments=(str(old),) if old else ()), change)


def _changes_department(data: Mapping[str, Any]) -> bool:
    following = data.get("nextDepartment")
    return isinstance(following, Mapping) and bool(following.get("_id")) and following["_id"] != data.get("previousDepartment")


def closing_time(stored: Stored) -> datetime | None:
    """When the last closing message was written."""
    return max((message["ts"] for message in stored.messages if transitions.is_closing_message(message)), default=None)


def _traces(events: Sequence[Transition], change: Change) -> Iterator[Trace]:
    for event in events:
        yield Trace(event._replace(awaits=Awaits.NOTHING), change)


def stand_in(collection: str, id_: str, at: datetime) -> Change:
    """An insert that stands for a change which can no longer be read; its cluster time is the end of that second."""
    return Change(collection, "insert", id_, Timestamp(int(at.timestamp()) + 1, 0), at)


def _moment(value: Any, *, default: datetime) -> datetime:
    return value if isinstance(value, datetime) else default


SEARCH_BACK = timedelta(minutes=1)
"""How far beyond the edges of a gap is looked: Rocket.Chat's clock is not MongoDB's."""
