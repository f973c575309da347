"""Turns batches of changes into what the outbox commits, and completes intents."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import bson
from bson.timestamp import Timestamp

from daemon.clock import Clock
from daemon.compose import documents, transitions
from daemon.compose.documents import Kind
from daemon.compose.fold import fold, reduce, touches
from daemon.compose.intents import OpenIntents
from daemon.compose.json_text import encode
from daemon.compose.lookup import Lookup
from daemon.compose.match import Endpoints
from daemon.compose.offline import looks_like_offline_post, parse_offline_post
from daemon.compose.payload import Context, build, build_offline, file_ids
from daemon.compose.states import FoldedStates, StateStore
from daemon.errors import DaemonError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Batch, Body, Change, Commit, Completion, Document, EventType, Intent, NewEvent, Profile
from daemon.mongo import CODEC

log = get_logger("compose")

_ROOMS = documents.BY_KIND[Kind.ROOM].collection
_REASON_LENGTH = 500


class Composer:
    """Holds the folded state between batches. One instance, called from one task at a time; `finish` may run beside it."""

    def __init__(
        self,
        *,
        store: StateStore,
        lookup: Lookup,
        endpoints: Endpoints,
        settle: timedelta,
        site_url: str | None,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._lookup = lookup
        self._states = FoldedStates(store, lookup)
        self._endpoints = endpoints
        self._intents = OpenIntents(settle)
        self._site_url = site_url
        self._clock = clock
        self._metrics = metrics
        self._prepared = False
        self._messages: dict[str, dict[str, Any]] = {}
        self._events: list[NewEvent] = []
        self._completions: list[Completion] = []

    def resume(self, waiting: Iterable[Intent]) -> None:
        """Take up the intents that wait for a change since before the restart, oldest first."""
        for intent in waiting:
            self._intents.add(intent)

    async def compose(self, batch: Batch) -> Commit:
        """What `batch` means. A change that cannot be understood becomes a skipped event with its reason; the flow goes on.

        Waits for an unreachable MongoDB; raises `DaemonError` where waiting cannot help.
        """
        self._states.trim()
        self._events, self._completions, self._messages = [], [], {}
        await self._gather(batch)
        for change in batch.changes:
            try:
                self._take(change)
            except Exception as error:  # noqa: BLE001 - one odd document must not stop the stream
                self._unreadable(change, error)
        self._completions += self._intents.overdue(batch, self._clock.monotonic())
        return Commit(batch.position, tuple(self._events), tuple(self._completions), self._states.changed_rows())

    async def finish(self, intent: Intent) -> Mapping[Profile, Body]:
        """The bodies of a complete intent.

        Waits for an unreachable MongoDB; raises `DaemonError` where waiting cannot help, anything else when it cannot be
        composed.
        """
        stored = bson.decode(intent.context, codec_options=CODEC)
        message: Document | None = stored.pop("message", None)
        context = Context(**{**stored, "type": EventType(stored["type"])})
        if message is not None:
            messages: list[Document] = [message]
        else:
            messages = [*await self._lookup.transcript(str(context.room["_id"]), intent.completed, intent.cut)]
        wanted = file_ids(messages)
        uploads = {}
        if wanted:
            uploads = await self._lookup.by_ids(documents.UPLOADS, wanted, documents.UPLOAD_FIELDS, intent.completed)
        return {profile: encode(build(profile, context, messages, uploads)) for profile in intent.profiles}

    async def _gather(self, batch: Batch) -> None:
        """Have everything in memory that the batch needs, with one read per collection, as it was just before the batch."""
        changes = batch.changes
        at = _before(changes[0].cluster_time) if changes else batch.position.cluster_time
        if not self._prepared:
            await self._states.prepare(at)
            self._prepared = True
        if not changes:
            return
        await self._gather_edited(changes, at)
        messages = [change for change in changes if change.collection == documents.MESSAGES]
        rooms = {change.id for change in changes if change.collection == _ROOMS and change.operation != "insert"}
        rooms |= {self._room_of(change) for change in messages}
        rooms -= {change.id for change in changes if change.collection == _ROOMS and change.operation == "insert"}
        await self._states.ensure(Kind.ROOM, {room for room in rooms if isinstance(room, str)}, at)
        visitors, agents = self._people(changes, rooms)
        inserted = {change.id for change in changes if change.operation == "insert"}
        await self._states.ensure(Kind.VISITOR, visitors - inserted, at)
        await self._states.ensure(Kind.USER, agents, at)
        for kind in (Kind.VISITOR, Kind.USER):
            collection = documents.BY_KIND[kind].collection
            await self._states.recall(kind, {change.id for change in changes if change.collection == collection} - inserted)

    async def _gather_edited(self, changes: Iterable[Change], at: Timestamp) -> None:
        inserted: set[str] = set()
        edited: set[str] = set()
        for change in changes:
            if change.collection == documents.MESSAGES:
                if change.operation == "insert":
                    inserted.add(change.id)
                elif transitions.is_edit(change):
                    edited.add(change.id)
        if edited - inserted:
            found = await self._lookup.by_ids(documents.MESSAGES, edited - inserted, documents.MESSAGE_FIELDS, at)
            self._messages.update(found)
        for change in changes:
            if change.operation == "insert" and change.id in edited and change.document is not None:
                self._messages[change.id] = dict(change.document)

    def _room_of(self, change: Change) -> object:
        """The room of a message that may matter."""
        if change.operation == "update":
            return self._messages.get(change.id, {}).get("rid")
        message = change.document or {}
        kind = message.get("t")
        return message.get("rid") if not kind or transitions.is_closing_message(message) else None

    def _people(self, changes: Iterable[Change], rooms: Iterable[object]) -> tuple[set[str], set[str]]:
        """The visitors and agents whom the payloads of this batch may need."""
        seen: list[Document | None] = [self._states.get(Kind.ROOM, room) for room in rooms]
        for change in changes:
            if change.collection == _ROOMS:
                seen += [change.document, {"servedBy": change.updated.get("servedBy"), "v": change.updated.get("v")}]
                seen.append({"servedBy": {"_id": change.updated.get("servedBy._id")}, "v": {"_id": change.updated.get("v._id")}})
        livechat = [room for room in seen if room is not None and room.get("t", "l") == "l"]
        visitors = {_nested_id(room, "v") for room in livechat}
        agents = {_nested_id(room, "servedBy") for room in livechat}
        return {id_ for id_ in visitors if isinstance(id_, str)}, {id_ for id_ in agents if isinstance(id_, str)}

    def _take(self, change: Change) -> None:
        if change.collection == documents.MESSAGES:
            self._take_message(change)
            return
        after = self._states.apply(change)
        if change.collection != _ROOMS:
            return
        if after is not None and after.get("t") == "l":
            for transition in transitions.of_room(change, after):
                self._emit(transition, change, after)
        elif after is None and change.operation == "update" and _speaks_of_livechat(change):
            # The room was removed before it was read for the first time: nothing is left to tell.
            for transition in transitions.of_room(change, dict(change.updated)):
                self._skip(transition.type, transition.event_id, str(change.id), change, "the room no longer exists in MongoDB")

    def _take_message(self, change: Change) -> None:
        if change.operation == "update":
            if not transitions.is_edit(change):
                return
            message = fold(self._messages.get(change.id), change, documents.MESSAGE_FIELDS)
            if message is None:
                log.info("compose.edit_of_unknown_message", message=change.id, reason="the message no longer exists in MongoDB")
                return
            self._messages[change.id] = message
        else:
            message = reduce(change.document or {}, documents.MESSAGE_FIELDS)
        room = self._states.get(Kind.ROOM, message.get("rid"))
        if room is None:
            if message.get("token") and not message.get("t"):
                for transition in transitions.of_message(change, message):
                    reason = "the room no longer exists in MongoDB"
                    self._skip(transition.type, transition.event_id, str(message.get("rid")), change, reason)
        elif room.get("t") != "l":
            if change.operation == "insert":
                self._take_channel_post(change, message, room)
        elif transitions.is_closing_message(message):
            self._complete(str(room["_id"]), change, message)
        else:
            for transition in transitions.of_message(change, message):
                self._emit(transition, change, room)

    def _take_channel_post(self, change: Change, message: Document, room: Document) -> None:
        """An offline message is never stored as such; rocket.cat posts it to a channel."""
        if not looks_like_offline_post(message) or room.get("name") not in self._offline_channels():
            return
        offline = parse_offline_post(str(message["msg"]), self._setting(documents.LANGUAGE) or None)
        if offline is None:
            return
        endpoints = self._endpoints.of(EventType.OFFLINE_MESSAGE)
        if offline.doubtful:
            log.warning("compose.offline_doubtful", message=change.id, reason="its lines can be read in more than one way")
        content = build_offline(sent_at=message["ts"], name=offline.name, email=offline.email, message=offline.message)
        body = encode(content)
        self._append(
            NewEvent(
                id=f"{EventType.OFFLINE_MESSAGE}:{change.id}",
                type=EventType.OFFLINE_MESSAGE,
                session=f"offline:{change.id}",
                happened_at=change.wall_time,
                endpoints=endpoints,
                bodies=dict.fromkeys(endpoints.values(), body),
            )
        )

    def _offline_channels(self) -> set[object]:
        names: set[object] = {self._setting(documents.OFFLINE_CHANNEL)}
        names |= {department.get("offlineMessageChannelName") for department in self._states.all(Kind.DEPARTMENT)}
        return names - {None, ""}

    def _emit(self, transition: transitions.Transition, change: Change, room: Document) -> None:
        endpoints = self._endpoints.of(transition.type)
        if not endpoints:
            return
        session = str(room["_id"])
        visitor = self._states.get(Kind.VISITOR, _nested_id(room, "v"))
        if visitor is None or visitor.get("disabled") is True:
            reason = "the visitor no longer exists" if visitor is None else "the visitor was removed"
            self._skip(transition.type, transition.event_id, session, change, reason)
            return
        context = self._context(transition.type, room, visitor)
        event = NewEvent(transition.event_id, transition.type, session, change.wall_time, endpoints)
        messages = () if transition.message is None else (transition.message,)
        if not transition.transcript and not file_ids(messages):
            bodies = {profile: encode(build(profile, context, messages, {})) for profile in set(endpoints.values())}
            self._append(replace(event, bodies=bodies))
            return
        intent = Intent(
            event_id=transition.event_id,
            session=session,
            started=change.cluster_time,
            completed=None if transition.awaits_closing else change.cluster_time,
            cut=_cut(transition, room, change),
            context=_encode_context(context, transition.message),
        )
        if transition.awaits_closing:
            self._intents.add(intent)
        self._append(replace(event, intent=intent))

    def _context(self, event_type: EventType, room: Document, visitor: Document) -> Context:
        department = self._states.get(Kind.DEPARTMENT, visitor.get("department"))
        settings = {str(setting["_id"]): setting.get("value") for setting in self._states.all(Kind.SETTING)}
        if self._site_url is not None:
            settings[documents.SITE_URL] = self._site_url
        return Context(
            type=event_type,
            room=room,
            visitor=visitor,
            agent=self._states.get(Kind.USER, _nested_id(room, "servedBy")),
            settings=settings,
            department=None if department is None else department.get("name"),
        )

    def _complete(self, session: str, change: Change, message: Document) -> None:
        cut = message["ts"] if isinstance(message.get("ts"), datetime) else change.wall_time
        completion = self._intents.complete(session, change.cluster_time, cut)
        if completion is not None:
            self._completions.append(completion)

    def _append(self, event: NewEvent) -> None:
        if event.endpoints:
            self._metrics.events.labels(event.type).inc()
            self._events.append(event)

    def _skip(self, event_type: str, event_id: str, session: str, change: Change, reason: str) -> None:
        endpoints = self._endpoints.of(event_type)
        if endpoints:
            self._metrics.skipped.inc()
            log.warning("compose.skipped", event_id=event_id, session=session, reason=reason)
            self._events.append(NewEvent(event_id, event_type, session, change.wall_time, endpoints, skipped=reason))

    def _unreadable(self, change: Change, error: Exception) -> None:
        if isinstance(error, DaemonError):
            raise error
        log.exception("compose.unreadable_change", collection=change.collection, document=str(change.id))
        at = f"{change.cluster_time.time}.{change.cluster_time.inc}"
        event_id = f"Change:{change.collection}:{change.id}:{at}"
        reason = f"cannot be composed: {type(error).__name__}: {error}"[:_REASON_LENGTH]
        self._skip("Change", event_id, str(change.id), change, reason)

    def _setting(self, name: str) -> Any:
        setting = self._states.get(Kind.SETTING, name)
        return None if setting is None else setting.get("value")


def _nested_id(document: Document, field: str) -> object:
    nested = document.get(field)
    return nested.get("_id") if isinstance(nested, Mapping) else None


def _speaks_of_livechat(change: Change) -> bool:
    return "closedAt" in change.updated or touches(change, "servedBy")


def _before(at: Timestamp) -> Timestamp:
    """The last moment before `at`."""
    return Timestamp(at.time, at.inc - 1) if at.inc else Timestamp(at.time - 1, 2**32 - 1)


def _cut(transition: transitions.Transition, room: Document, change: Change) -> datetime:
    """The latest `ts` that belongs to the transcript, by the clock that writes `ts`: Rocket.Chat's, not MongoDB's."""
    served = room.get("servedBy")
    at = room.get("closedAt") if transition.type is EventType.SESSION else served.get("ts") if isinstance(served, dict) else None
    return at if isinstance(at, datetime) else change.wall_time


def _encode_context(context: Context, message: Document | None) -> bytes:
    stored = {
        "type": context.type.value,
        "room": context.room,
        "visitor": context.visitor,
        "agent": context.agent,
        "settings": context.settings,
        "department": context.department,
    }
    return bson.encode(stored if message is None else {**stored, "message": message})
