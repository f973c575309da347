"""Documents, changes and surroundings as a Rocket.Chat workspace gives them, for the tests of compose.

What depends on the signature of a part under test stands here once, so that the tests speak of behaviour only.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace as with_changes
from datetime import datetime, timedelta
from functools import cache
from typing import Any, Literal, NamedTuple, cast

import orjson
from bson.timestamp import Timestamp
from jsonschema import Draft202012Validator, FormatChecker

from daemon.compose import documents, transitions
from daemon.compose.composer import Composer
from daemon.compose.intents import OpenIntents, Waiting
from daemon.compose.json_text import encode
from daemon.compose.lookup import Lookup
from daemon.compose.match import Endpoints
from daemon.compose.payload.context import Context
from daemon.compose.payload.messages import file_ids
from daemon.compose.payload.offline import OfflinePost, build_offline
from daemon.compose.payload.schemas import payload_schema
from daemon.compose.payload.session import build
from daemon.compose.versions import behaviour
from daemon.config.endpoint import EndpointSection
from daemon.metrics import Metrics
from daemon.model import (
    Batch,
    Body,
    Change,
    Commit,
    Document,
    EventType,
    Intent,
    IntentUpdate,
    NewEvent,
    Position,
    Profile,
    StateRow,
)
from tests.clocks import START, FakeClock

Json = dict[str, Any]

ROOMS = "rocketchat_room"
MESSAGES = "rocketchat_message"
VISITORS = "rocketchat_livechat_visitor"
USERS = "users"
DEPARTMENTS = "rocketchat_livechat_department"
SETTINGS = "rocketchat_settings"
UPLOADS = "rocketchat_uploads"

START_MS = 1_795_420_800_000

SYSTEM_TYPES = (
    "uj", "ul", "au", "ru", "command", "livechat-started", "livechat_transfer_history", "livechat_transcript_history",
    "livechat_video_call", "livechat_webrtc_video_call", "omnichannel_placed_chat_on_hold", "omnichannel_on_hold_chat_resumed",
    "omnichannel_priority_change_history", "omnichannel_sla_change_history", "discussion-created", "connected",
    "room_changed_topic", "message_pinned", "rm",
)  # fmt: skip


# Time: everything is told in seconds after START.


def moment(seconds: float = 0) -> datetime:
    return START + timedelta(seconds=seconds)


def milliseconds(seconds: float = 0) -> int:
    return START_MS + round(seconds * 1000)


def stamp(seconds: float = 0, inc: int = 1) -> Timestamp:
    return Timestamp(START_MS // 1000 + int(seconds), inc)


# Documents: as stored, so with more fields than matter.


def room(id_: str = "room1", **more: Any) -> Json:
    return {
        "_id": id_,
        "t": "l",
        "msgs": 0,
        "fname": "Erika Beispiel",
        "ts": moment(),
        "lm": moment(),
        "v": {"_id": "visitor1", "username": "guest-42", "token": "token1", "status": "online"},
        "open": True,
        "_updatedAt": moment(),
        **more,
    }


def visitor(id_: str = "visitor1", **more: Any) -> Json:
    return {
        "_id": id_,
        "token": "token1",
        "name": "Erika Beispiel",
        "username": "guest-42",
        "visitorEmails": [{"address": "erika@example.org"}],
        "phone": [{"phoneNumber": "+49 30 5550 1234"}],
        "status": "online",
        **more,
    }


def agent(id_: str = "agent1", **more: Any) -> Json:
    return {
        "_id": id_,
        "username": "maria.keller",
        "name": "Maria Keller",
        "emails": [{"address": "maria@example.org", "verified": True}],
        "status": "online",
        **more,
    }


def served_by(seconds: float, id_: str = "agent1", username: str = "maria.keller") -> Json:
    return {"_id": id_, "username": username, "ts": moment(seconds)}


def message(id_: str = "message1", text: str | None = "Hello", seconds: float = 1, **more: Any) -> Json:
    """A message of the visitor."""
    return {
        "_id": id_,
        "rid": "room1",
        "msg": text,
        "token": "token1",
        "ts": moment(seconds),
        "u": {"_id": "visitor1", "username": "guest-42", "name": "Erika Beispiel"},
        "urls": [],
        "_updatedAt": moment(seconds),
        **more,
    }


def agent_message(id_: str = "message2", text: str | None = "One moment", seconds: float = 2, **more: Any) -> Json:
    author = {"_id": "agent1", "username": "maria.keller", "name": "Maria Keller"}
    answer = message(id_, text, seconds, **{"u": author, **more})
    del answer["token"]
    return answer


def closing_message(seconds: float = 10, id_: str = "closing", text: str = "Bye") -> Json:
    return agent_message(id_, text, seconds, t="livechat-close", groupable=False)


def file_message(id_: str = "message3", seconds: float = 3, **more: Any) -> Json:
    file = {"_id": "upload1", "name": "parcel box.jpg", "type": "image/jpeg"}
    attachments = [{"title": "parcel box.jpg", "title_link": "/file-upload/upload1/parcel%20box.jpg"}]
    return message(id_, "", seconds, **{"file": file, "attachments": attachments, **more})


def upload(id_: str = "upload1", **more: Any) -> Json:
    return {"_id": id_, "name": "parcel box.jpg", "type": "image/jpeg", "size": 48213, **more}


def setting(name: str, value: Any) -> Json:
    return {"_id": name, "value": value}


# Changes.


def insert(collection: str, document: Json, seconds: float = 0) -> Change:
    return _change(collection, "insert", document["_id"], seconds, document=document)


def replacement(collection: str, document: Json, seconds: float = 0) -> Change:
    return _change(collection, "replace", document["_id"], seconds, document=document)


def update(
    collection: str,
    id_: str,
    sets: Document | None = None,
    unsets: Sequence[str] = (),
    *,
    truncated: Sequence[Document] = (),
    seconds: float = 0,
) -> Change:
    changed = {"_updatedAt": moment(seconds), **(sets or {})}
    return _change(collection, "update", id_, seconds, updated=changed, removed=unsets, truncated=truncated)


def deletion(collection: str, id_: str, seconds: float = 0) -> Change:
    return _change(collection, "delete", id_, seconds)


def _change(
    collection: str, operation: Literal["insert", "update", "replace", "delete"], id_: Any, seconds: float, **more: Any
) -> Change:
    return Change(collection, operation, id_, stamp(seconds), moment(seconds), **more)


def taking(seconds: float, id_: str = "agent1", username: str = "maria.keller", room_id: str = "room1") -> Change:
    return update(ROOMS, room_id, {"servedBy": served_by(seconds, id_, username)}, seconds=seconds)


def closing(seconds: float, room_id: str = "room1") -> Change:
    closed = {
        "closedAt": moment(seconds),
        "closer": "user",
        "closedBy": {"_id": "agent1", "username": "maria.keller"},
        "metrics.chatDuration": seconds,
        "v.status": "offline",
    }
    return update(ROOMS, room_id, closed, ["open"], seconds=seconds)


def reopening(seconds: float, room_id: str = "room1") -> Change:
    return update(ROOMS, room_id, {"open": True}, ["servedBy", "closedAt", "closedBy", "closer"], seconds=seconds)


def edit(id_: str, text: str, seconds: float) -> Change:
    editor = {"_id": "visitor1", "username": "guest-42"}
    return update(MESSAGES, id_, {"msg": text, "editedAt": moment(seconds), "editedBy": editor}, seconds=seconds)


def batch(*changes: Change, idle: bool = False, seconds: float | None = None) -> Batch:
    """`changes` in order, read up to `seconds`: by default exactly as far as the last change."""
    last = changes[-1].cluster_time if changes else stamp()
    at = last if seconds is None else stamp(seconds)
    return Batch(changes, Position(at, {"_data": "token"}), idle)


def room_events(change: Change, after: Document) -> list[tuple[str, str]]:
    """Type and id of every event that a change of a livechat room means."""
    return [(found.type, found.event_id) for found in transitions.of_room(change, after, after)]


def message_events(change: Change, after: Document) -> list[tuple[str, str]]:
    """Type and id of every event that a change of a message of a livechat room means."""
    found_events = transitions.of_message(change, after, room(), behaviour(None))
    return [(found.type, found.event_id) for found in found_events]


class Completed(NamedTuple):
    """An event that waits no longer: as of when its transcript is read, and the latest message that belongs to it."""

    event_id: str
    at: Timestamp
    cut: datetime


def completed(updates: Iterable[IntentUpdate]) -> list[Completed]:
    return [Completed(found.event_id, found.completed, found.cut) for found in updates if found.completed is not None]


def open_intents(*starts: tuple[str, str, float], settle_s: float = 2) -> OpenIntents:
    """Closes that wait for their closing message: id, session and start of each."""
    intents = OpenIntents(timedelta(seconds=settle_s))
    for start in starts:
        begin(intents, *start)
    return intents


def begin(intents: OpenIntents, event_id: str, session: str, seconds: float) -> None:
    intents.add(Waiting(event_id, session, "visitor1", stamp(seconds), moment(seconds), context(EventType.SESSION)))


def complete(intents: OpenIntents, session: str) -> str | None:
    """Which event the closing message of `session` completes."""
    for waiting in intents.of_type(EventType.SESSION, session=session):
        intents.remove(waiting)
        return waiting.event_id
    return None


def overdue(intents: OpenIntents, read_up_to: float, *, idle: bool = False, monotonic: float = 0) -> list[tuple[str, Timestamp]]:
    """What has waited long enough when the stream was read up to there, and as of when each is complete."""
    given_up: list[tuple[str, Timestamp]] = []
    for found in (intents.overdue_at(stamp(read_up_to)), intents.overdue_idle(batch(seconds=read_up_to, idle=idle), monotonic)):
        for waiting, at in found:
            intents.remove(waiting)
            given_up.append((waiting.event_id, at))
    return given_up


# What MongoDB does with an update, in the plainest words: the model that folding is compared with.


def applied(document: Json, sets: Document, unsets: Iterable[str]) -> Json:
    """`document` after `$set` and `$unset`, as the server writes it."""
    result = copy.deepcopy(document)
    for path, value in sets.items():
        *parents, last = path.split(".")
        inner: Any = result
        for part in parents:
            if isinstance(inner, list):
                _pad(inner, int(part))
                if inner[int(part)] is None:
                    inner[int(part)] = {}
                inner = inner[int(part)]
            else:
                inner = inner.setdefault(part, {})
        if isinstance(inner, list):
            _pad(inner, int(last))
            inner[int(last)] = copy.deepcopy(value)
        else:
            inner[last] = copy.deepcopy(value)
    for path in unsets:
        *parents, last = path.split(".")
        inner = result
        for part in parents:
            inner = _child(inner, part)
        if isinstance(inner, list):
            if int(last) < len(inner):
                inner[int(last)] = None
        elif isinstance(inner, dict):
            inner.pop(last, None)
    return result


def _child(value: Any, part: str) -> Any:
    if isinstance(value, list):
        return value[int(part)] if int(part) < len(value) else None
    return value.get(part) if isinstance(value, dict) else None


def _pad(array: list[Any], index: int) -> None:
    while len(array) <= index:
        array.append(None)


class Database:
    """What MongoDB holds and held: documents from the beginning, and the changes since. Reads as of a cluster time."""

    def __init__(self, documents_by_collection: Mapping[str, Sequence[Json]] | None = None) -> None:
        self.beginning = {name: list(found) for name, found in (documents_by_collection or {}).items()}
        self.log: list[Change] = []
        self.reads: list[tuple[str, set[Any]]] = []
        self.failure: Exception | None = None

    async def by_ids(
        self, collection: str, ids: Collection[Any], fields: Collection[str], at: Timestamp | None
    ) -> dict[str, Json]:
        self.reads.append((collection, set(ids)))
        self._fail()
        found = self.as_of(collection, at)
        return {id_: _projected(found[id_], fields) for id_ in ids if id_ in found}

    async def every(self, collection: str, fields: Collection[str], at: Timestamp | None) -> list[Json]:
        self.reads.append((collection, set()))
        self._fail()
        return [_projected(document, fields) for document in self.as_of(collection, at).values()]

    async def server_version(self, at: Timestamp | None) -> str | None:
        """There are no statistics: as the newest known version."""
        self._fail()
        return None

    async def first(self, collection: str, fields: Collection[str]) -> Json | None:
        return next(iter(await self.every(collection, fields, None)), None)

    async def transcript(self, room_id: str, at: Timestamp | None, cut: datetime) -> list[Json]:
        self._fail()
        found = [
            _projected(message, documents.MESSAGE_FIELDS)
            for message in self.as_of(MESSAGES, at).values()
            if message["rid"] == room_id and message.get("_hidden") is not True and message["ts"] <= cut
        ]
        return sorted(found, key=lambda message: message["ts"])

    def as_of(self, collection: str, at: Timestamp | None) -> dict[str, Json]:
        found = {document["_id"]: copy.deepcopy(document) for document in self.beginning.get(collection, [])}
        for change in self.log:
            if change.collection != collection or (at is not None and change.cluster_time > at):
                continue
            if change.operation == "delete":
                found.pop(change.id, None)
            elif change.document is not None:
                found[change.id] = dict(copy.deepcopy(change.document))
            elif change.id in found:
                found[change.id] = applied(found[change.id], change.updated, change.removed)
        return found

    def _fail(self) -> None:
        if self.failure is not None:
            raise self.failure


def _projected(document: Json, fields: Collection[str]) -> Json:
    result: Json = {}
    for name, value in document.items():
        inside = {field.partition(".")[2] for field in fields if field.partition(".")[0] == name}
        if "" in inside:
            result[name] = value
        elif inside and isinstance(value, dict):
            result[name] = {inner: value[inner] for inner in value if inner in inside}
    return result


class Store:
    """What the outbox keeps of folded state."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], Document] = {}
        self.loads: list[tuple[str, set[str]]] = []

    def keep(self, rows: Iterable[StateRow]) -> None:
        for row in rows:
            if row.document is None:
                self.kept.pop((row.kind, row.id), None)
            else:
                self.kept[row.kind, row.id] = copy.deepcopy(row.document)

    async def load_states(self, kind: str, ids: Collection[str]) -> Mapping[str, Document]:
        self.loads.append((kind, set(ids)))
        return {id_: copy.deepcopy(self.kept[kind, id_]) for id_ in ids if (kind, id_) in self.kept}

    async def load_all_states(self, kind: str) -> Mapping[str, Document]:
        return {id_: copy.deepcopy(document) for (of, id_), document in self.kept.items() if of == kind}


# Payloads.

PayloadContext = Context
COMMON_SETTINGS: Json = {"Site_Url": "https://chat.example.org/"}


def context(event_type: EventType = EventType.SESSION, **more: Any) -> Context:
    """An unserved, open chat, unless told otherwise."""
    return Context(
        **{"type": event_type, "room": room(), "visitor": visitor(), "agent": None, "settings": COMMON_SETTINGS, **more}
    )


def payload(
    profile: Profile, of: Context, *messages: Document, uploads: Sequence[Json] = (), plain: bool = True
) -> dict[str, Any]:
    """The payload as a receiver reads it (`plain`), else as it is before it becomes JSON. It is as its schema says."""
    content = build(profile, of, messages, {upload["_id"]: upload for upload in uploads})
    read = cast("Json", orjson.loads(encode(content).content))
    validator(of.type, profile, of.version).validate(read)
    return read if plain else content


def offline_payload(*, name: str | None, email: str, text: str, seconds: float) -> Body:
    body = encode(build_offline(OfflinePost(moment(seconds), name, email, text)))
    for profile in Profile:
        validator(EventType.OFFLINE_MESSAGE, profile).validate(orjson.loads(body.content))
    return body


@cache
def validator(event_type: EventType, profile: Profile, version: str | None = None) -> Draft202012Validator:
    """Checks payloads against their schema, formats of dates included."""
    schema = payload_schema(event_type, profile, version)
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema, format_checker=FORMATS)


FORMATS = FormatChecker(())


@FORMATS.checks("date-time", raises=ValueError)
def _is_date(value: object) -> bool:
    """As JavaScript writes dates, which is one of the ways of RFC 3339."""
    if isinstance(value, str):
        datetime.fromisoformat(value)
        return re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", value) is not None
    return True


def needed_uploads(*messages: Document) -> set[str]:
    return set(file_ids(messages))


# A composer and what is around it.

CORE_EVENTS = (
    EventType.SESSION_START,
    EventType.SESSION_TAKEN,
    EventType.MESSAGE,
    EventType.SESSION,
    EventType.OFFLINE_MESSAGE,
)


def endpoint(events: Sequence[str] = CORE_EVENTS, profile: Profile = Profile.NATIVE) -> EndpointSection:
    return EndpointSection.model_validate({"url": "https://crm.example.org", "events": list(events), "profile": profile})


class Workspace:
    """A composer, the database it reads, and an outbox that keeps what it gives."""

    def __init__(
        self,
        database: Database | None = None,
        endpoints: Mapping[str, EndpointSection] | None = None,
        *,
        settle: timedelta = timedelta(seconds=2),
        site_url: str | None = None,
    ) -> None:
        self.database = database or Database()
        self.store = Store()
        self.clock = FakeClock()
        self.events: list[NewEvent] = []
        self._endpoints = endpoints or {"crm": endpoint()}
        self._settle = settle
        self._site_url = site_url
        self._intents: dict[str, Intent] = {}
        self.restart()

    def restart(self) -> None:
        """A new process: nothing but the database and the outbox is left."""
        self._composer = Composer(
            store=self.store,
            lookup=cast("Lookup", self.database),
            endpoints=Endpoints(self._endpoints),
            settle=self._settle,
            site_url=self._site_url,
            clock=self.clock,
            metrics=Metrics(),
        )
        self._composer.resume([intent for intent in self._intents.values() if intent.completed is None])

    async def read(self, *changes: Change, idle: bool = False, seconds: float | None = None) -> Commit:
        """Compose one batch and commit it."""
        self.database.log += [change for change in changes if change not in self.database.log]
        commit = self._composer.with_states(await self._composer.compose(batch(*changes, idle=idle, seconds=seconds)))
        self.store.keep(commit.states)
        self.events += commit.events
        for event in commit.events:
            if event.intent is not None:
                self._intents[event.id] = event.intent
        for found in commit.intent_updates:
            intent = self._intents[found.event_id]
            self._intents[found.event_id] = with_changes(
                intent, completed=found.completed, cut=found.cut, context=found.context or intent.context
            )
        return commit

    def is_complete(self, event_id: str) -> bool:
        intent = self._intents.get(event_id)
        return intent is None or intent.completed is not None

    async def body(self, event_id: str, profile: Profile = Profile.NATIVE) -> Body:
        """The body of an event that is complete."""
        event = next(event for event in self.events if event.id == event_id)
        assert event.skipped is None, event.skipped
        if event.intent is None:
            return event.bodies[profile]
        intent = with_changes(self._intents[event_id], profiles=tuple(set(event.endpoints.values())))
        assert intent.completed is not None, f"{event_id} still waits"
        return (await self._composer.finish(intent))[profile]

    async def content(self, event_id: str, profile: Profile = Profile.NATIVE) -> Json:
        return cast("Json", orjson.loads((await self.body(event_id, profile)).content))

    @property
    def ids(self) -> list[str]:
        return [event.id for event in self.events]
