"""Turns batches of changes into what the outbox commits, and completes intents."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from bson.timestamp import Timestamp

from daemon.clock import Clock
from daemon.compose import documents, transitions
from daemon.compose.channel import ChannelPosts
from daemon.compose.documents import Kind
from daemon.compose.drafts import Drafts
from daemon.compose.fold import fold, nested_id, reduce, touches
from daemon.compose.gather import Gatherer
from daemon.compose.intents import OpenIntents, Part, Waiting
from daemon.compose.json_text import encode
from daemon.compose.lookup import Lookup
from daemon.compose.match import Endpoints
from daemon.compose.payload.context import Context, decode_context, encode_context
from daemon.compose.payload.messages import file_ids
from daemon.compose.payload.session import build
from daemon.compose.states import FoldedStates, StateStore
from daemon.compose.transitions import Awaits, Transition
from daemon.compose.versions import behaviour
from daemon.errors import DaemonError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Batch, Body, Change, Commit, Document, EventType, Intent, IntentUpdate, NewEvent, Profile

log = get_logger("compose")

_REASON_LENGTH = 500
_ONE_SAVE = timedelta(milliseconds=50)  # between the two halves of a save, by Rocket.Chat's clock
_ROOM_GONE = "the room no longer exists in MongoDB"


class Composer:
    """Holds the folded state between batches. One instance, called from one task at a time; `finish` may run beside it."""

    def __init__(
        self,
        *,
        store: StateStore,
        lookup: Lookup,
        endpoints: Endpoints,
        settle: timedelta,
        clock: Clock,
        metrics: Metrics,
        site_url: str | None = None,
        server_version: str | None = None,
        imitate: Collection[str] = (),
    ) -> None:
        self._lookup = lookup
        self._endpoints = endpoints
        self._clock = clock
        self._metrics = metrics
        self._imitate = frozenset(imitate)
        arbitrary_agent = "arbitrary_agent" in self._imitate
        self._states = FoldedStates(store, lookup)
        self._gatherer = Gatherer(self._states, lookup, arbitrary_agent=arbitrary_agent)
        self._drafts = Drafts(self._states, endpoints, site_url=site_url, version=server_version, arbitrary_agent=arbitrary_agent)
        self._channel = ChannelPosts(self._states, endpoints, metrics)
        self._intents = OpenIntents(settle)
        self._counters = {event_type.value: metrics.events.labels(event_type) for event_type in EventType}
        self._said_version: str | None = ""
        self._edited: dict[str, dict[str, Any]] = {}
        self._events: list[NewEvent] = []
        self._updates: list[IntentUpdate] = []
        self._takers = {
            documents.MESSAGES: self._take_message,
            documents.STATISTICS: self._take_statistics,
            documents.BY_KIND[Kind.ROOM].collection: self._take_room,
            documents.BY_KIND[Kind.VISITOR].collection: self._take_visitor,
            documents.BY_KIND[Kind.INQUIRY].collection: self._take_inquiry,
        }

    def resume(self, waiting: Iterable[Intent]) -> None:
        """Take up the intents that wait for a change since before the restart, oldest first."""
        for intent in waiting:
            context, notes = decode_context(intent.context)
            parts = {Part(part) for part in notes.get("parts", ())}
            self._wait(intent, context, parts, named=bool(notes.get("named")))

    async def compose(self, batch: Batch) -> Commit:
        """What `batch` means, without folded state: `with_states` adds that. A change that cannot be understood becomes a skipped
        event with its reason; the flow goes on.

        Waits for an unreachable MongoDB; raises `DaemonError` where waiting cannot help.
        """
        self._states.trim()
        self._events, self._updates = [], []
        batch = await self._gather(batch)
        self._say_version()
        for change in batch.changes:
            if self._intents:
                self._give_up(self._intents.overdue_at(change.cluster_time))
            try:
                self._takers.get(change.collection, self._states.apply)(change)
            except Exception as error:  # noqa: BLE001 - one odd document must not stop the stream
                self._unreadable(change, error)
        self._give_up(self._intents.overdue_at(batch.position.cluster_time))
        self._give_up(self._intents.overdue_idle(batch, self._clock.monotonic()))
        self._metrics.open_intents.set(len(self._intents))
        return Commit(batch.position, tuple(self._events), tuple(self._updates))

    @property
    def has_unsaved_states(self) -> bool:
        """Whether folded state has changed since `with_states`."""
        return self._states.unsaved

    def with_states(self, commit: Commit) -> Commit:
        """The last batch's `commit` with all folded state that has changed since the one before; the caller keeps it or ends."""
        return replace(commit, states=self._states.changed_rows())

    async def _gather(self, batch: Batch) -> Batch:
        """Have what `batch` needs; gives it without the changes for which that cannot be had, which become skipped events."""
        try:
            self._edited = await self._gatherer.gather(batch, self._intents.sessions())
        except DaemonError:
            raise
        except Exception:
            log.exception("compose.gathering_failed", changes=len(batch.changes), next="one by one")
        else:
            return batch
        self._edited, readable = {}, []
        for change in batch.changes:
            try:
                self._edited |= await self._gatherer.gather(replace(batch, changes=(change,)), ())
                readable.append(change)
            except Exception as error:  # noqa: BLE001 - one odd document must not stop the stream
                self._unreadable(change, error)
        return replace(batch, changes=tuple(readable))

    async def finish(self, intent: Intent) -> Mapping[Profile, Body]:
        """The bodies of a complete intent.

        Waits for an unreachable MongoDB; raises `DaemonError` where waiting cannot help, anything else when it cannot be
        composed.
        """
        context, _ = decode_context(intent.context)
        messages: list[Document] = []
        if context.message is not None:
            messages = [context.message]
        elif context.transcript:
            messages = [*await self._lookup.transcript(str(context.room["_id"]), intent.completed, intent.cut)]
        wanted = file_ids(messages)
        uploads: Mapping[str, Document] = {}
        if wanted:
            uploads = await self._lookup.by_ids(documents.UPLOADS, wanted, documents.UPLOAD_FIELDS, intent.completed)
        return {profile: encode(build(profile, context, messages, uploads)) for profile in intent.profiles}

    # -- changes, by collection

    def _take_room(self, change: Change) -> None:
        before = self._states.get(Kind.ROOM, change.id)
        if before is not None and before.get("t") != "l" and _says_nothing_of_a_channel(change):
            return
        after = self._states.apply(change)
        if after is None:
            if before is None and change.operation == "update" and ("closedAt" in change.updated or touches(change, "servedBy")):
                # Removed before it was read for the first time: nothing is left to tell.
                told = fold({"_id": change.id}, change, documents.BY_KIND[Kind.ROOM].fields)
                for transition in transitions.of_room(change, None, told or {"_id": change.id}):
                    self._skip(transition, change, _ROOM_GONE)
            return
        if after.get("t") != "l" or _tells_of_a_message_only(change):
            return
        marked = transitions.remember(change, before, after)
        for transition in transitions.of_room(change, before, marked):
            stale = transition.type is EventType.SESSION_TAKEN and "stale_taken" in self._imitate
            self._emit(transition._replace(room=before) if stale and before is not None else transition, change)
            if transition.type is EventType.SESSION_FORWARDED:
                marked = {name: value for name, value in marked.items() if name != documents.TRANSFER}
        if marked is not after:
            self._states.put(Kind.ROOM, change.id, marked)
        if transitions.is_edit_of_closed(change, after):
            self._take_edit(change, before or after, after)

    def _take_inquiry(self, change: Change) -> None:
        before = self._states.get(Kind.INQUIRY, change.id)
        if change.operation == "insert" and (change.document or {}).get("status") == "verifying":
            self._states.apply(change)  # followed from now on; what becomes of other entries is told by their rooms
        elif before is not None:
            self._states.apply(change)
        rid = (change.document or before or {}).get("rid")
        room = self._states.get(Kind.ROOM, rid)
        if room is not None and room.get("t") == "l":
            for transition in transitions.of_inquiry(change, before, room, behaviour(self._drafts.version())):
                self._emit(transition, change)

    def _take_visitor(self, change: Change) -> None:
        before = self._states.get(Kind.VISITOR, change.id)
        after = self._states.apply(change)
        if before is None or after is None or change.operation == "insert":
            return
        if transitions.can_save_lead(change):
            for waiting in self._intents.of_type(EventType.LEAD, visitor=change.id):
                self._complete(waiting, change.cluster_time, waiting.context._replace(visitor=after))
                return
        if not transitions.can_be_save(change):
            return
        for waiting in self._intents.of_type(EventType.EDIT, visitor=change.id):
            if Part.VISITOR in waiting.parts:
                self._complete_edit(waiting, change.cluster_time, visitor=before)
                continue
            waiting.named = _new_name_is_due(self._states.get(Kind.ROOM, waiting.session), after)
            self._note_part(waiting, Part.VISITOR, change)
            return
        self._states.put(Kind.VISITOR, change.id, {**after, documents.SAVED: {"at": _made_at(change)}})

    def _take_message(self, change: Change) -> None:
        if change.operation == "update":
            if not transitions.is_edit(change):
                return
            message = fold(self._edited.get(change.id), change, documents.MESSAGE_FIELDS)
            if message is None:
                # Its room went with it: nobody can tell whether it was a livechat message.
                log.info("compose.edit_of_unknown_message", message=change.id, reason="the message no longer exists in MongoDB")
                return
            self._edited[change.id] = message
            room = self._states.get(Kind.ROOM, message.get("rid"))
        else:
            written = change.document or {}
            room = self._states.get(Kind.ROOM, written.get("rid"))
            if room is not None and room.get("t") != "l":
                if change.operation == "insert":
                    self._events += self._channel.take(change, written, room)
                return
            message = reduce(written, documents.MESSAGE_FIELDS)
        if room is None:
            if transitions.is_visitor_text(message):
                lost = {"_id": message.get("rid")}
                for transition in transitions.of_message(change, message, lost, behaviour(self._drafts.version())):
                    self._skip(transition, change, _ROOM_GONE)
        elif room.get("t") == "l":
            self._take_livechat_message(change, message, room)

    def _take_livechat_message(self, change: Change, message: dict[str, Any], room: dict[str, Any]) -> None:
        for transition in transitions.of_message(change, message, room, behaviour(self._drafts.version())):
            self._emit(transition, change)
        if change.operation != "insert":
            return
        if transitions.is_closing_message(message):
            for waiting in self._intents.of_type(EventType.SESSION, session=str(room["_id"])):
                waiting.cut = max(waiting.cut, message["ts"] if isinstance(message.get("ts"), datetime) else change.wall_time)
                self._complete(waiting, change.cluster_time)
                break
        elif transitions.is_visitor_text(message) and self._endpoints.wanted(EventType.LEAD):
            matches = self._drafts.leads(message)
            if matches or "leads_without_match" in self._imitate:
                self._emit(transitions.of_lead(change, room, matches=matches), change)
        transferred = transitions.remember_transfer(message, room)
        if transferred is not None:
            self._states.put(Kind.ROOM, str(room["_id"]), transferred)

    def _take_statistics(self, change: Change) -> None:
        version = (change.document or {}).get("version")
        if isinstance(version, str):
            self._states.put(Kind.SERVER, Kind.SERVER, {"_id": Kind.SERVER.value, "version": version})
            self._say_version()

    def _take_edit(self, change: Change, before: dict[str, Any], after: dict[str, Any]) -> None:
        """An agent edited the information of a closed room: part of an edit that waits, or the first part of a new one."""
        part = Part.INFORMATION if transitions.edits_information(change) else Part.NAME
        for waiting in self._intents.of_type(EventType.EDIT, session=str(change.id)):
            if part in waiting.parts:
                self._complete_edit(waiting, change.cluster_time, room=before)
                continue
            self._note_part(waiting, part, change)
            return
        event_id = f"{EventType.EDIT}:{change.id}:{change.cluster_time.time}.{change.cluster_time.inc}"
        self._emit(Transition(EventType.EDIT, event_id, after, transcript=True, awaits=Awaits.VISITOR_UPDATE), change)
        for waiting in self._intents.of_type(EventType.EDIT, session=str(change.id)):
            waiting.parts.add(part)
            self._find_saved_visitor(waiting, change, after)
            self._note_part(waiting, part, change)

    def _find_saved_visitor(self, waiting: Waiting, change: Change, room: Document) -> None:
        """The visitor's half of a save may have come first: both are made at the same moment."""
        visitor = self._states.get(Kind.VISITOR, waiting.visitor)
        saved = (visitor or {}).get(documents.SAVED)
        if visitor is None or saved is None or abs(_made_at(change) - saved["at"]) > _ONE_SAVE:
            return
        waiting.parts.add(Part.VISITOR)
        waiting.named = _new_name_is_due(room, visitor)
        self._states.put(Kind.VISITOR, waiting.visitor, _unmarked(visitor))

    def _note_part(self, waiting: Waiting, part: Part, change: Change) -> None:
        waiting.parts.add(part)
        if waiting.all_seen:
            self._complete_edit(waiting, change.cluster_time)
            return
        notes = {"parts": sorted(waiting.parts), "named": waiting.named}
        self._updates.append(IntentUpdate(waiting.event_id, None, waiting.cut, encode_context(waiting.context, notes)))

    # -- events and intents

    def _emit(self, transition: Transition, change: Change) -> None:
        event = self._drafts.event(transition, change)
        if event is None:
            return
        if event.skipped is not None:
            self._append_skipped(event, event.skipped)
            return
        self._counters[event.type].inc()
        self._events.append(event)
        if event.intent is not None and event.intent.completed is None:
            context, _ = decode_context(event.intent.context)
            self._wait(event.intent, context, set(), named=False)

    def _wait(self, intent: Intent, context: Context, parts: set[Part], *, named: bool) -> None:
        visitor = str(nested_id(context.room, "v"))
        self._intents.add(
            Waiting(intent.event_id, intent.session, visitor, intent.started, intent.cut, context, parts=parts, named=named)
        )

    def _complete(self, waiting: Waiting, at: Timestamp, context: Context | None = None) -> None:
        self._intents.remove(waiting)
        encoded = None if context is None else encode_context(context)
        self._updates.append(IntentUpdate(waiting.event_id, at, waiting.cut, encoded))

    def _complete_edit(
        self, waiting: Waiting, at: Timestamp, *, room: Document | None = None, visitor: Document | None = None
    ) -> None:
        """An edit tells the room and the visitor as they are when all of it was seen."""
        room = room or self._states.get(Kind.ROOM, waiting.session) or waiting.context.room
        visitor = visitor or self._states.get(Kind.VISITOR, waiting.visitor) or waiting.context.visitor
        context = self._drafts.context(EventType.EDIT, room, visitor, transcript=True)
        self._complete(waiting, at, context)

    def _give_up(self, overdue: Iterable[tuple[Waiting, Timestamp]]) -> None:
        for waiting, at in overdue:
            waiting.cut += self._intents.settle
            if waiting.context.type is EventType.EDIT:
                self._complete_edit(waiting, at)
            else:
                self._complete(waiting, at)

    def _skip(self, transition: Transition, change: Change, reason: str) -> None:
        self._append_skipped(self._drafts.skipped(transition, change, reason), reason)

    def _append_skipped(self, event: NewEvent, reason: str) -> None:
        if event.endpoints:
            self._metrics.skipped.inc()
            log.warning("compose.skipped", event_id=event.id, session=event.session, reason=reason)
            self._events.append(event)

    def _unreadable(self, change: Change, error: Exception) -> None:
        if isinstance(error, DaemonError):
            raise error
        log.exception("compose.unreadable_change", collection=change.collection, document=str(change.id))
        event_id = f"Change:{change.collection}:{change.id}:{change.cluster_time.time}.{change.cluster_time.inc}"
        reason = f"cannot be composed: {type(error).__name__}"
        skipped = f"{reason}: {error}"[:_REASON_LENGTH]  # kept with the row: it may quote what a visitor wrote
        event = NewEvent(event_id, "Change", str(change.id), change.wall_time, self._endpoints.all(), skipped=skipped)
        self._append_skipped(event, reason)

    def _say_version(self) -> None:
        version = self._drafts.version()
        if version != self._said_version:
            self._said_version = version
            if version is None:
                note = "set compose.server_version; payloads are those of the newest known release"
                log.warning("compose.server_version_unknown", note=note)
            else:
                log.info("compose.server_version", version=version)


def _says_nothing_of_a_channel(change: Change) -> bool:
    """Of a room that is not of livechat, and never becomes it, only type and name matter; every message updates it."""
    return change.operation == "update" and not change.removed and change.updated.keys().isdisjoint(("t", "name"))


def _tells_of_a_message_only(change: Change) -> bool:
    """Every message moves the `lm` of its room, which means nothing else."""
    return change.updated.keys() == {"lm"} and not change.removed and not change.truncated


def _new_name_is_due(room: Document | None, visitor: Document) -> bool:
    """Whether the room has yet to get the name of its visitor, which a save gives it last."""
    return bool(visitor.get("name")) and (room or {}).get("fname") != visitor.get("name")


def _made_at(change: Change) -> datetime:
    return change.updated_at if isinstance(change.updated_at, datetime) else change.wall_time


def _unmarked(document: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in document.items() if not name.startswith("~")}
