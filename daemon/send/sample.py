"""What Rocket.Chat's button "Send Test" sends, for trying an endpoint."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson

from daemon.model import EventType

SAMPLE_ID = "fasd6f5a4sd6f8a4sdf"
"""The `_id` by which receivers know a test."""

_WITHOUT_AGENT = {EventType.SESSION_START, EventType.SESSION_QUEUED}
_WITH_TRANSCRIPT = {EventType.SESSION, EventType.EDIT}
_WITH_ONE_MESSAGE = {EventType.MESSAGE, EventType.LEAD}


def sample_payload(event_type: EventType, now: datetime) -> bytes:
    """Of `LivechatSession` the sample as Rocket.Chat sends it; of another type with as much of it as such an event has."""
    moment = now.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    if event_type is EventType.OFFLINE_MESSAGE:
        visitor = {"name": "visitor name", "email": "email@address.com"}
        return orjson.dumps({"type": event_type, "sentAt": moment, "visitor": visitor, "message": "message content"})
    session = _session(event_type, moment)
    if event_type in _WITHOUT_AGENT:
        del session["agent"]
    kept = len(session["messages"]) if event_type in _WITH_TRANSCRIPT else int(event_type in _WITH_ONE_MESSAGE)
    del session["messages"][kept:]
    return orjson.dumps(session)


def _session(event_type: EventType, moment: str) -> dict[str, Any]:
    return {
        "type": event_type,
        "_id": SAMPLE_ID,
        "label": "title",
        "topic": "asiodojf",
        "createdAt": moment,
        "lastMessageAt": moment,
        "tags": ["tag1", "tag2", "tag3"],
        "customFields": {"productId": "123456"},
        "visitor": {
            "_id": "",
            "name": "visitor name",
            "username": "visitor-username",
            "department": "department",
            "email": "email@address.com",
            "phone": "192873192873",
            "ip": "123.456.7.89",
            "browser": "Chrome",
            "os": "Linux",
            "customFields": {"customerId": "123456"},
        },
        "agent": {
            "_id": "asdf89as6df8",
            "username": "agent.username",
            "name": "Agent Name",
            "email": "agent@email.com",
        },
        "messages": [
            {"username": "visitor-username", "msg": "message content", "ts": moment},
            {
                "username": "agent.username",
                "agentId": "asdf89as6df8",
                "msg": "message content from agent",
                "ts": moment,
            },
        ],
    }
