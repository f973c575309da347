"""The payloads of session events.

The facts are those of Rocket.Chat's getLivechatRoomGuestInfo and the CRM webhooks in app/livechat; `guide` is the shape that
the public guide documents, with what current servers add after the documented members.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import orjson

from daemon.compose import documents
from daemon.compose.json_text import ABSENT, AnswerSlot
from daemon.compose.payload.context import Context
from daemon.compose.payload.members import (
    ANY,
    DATE,
    LIST,
    OBJECT,
    TEXT,
    TEXTS,
    Member,
    Repeated,
    Shape,
    first,
    stored,
)  # fmt: skip
from daemon.compose.payload.messages import Entry, exported, message_shape
from daemon.compose.user_agent import parse_user_agent
from daemon.compose.versions import Behaviour, behaviour
from daemon.model import Document, EventType, Profile


class Source(NamedTuple):
    """What a session payload is built from."""

    context: Context
    messages: Sequence[Entry]


def build(profile: Profile, context: Context, messages: Sequence[Document], uploads: Mapping[str, Document]) -> dict[str, Any]:
    """The payload of a session event. `messages` are candidates in order of `ts`; what Rocket.Chat leaves out is left out
    here.
    """
    entries = [Entry(message, context, uploads) for message in messages if exported(message, context.settings)]
    return session_shape(profile, context.type, context.version).build(Source(context, entries))


@lru_cache(maxsize=128)
def session_shape(profile: Profile, event_type: EventType, version: str | None) -> Shape[Source]:
    """The shape of a session event of a server of this version."""
    server = behaviour(version)
    entry = message_shape(profile, version)
    messages = Member[Source](
        "messages",
        lambda source: [entry.build(message) for message in source.messages],
        {"type": "array", "items": entry.schema()},
        required=True,
    )
    kind = Member[Source]("type", lambda _: event_type.value, {"const": event_type.value}, required=True)
    additional = tuple(_ADDITIONAL[name] for name in _additional_names(event_type, server))
    if profile is Profile.GUIDE:
        return Shape((kind, *_guide_room(), messages, _CRM_DATA, *additional), nulls=False)
    return Shape((*_native_room(server), _CRM_DATA, kind, messages, *additional), nulls=True)


def _room(source: Source) -> Document:
    return source.context.room


def _visitor(context: Context) -> Document:
    return context.visitor


def _agent(context: Context) -> Document:
    return context.agent or {}


def _truthy(value: Any) -> Any:
    """What is true in JavaScript, where empty lists and objects are."""
    return value if value or value in ([], {}) else ABSENT


# The answer of a CRM may take its place when it is sent.
_CRM_DATA = Member[Source]("crmData", lambda source: AnswerSlot(_truthy(_room(source).get("crmData"))), ANY)

_ADDITIONAL: dict[str, Member[Source]] = {
    "departmentId": stored("departmentId", TEXT, _room),
    "servedBy": stored("servedBy", OBJECT, _room),
    "oldDepartmentId": stored("oldDepartmentId", TEXT, lambda source: source.context.extra),
    "oldServedBy": stored("oldServedBy", OBJECT, lambda source: source.context.extra),
    "closedAt": stored("closedAt", DATE, _room),
    "closedBy": stored("closedBy", OBJECT, _room),
    "closer": stored("closer", TEXT, _room),
}


def _additional_names(event_type: EventType, server: Behaviour) -> tuple[str, ...]:
    match event_type:
        case EventType.SESSION_START:
            return ("departmentId",) if server.department_on_start else ()
        case EventType.SESSION_QUEUED:
            return ("departmentId",)
        case EventType.SESSION_TAKEN:
            return ("departmentId", "servedBy")
        case EventType.SESSION_FORWARDED:
            return ("departmentId", "servedBy", "oldDepartmentId", "oldServedBy")
        case EventType.SESSION:
            return ("departmentId", "servedBy", "closedAt", "closedBy", "closer")
        case EventType.EDIT | EventType.MESSAGE | EventType.LEAD | EventType.OFFLINE_MESSAGE:
            return ()


def _native_room(server: Behaviour) -> tuple[Member[Source], ...]:
    return (*_room_head(), *_room_rest(), *_native_people(server))


def _guide_room() -> tuple[Member[Source], ...]:
    return (*_room_head(), stored("code", ANY, _room), *_room_rest(), *_guide_people())


def _room_head() -> tuple[Member[Source], ...]:
    return (
        stored("_id", TEXT, _room, required=True),
        Member("label", lambda source: _room(source).get("fname") or _room(source).get("label", ABSENT), TEXT, stored=True),
        stored("topic", TEXT, _room),
    )


def _room_rest() -> tuple[Member[Source], ...]:
    return (
        stored("createdAt", DATE, _room, "ts"),
        stored("lastMessageAt", DATE, _room, "lm"),
        stored("tags", TEXTS, _room),
        stored("customFields", OBJECT, _room, "livechatData"),
    )


@lru_cache(maxsize=4)  # one for all types of events, since they tell of the same people
def _native_people(server: Behaviour) -> tuple[Member[Source], ...]:
    return _people(Shape(_native_visitor(server), nulls=True), Shape(_native_agent(server), nulls=True))


@lru_cache(maxsize=1)
def _guide_people() -> tuple[Member[Source], ...]:
    return _people(Shape(_guide_visitor(), nulls=False), Shape(_guide_agent(), nulls=False))


def _people(visitor: Shape[Context], agent: Shape[Context]) -> tuple[Member[Source], ...]:
    def of_visitor(source: Source) -> tuple[Document, Any]:
        context = source.context
        return context.visitor, context.department

    def of_agent(source: Source) -> tuple[Document | None, Any]:
        context = source.context
        return context.agent, context.settings.get(documents.AGENT_FIELDS)

    the_visitor = Repeated[Source](lambda source: visitor.build(source.context), of_visitor)
    the_agent = Repeated[Source](lambda source: agent.build(source.context), of_agent)
    return (
        Member("visitor", the_visitor, visitor.schema(), required=True),
        Member("agent", the_agent, agent.schema()),
    )


def _native_visitor(server: Behaviour) -> tuple[Member[Context], ...]:
    missing = None if server.contact_early_and_null else ABSENT
    contact: tuple[Member[Context], ...] = (
        Member("email", lambda context: context.visitor.get("visitorEmails") or missing, LIST, stored=True),
        Member("phone", lambda context: context.visitor.get("phone") or missing, LIST, stored=True),
    )
    head: tuple[Member[Context], ...] = (
        stored("_id", TEXT, _visitor),
        stored("token", TEXT, _visitor),
        stored("name", TEXT, _visitor),
        stored("username", TEXT, _visitor),
    )
    rest: tuple[Member[Context], ...] = (
        stored("department", TEXT, _visitor),
        stored("ip", TEXT, _visitor),
        _OS,
        _BROWSER,
        stored("customFields", OBJECT, _visitor, "livechatData"),
    )
    return (*head, *contact, *rest) if server.contact_early_and_null else (*head, *rest, *contact)


def _guide_visitor() -> tuple[Member[Context], ...]:
    return (
        stored("_id", TEXT, _visitor),
        stored("name", TEXT, _visitor),
        stored("username", TEXT, _visitor),
        Member("department", lambda context: context.department or context.visitor.get("department", ABSENT), TEXT),
        Member("email", lambda context: first(context.visitor.get("visitorEmails"), "address"), TEXT),
        Member("phone", lambda context: first(context.visitor.get("phone"), "phoneNumber"), TEXT),
        stored("ip", TEXT, _visitor),
        _BROWSER,
        _OS,
        stored("customFields", OBJECT, _visitor, "livechatData"),
        stored("token", TEXT, _visitor),
    )


def _user_agent(context: Context) -> Any:
    return parse_user_agent(str(context.visitor.get("userAgent") or ""))


def _agent_email(context: Context) -> Any:
    return first(_agent(context).get("emails"), "address")


def _agent_fields(context: Context) -> Any:
    """The agent's custom fields whose definition says `sendToIntegrations`."""
    values = _agent(context).get("customFields")
    if not isinstance(values, Mapping):
        return ABSENT
    try:
        definitions = orjson.loads(str(context.settings.get(documents.AGENT_FIELDS) or "{}"))
    except orjson.JSONDecodeError:
        return {}
    sent = definitions if isinstance(definitions, dict) else {}
    return {
        name: value
        for name, value in values.items()
        if isinstance(sent.get(name), dict) and sent[name].get("sendToIntegrations") is True
    }


_OS = Member[Context]("os", lambda context: _user_agent(context).os or ABSENT, TEXT)
_BROWSER = Member[Context]("browser", lambda context: _user_agent(context).browser or ABSENT, TEXT)
_AGENT_FIELDS = Member[Context]("customFields", _agent_fields, OBJECT)
_AGENT_HEAD: tuple[Member[Context], ...] = (
    stored("_id", TEXT, _agent),
    stored("username", TEXT, _agent),
    stored("name", TEXT, _agent),
)


def _native_agent(server: Behaviour) -> tuple[Member[Context], ...]:
    missing = None if server.contact_early_and_null else ABSENT

    def address(context: Context) -> Any:
        found = _agent_email(context)
        return missing if found is ABSENT else found

    email = Member[Context]("email", address, TEXT, stored=True)
    return (*_AGENT_HEAD, email, _AGENT_FIELDS) if server.contact_early_and_null else (*_AGENT_HEAD, _AGENT_FIELDS, email)


def _guide_agent() -> tuple[Member[Context], ...]:
    return (*_AGENT_HEAD, Member("email", _agent_email, TEXT), _AGENT_FIELDS)
