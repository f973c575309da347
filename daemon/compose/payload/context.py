"""Everything that the payload of an event needs but the messages, and how an intent keeps it."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import bson

from daemon.compose.versions import Behaviour, behaviour
from daemon.model import Document, EventType
from daemon.mongo import CODEC


class Context(NamedTuple):
    """The documents as they were when the event happened.

    `settings` are Rocket.Chat's by name, `department` is the name of the visitor's department where it is known, `version` is the
    server's. `extra` holds what only this event has: `oldServedBy`, `oldDepartmentId`. `message` is the one message of the
    payload; with `transcript` it is the whole room instead, and with neither there is none.
    """

    type: EventType
    room: Document
    visitor: Document
    agent: Document | None
    settings: Document
    version: str | None = None
    department: str | None = None
    extra: Document = MappingProxyType({})
    message: Document | None = None
    transcript: bool = False

    @property
    def behaviour(self) -> Behaviour:
        """What the server's release does."""
        return behaviour(self.version)


def encode_context(context: Context, notes: Document | None = None) -> bytes:
    """A context as an intent keeps it, without the marks on its documents; `notes` is for the one who waits."""
    stored: dict[str, Any] = context._asdict()
    for name in ("room", "visitor"):
        stored[name] = {key: value for key, value in stored[name].items() if not key.startswith("~")}
    return bson.encode({**stored, "type": context.type.value, "notes": dict(notes or {})})


def decode_context(data: bytes) -> tuple[Context, Mapping[str, Any]]:
    """The context and the notes."""
    stored = bson.decode(data, codec_options=CODEC)
    notes: Mapping[str, Any] = stored.pop("notes", {})
    return Context(**{**stored, "type": EventType(stored["type"])}), notes
