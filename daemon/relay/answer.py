"""What later payloads of a session return of an endpoint's answer, as Rocket.Chat does with its field `crmData`. Pure."""

from __future__ import annotations

from typing import Literal

import orjson

from daemon.model import EventType

AnswerMode = Literal["off", "text", "object"]


def answer_to_keep(mode: AnswerMode, event_type: str, body: bytes) -> bytes | None:
    """The JSON to return, empty for nothing; None leaves what was kept before.

    `text`: the whole body, as from 6.2 on; an empty one takes the earlier answer away. `object`: the member `data` of a JSON
    body, as before 6.2. Answers to offline messages are not kept.
    """
    if mode == "off" or event_type == EventType.OFFLINE_MESSAGE:
        return None
    if mode == "text":
        return orjson.dumps(body.decode("utf-8", "replace")) if body else b""
    try:
        parsed = orjson.loads(body)
        data = parsed.get("data") if isinstance(parsed, dict) else None
        return orjson.dumps(data) if data or data in ([], {}) else None
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # no JSON, or nested too deep to be written again
        return None
