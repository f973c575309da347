"""Offline messages that Rocket.Chat's own webhook brings: the only way to have them all without a channel."""

from __future__ import annotations

import hashlib
import json
from datetime import UTC, datetime
from typing import Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, ValidationError

from daemon.compose.json_text import date_text, encode
from daemon.compose.match import Endpoints, Traits
from daemon.compose.pairing import Way, pairing
from daemon.compose.payload.offline import OfflinePost, build_offline
from daemon.model import EventType, NewEvent

_LONGEST_ADDRESS = 1000


class _Visitor(BaseModel):
    model_config = ConfigDict(strict=True)

    name: str | None = None
    email: str | None = None


class _Webhook(BaseModel):
    model_config = ConfigDict(strict=True)

    type: Literal["LivechatOfflineMessage"]
    sentAt: AwareDatetime  # noqa: N815 - the member's name
    visitor: _Visitor
    message: str


class RefusedError(Exception):
    """What came is no offline message; the text says what is wrong with it."""


def _without_half_characters(content: bytes) -> bytes:
    """JavaScript writes half of a surrogate pair as an escape, which is no Unicode text: it becomes U+FFFD."""
    if b"\\ud" not in content.lower():
        return content
    try:
        text = json.dumps(json.loads(content), ensure_ascii=False)
    except (ValueError, RecursionError):
        return content  # refused by the validation, with a reason
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace").encode()


def offline_event(content: bytes, endpoints: Endpoints, received_at: datetime) -> NewEvent:
    """The event of a webhook body. Raises `RefusedError`.

    The id is made from what the body says, so that a repeated webhook is the same event. Its department is not known: filters by
    department let it through rather than lose it.
    """
    try:
        webhook = _Webhook.model_validate_json(_without_half_characters(content))
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, fault['loc'])) or 'body'}: {fault['msg']}" for fault in error.errors(include_input=False)]
        raise RefusedError("; ".join(faults[:5])) from None
    visitor = webhook.visitor
    post = OfflinePost(webhook.sentAt.astimezone(UTC), visitor.name, visitor.email, webhook.message)
    parts = (date_text(post.sent_at), post.name or "", post.email or "", post.message)
    digest = hashlib.sha256("\0".join(parts).encode("utf-8", "surrogatepass")).hexdigest()[:24]
    wanted = endpoints.of(EventType.OFFLINE_MESSAGE, Traits(departments=None, tags=None))
    return NewEvent(
        id=f"{EventType.OFFLINE_MESSAGE}:{digest}",
        type=EventType.OFFLINE_MESSAGE,
        session=f"offline:{digest}",
        happened_at=received_at,
        endpoints=wanted,
        bodies=dict.fromkeys(wanted.values(), encode(build_offline(post))),
        pairing=pairing(Way.INTAKE, post),
    )
