"""What differs between releases of Rocket.Chat, from 6.0 on, as one table. Read in the source of the releases named."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

OLDEST = (6, 0)
_ALWAYS = (0, 0)
_NEVER = (10_000, 0)
_NEWEST = (9_999, 0)


@dataclass(frozen=True, slots=True)
class Behaviour:
    """What a server of some release does."""

    queued_for_every_new_room: bool
    """Queued comes for every new room, also when an agent is assigned at once."""
    queued_as_created: bool
    """Queued of a new room tells it as it was created, though other writes come before the queue entry."""
    closing_comment_is_message: bool
    """The closing comment comes as a `Message` too."""
    department_on_start: bool
    """`departmentId` is on LivechatSessionStart; before, a wrong case label hid it."""
    contact_early_and_null: bool
    """`email` and `phone` follow `username`, and are null when the visitor or agent has none."""
    message_origin: bool
    """Entries of `messages` have `rid` and `_updatedAt`, and `editedAt` only beside an editor."""
    token_names_room: bool
    """The token in a file link names the room."""


# From the first release to before the second.
_SWITCHES: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "queued_for_every_new_room": (_ALWAYS, (6, 11)),
    "queued_as_created": ((6, 11), (7, 0)),
    "closing_comment_is_message": (_ALWAYS, (6, 12)),
    "department_on_start": ((6, 7), _NEVER),
    "contact_early_and_null": (_ALWAYS, (6, 6)),
    "message_origin": ((6, 2), _NEVER),
    "token_names_room": ((6, 2), _NEVER),
}


@lru_cache(maxsize=64)
def behaviour(version: str | None) -> Behaviour:
    """The behaviour of a release such as `6.5.3`; None or a text that is no version: the newest known."""
    release = parse(version) or _NEWEST
    return Behaviour(**{name: since <= release < until for name, (since, until) in _SWITCHES.items()})


def parse(version: str | None) -> tuple[int, int] | None:
    """Major and minor of `6.5.3` or `7.0.0-develop`; None for anything else."""
    match = re.match(r"(\d{1,3})\.(\d{1,3})(?:\D|$)", version or "")
    return (int(match[1]), int(match[2])) if match else None
