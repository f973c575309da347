"""The JSON Schema of each payload, made from the tables that build it."""

from __future__ import annotations

from typing import Any

from daemon.compose.payload.offline import OFFLINE_SHAPE
from daemon.compose.payload.session import session_shape
from daemon.model import EventType, Profile


def payload_schema(event_type: EventType, profile: Profile, version: str | None = None) -> dict[str, Any]:
    """The schema of an event of a server of this version; None: of the newest."""
    shape = OFFLINE_SHAPE if event_type is EventType.OFFLINE_MESSAGE else session_shape(profile, event_type, version)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"{event_type.value}, profile {profile.value}",
        **shape.schema(),
    }
