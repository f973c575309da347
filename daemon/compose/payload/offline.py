"""The payload of an offline message, the same in both profiles and all releases."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from daemon.compose.payload.members import DATE, TEXT, Member, Shape
from daemon.model import EventType


@dataclass(frozen=True, slots=True)
class OfflinePost:
    """An offline message as its webhook tells it."""

    sent_at: datetime
    name: str | None
    email: str | None
    message: str


_VISITOR = Shape[OfflinePost](
    (Member("name", lambda post: post.name, TEXT), Member("email", lambda post: post.email, TEXT)), nulls=False
)
OFFLINE_SHAPE = Shape[OfflinePost](
    (
        Member("type", lambda _: EventType.OFFLINE_MESSAGE.value, {"const": EventType.OFFLINE_MESSAGE.value}, required=True),
        Member("sentAt", lambda post: post.sent_at, DATE, required=True),
        Member("visitor", _VISITOR.build, _VISITOR.schema(), required=True),
        Member("message", lambda post: post.message, TEXT, required=True),
    ),
    nulls=False,
)


def build_offline(post: OfflinePost) -> dict[str, Any]:
    """The payload of `post`."""
    return OFFLINE_SHAPE.build(post)
