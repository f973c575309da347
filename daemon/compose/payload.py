"""Payloads: a context and its messages give the webhook's content, member by member. Pure.

The facts are those of Rocket.Chat 7 (`sendMessageType`, `getLivechatRoomGuestInfo` and the CRM webhooks of app/livechat);
`guide` is the shape that Rocket.Chat's guide documents, with what current servers add after the documented members.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from daemon.compose import documents, json_text
from daemon.compose.files import file_url, protected
from daemon.compose.user_agent import parse_user_agent
from daemon.model import Document, EventType, Profile

_ABSENT: Any = object()  # JavaScript's undefined: the member vanishes


@dataclass(frozen=True, slots=True)
class Context:
    """Everything about an event but its transcript, as it was when the event happened.

    `settings` are Rocket.Chat's by name; `department` is the name of the visitor's department where it is known.
    """

    type: EventType
    room: Document
    visitor: Document
    agent: Document | None
    settings: Document
    department: str | None = None


def build(profile: Profile, context: Context, messages: Sequence[Document], uploads: Mapping[str, Document]) -> dict[str, Any]:
    """The payload of a session event. `messages` are candidates in order of `ts`; what Rocket.Chat leaves out is left out
    here.
    """
    exported = [_Message(message, context, uploads) for message in messages if _exported(message, context.settings)]
    if profile is Profile.NATIVE:
        return _native(context, exported)
    return _guide(context, exported)


def build_offline(*, sent_at: datetime, name: str | None, email: str, message: str) -> dict[str, Any]:
    """The payload of an offline message, the same in both profiles."""
    visitor = _known(("name", name), ("email", email))
    return {"type": EventType.OFFLINE_MESSAGE.value, "sentAt": sent_at, "visitor": visitor, "message": message}


def _exported(message: Document, settings: Document) -> bool:
    kind = message.get("t")
    if message.get("_hidden") is True:
        return False
    if kind == "livechat_navigation_history":
        return settings.get(documents.NAVIGATION_AS_MESSAGE) is True and settings.get(documents.NAVIGATION_IN_WEBHOOK) is True
    return not kind or kind == "livechat-close"


def _native(context: Context, messages: Iterable[_Message]) -> dict[str, Any]:
    room, visitor = context.room, context.visitor
    user_agent = parse_user_agent(str(visitor.get("userAgent") or ""))
    guest = _present(
        *_stored(visitor, "_id", "token", "name", "username", "department", "ip"),
        ("os", user_agent.os or _ABSENT),
        ("browser", user_agent.browser or _ABSENT),
        *_stored(visitor, customFields="livechatData"),
        ("email", visitor.get("visitorEmails") or _ABSENT),
        ("phone", visitor.get("phone") or _ABSENT),
    )
    return _present(
        *_stored(room, "_id"),
        ("label", room.get("fname") or room.get("label", _ABSENT)),
        *_stored(room, "topic", createdAt="ts", lastMessageAt="lm"),
        *_stored(room, "tags", customFields="livechatData"),
        ("visitor", guest),
        ("agent", _native_agent(context)),
        ("crmData", room.get("crmData") or _ABSENT),
        ("type", context.type.value),
        ("messages", [message.native() for message in messages]),
        *_additional(context),
    )


def _native_agent(context: Context) -> Any:
    agent = context.agent
    if agent is None:
        return _ABSENT
    return _present(
        *_stored(agent, "_id", "username", "name"),
        ("customFields", _agent_fields(context)),
        ("email", _agent_email(agent)),
    )


def _guide(context: Context, messages: Iterable[_Message]) -> dict[str, Any]:
    room, visitor, agent = context.room, context.visitor, context.agent
    user_agent = parse_user_agent(str(visitor.get("userAgent") or ""))
    guest = _known(
        *_stored(visitor, "_id", "name", "username"),
        ("department", context.department or visitor.get("department")),
        ("email", _first(visitor.get("visitorEmails"), "address")),
        ("phone", _first(visitor.get("phone"), "phoneNumber")),
        ("ip", visitor.get("ip")),
        ("browser", user_agent.browser),
        ("os", user_agent.os),
        *_stored(visitor, customFields="livechatData"),
        *_stored(visitor, "token"),
    )
    served: Any = _ABSENT
    if agent is not None:
        fields = _stored(agent, "_id", "username", "name")
        served = _known(*fields, ("email", _agent_email(agent)), ("customFields", _agent_fields(context)))
    return _known(
        ("type", context.type.value),
        *_stored(room, "_id"),
        ("label", room.get("fname") or room.get("label")),
        *_stored(room, "topic", "code", createdAt="ts", lastMessageAt="lm"),
        *_stored(room, "tags", customFields="livechatData"),
        ("visitor", guest),
        ("agent", served),
        ("messages", [message.guide() for message in messages]),
        ("crmData", room.get("crmData") or _ABSENT),
        *_additional(context),
    )


def _additional(context: Context) -> list[tuple[str, Any]]:
    match context.type:
        case EventType.SESSION_START:
            return _stored(context.room, "departmentId")
        case EventType.SESSION_TAKEN:
            return _stored(context.room, "departmentId", "servedBy")
        case EventType.SESSION:
            return _stored(context.room, "departmentId", "servedBy", "closedAt", "closedBy", "closer")
        case EventType.MESSAGE | EventType.OFFLINE_MESSAGE:
            return []


def _agent_fields(context: Context) -> Any:
    """The agent's custom fields whose definition says `sendToIntegrations`."""
    values = (context.agent or {}).get("customFields")
    if not isinstance(values, Mapping):
        return _ABSENT
    try:
        definitions = orjson.loads(str(context.settings.get(documents.AGENT_FIELDS) or "{}"))
    except orjson.JSONDecodeError:
        return {}
    exported = definitions if isinstance(definitions, dict) else {}
    return {
        name: value
        for name, value in values.items()
        if isinstance(exported.get(name), dict) and exported[name].get("sendToIntegrations") is True
    }


def _agent_email(agent: Document) -> Any:
    return _first(agent.get("emails"), "address")


@dataclass(frozen=True, slots=True)
class _Message:
    """One entry of `messages`."""

    message: Document
    context: Context
    uploads: Mapping[str, Document]

    def native(self) -> dict[str, Any]:
        """As a current server sends it."""
        message = self.message
        return _present(
            *_stored(message, "u", "_id"),
            *_stored(self._author(), "username"),
            ("msg", self._text()),
            ("blocks", message.get("blocks") or _ABSENT),
            *_stored(message, "ts", "rid"),
            ("editedAt", self._edited_at()),
            ("agentId", self._agent_id()),
            *self._extras(),
            *_stored(message, "_updatedAt"),
        )

    def guide(self) -> dict[str, Any]:
        """As the guide documents it, `msg` always present, then what current servers add."""
        message = self.message
        text = self._text()
        return _known(
            *_stored(self._author(), "username"),
            ("agentId", self._agent_id()),
            ("msg", "" if text is _ABSENT else text),
            *_stored(message, "ts", "_id", "u", "rid"),
            ("blocks", message.get("blocks") or _ABSENT),
            *self._extras(),
            ("editedAt", self._edited_at()),
        )

    def _author(self) -> Document:
        author = self.message.get("u")
        return author if isinstance(author, Mapping) else {}

    def _text(self) -> Any:
        """The text; of a message without one the JSON of its blocks; absent when it has neither."""
        if self.message.get("msg"):
            return self.message["msg"]
        blocks = self.message.get("blocks")
        return json_text.text(blocks) if isinstance(blocks, list) else _ABSENT

    def _agent_id(self) -> Any:
        author = self._author()
        if author.get("username") == self.context.visitor.get("username"):
            return _ABSENT
        return author.get("_id", _ABSENT)

    def _edited_at(self) -> Any:
        editor, at = self.message.get("editedBy"), self.message.get("editedAt")
        known = isinstance(editor, Mapping) and isinstance(editor.get("_id"), str)
        return at if isinstance(at, datetime) and known else _ABSENT

    def _extras(self) -> list[tuple[str, Any]]:
        message = self.message
        extras = _stored(message, "navigation")
        if message.get("t") == "livechat-close":
            extras.append(("closingMessage", True))
        if isinstance(message.get("file"), Mapping):
            extras += [*_stored(message, "file", "attachments"), ("fileUpload", self._file_upload())]
        return extras

    def _file_upload(self) -> Any:
        message, settings = self.message, self.context.settings
        if message.get("fileUpload"):
            return message["fileUpload"]
        upload = self.uploads.get(str(message["file"].get("_id")))
        if upload is None:
            return _ABSENT
        link: Any = file_url(str(settings.get(documents.SITE_URL) or ""), upload)
        if settings.get(documents.PROTECT_FILES) is True and settings.get(documents.FILE_TOKENS) is True:
            author = str(self._author().get("_id") or "")
            link = protected(link, room=str(message.get("rid")), user=author, file=str(upload["_id"]))
        return _present(("publicFilePath", link), *_stored(upload, "type", "size"))


def file_ids(messages: Iterable[Document]) -> set[str]:
    """The uploads whose rows `build` needs for these messages."""
    return {
        str(message["file"]["_id"])
        for message in messages
        if isinstance(message.get("file"), Mapping) and message["file"].get("_id") and not message.get("fileUpload")
    }


def _stored(document: Document, *names: str, **renamed: str) -> list[tuple[str, Any]]:
    """Members as stored, null included; `member="field"` renames."""
    members = {**{name: name for name in names}, **renamed}
    return [(member, document.get(name, _ABSENT)) for member, name in members.items()]


def _present(*members: tuple[str, Any]) -> dict[str, Any]:
    """The members that are there: what a server sends, which keeps a stored null."""
    return {name: value for name, value in members if value is not _ABSENT}


def _known(*members: tuple[str, Any]) -> dict[str, Any]:
    """The members that have a value: the guide knows no nulls."""
    return {name: value for name, value in members if value is not _ABSENT and value is not None}


def _first(entries: Any, member: str) -> Any:
    """A member of the first entry; absent where there is none."""
    if isinstance(entries, list) and entries and isinstance(entries[0], Mapping):
        return entries[0].get(member, _ABSENT)
    return _ABSENT
