"""The entries of `messages`.

The facts are those of Rocket.Chat's sendMessageType and the CRM webhooks in app/livechat and later.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

from daemon.compose import documents, json_text
from daemon.compose.files import file_link
from daemon.compose.json_text import ABSENT
from daemon.compose.payload.context import Context
from daemon.compose.payload.members import (
    DATE,
    LIST,
    NUMBER,
    OBJECT,
    TEXT,
    Member,
    Shape,
    stored,
)  # fmt: skip
from daemon.compose.versions import Behaviour, behaviour
from daemon.model import Document, Profile


class Entry(NamedTuple):
    """One message, with what surrounds it."""

    message: Document
    context: Context
    uploads: Mapping[str, Document]


def exported(message: Document, settings: Document) -> bool:
    """Whether Rocket.Chat lists this message: page views by two settings, of the system messages only the closing one."""
    kind = message.get("t")
    if message.get("_hidden") is True:
        return False
    if kind == "livechat_navigation_history":
        return settings.get(documents.NAVIGATION_AS_MESSAGE) is True and settings.get(documents.NAVIGATION_IN_WEBHOOK) is True
    return not kind or kind == "livechat-close"


def file_ids(messages: Iterable[Document]) -> set[str]:
    """The uploads whose rows are needed to build these messages."""
    return {
        str(message["file"]["_id"])
        for message in messages
        if isinstance(message.get("file"), dict) and message["file"].get("_id") and not message.get("fileUpload")
    }


@lru_cache(maxsize=16)
def message_shape(profile: Profile, version: str | None) -> Shape[Entry]:
    """The shape of one entry."""
    return Shape(_guide(), nulls=False) if profile is Profile.GUIDE else Shape(_native(behaviour(version)), nulls=True)


def _message(entry: Entry) -> Document:
    return entry.message


def _author(entry: Entry) -> Document:
    author = entry.message.get("u")
    return author if isinstance(author, dict) else {}


def _text(entry: Entry) -> Any:
    """The text; of a message without one the JSON of its blocks; absent when it has neither."""
    text = entry.message.get("msg")
    if text:
        return text
    blocks = entry.message.get("blocks")
    return json_text.text(blocks) if isinstance(blocks, list) else ABSENT


def _agent_id(entry: Entry) -> Any:
    """The author's id unless the author is the visitor, by the visitor's present username."""
    author = _author(entry)
    if author.get("username") == entry.context.visitor.get("username"):
        return ABSENT
    return author.get("_id", ABSENT)


def _edited_at(entry: Entry) -> Any:
    editor, at = entry.message.get("editedBy"), entry.message.get("editedAt")
    known = isinstance(editor, Mapping) and isinstance(editor.get("_id"), str)
    return at if isinstance(at, datetime) and known else ABSENT


def _closing(entry: Entry) -> Any:
    return True if entry.message["t"] == "livechat-close" else ABSENT


def _with_file(entry: Entry, field: str) -> Any:
    """Attachments are sent only beside a file."""
    return entry.message.get(field, ABSENT) if entry.message.get("file") else ABSENT


def _file_upload(entry: Entry) -> Any:
    message, settings = entry.message, entry.context.settings
    if not isinstance(message.get("file"), Mapping):
        return ABSENT
    if message.get("fileUpload"):
        return message["fileUpload"]
    upload = entry.uploads.get(str(message["file"].get("_id")))
    if upload is None:
        return ABSENT
    link = file_link(
        str(settings.get(documents.SITE_URL) or ""),
        upload,
        room=str(message.get("rid")) if entry.context.behaviour.token_names_room else "",
        user=str(_author(entry).get("_id") or ""),
        token=settings.get(documents.PROTECT_FILES) is True and settings.get(documents.FILE_TOKENS) is True,
    )
    return {"publicFilePath": link} | {name: upload[name] for name in ("type", "size") if name in upload}


_USERNAME = stored("username", TEXT, _author)
_AGENT_ID = Member[Entry]("agentId", _agent_id, TEXT)
_BLOCKS = Member[Entry]("blocks", lambda entry: entry.message["blocks"] or ABSENT, LIST, part=_message, field="blocks")
_EDITED_AT = Member[Entry]("editedAt", _edited_at, DATE, part=_message, field="editedAt")
_UPLOAD_SCHEMA = Shape[Entry](
    (
        Member("publicFilePath", lambda _: ABSENT, TEXT),
        Member("type", lambda _: ABSENT, TEXT),
        Member("size", lambda _: ABSENT, NUMBER),
    ),
    nulls=True,
).schema()
_EXTRAS: tuple[Member[Entry], ...] = (
    stored("navigation", OBJECT, _message),
    Member("closingMessage", _closing, {"const": True}, part=_message, field="t"),
    Member("file", lambda entry: _with_file(entry, "file"), OBJECT, stored=True, part=_message, field="file"),
    Member("attachments", lambda entry: _with_file(entry, "attachments"), LIST, stored=True, part=_message, field="file"),
    Member("fileUpload", _file_upload, {**_UPLOAD_SCHEMA, "additionalProperties": True}, part=_message, field="file"),
)


def _native(server: Behaviour) -> tuple[Member[Entry], ...]:
    edited_at = _EDITED_AT if server.message_origin else stored("editedAt", DATE, _message)
    rid: tuple[Member[Entry], ...] = (stored("rid", TEXT, _message),)
    updated_at: tuple[Member[Entry], ...] = (stored("_updatedAt", DATE, _message),)
    return (
        stored("u", OBJECT, _message),
        stored("_id", TEXT, _message, required=True),
        _USERNAME,
        Member("msg", _text, TEXT, stored=True),
        _BLOCKS,
        stored("ts", DATE, _message, required=True),
        *(rid if server.message_origin else ()),
        edited_at,
        _AGENT_ID,
        *_EXTRAS,
        *(updated_at if server.message_origin else ()),
    )


def _guide() -> tuple[Member[Entry], ...]:
    """As documented, with `msg` always there; then what current servers add."""
    return (
        _USERNAME,
        _AGENT_ID,
        Member("msg", lambda entry: "" if (text := _text(entry)) is ABSENT or text is None else text, TEXT, required=True),
        stored("ts", DATE, _message, required=True),
        stored("_id", TEXT, _message, required=True),
        stored("u", OBJECT, _message),
        stored("rid", TEXT, _message),
        _BLOCKS,
        *_EXTRAS,
        _EDITED_AT,
    )
