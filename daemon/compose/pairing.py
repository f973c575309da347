"""One offline message can arrive by two ways: as a post in a channel and through the intake. What makes two arrivals the
same one.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum

from daemon.compose.payload.offline import OfflinePost
from daemon.model import Pairing


class Way(StrEnum):
    """How an offline message arrived."""

    CHANNEL = "channel"
    INTAKE = "intake"


def pairing(way: Way, post: OfflinePost) -> Pairing:
    """Arrivals pair when sender and text are equal; blanks at the ends do not count, since a channel post loses them."""
    # A visitor without a name is `undefined` in the post.
    parts = (post.name or "", post.email or "", post.message)
    digest = hashlib.sha256("\0".join(part.strip() for part in parts).encode("utf-8", "surrogatepass")).hexdigest()
    return Pairing(way.value, digest, post.sent_at)
