"""Events that took their place but wait for a later change: what they wait for, and how long.

Time here is stream time, so that a relay that catches up after a night still sees the closing message first: an intent is
overdue when the stream was read beyond its start plus `settle`, or when the server had nothing more to give and `settle` has
passed since then.

An edit of a closed room is one update of the room (information), one of the visitor, and one of the room's name if the visitor's
name changed, in nearly any order. It is complete when all were seen, or when a second one of the same kind comes: that belongs to
the next edit.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from bson.timestamp import Timestamp

from daemon.compose.payload.context import Context
from daemon.model import Batch


class Part(StrEnum):
    """The parts of an edit."""

    INFORMATION = "information"
    NAME = "name"
    VISITOR = "visitor"


@dataclass(slots=True)
class Waiting:
    """An intent that waits. `context` is as of its start, `parts` what was seen of an edit, `named` whether a new name is due."""

    event_id: str
    session: str
    visitor: str
    started: Timestamp
    cut: datetime
    context: Context
    parts: set[Part] = field(default_factory=set)
    named: bool = False
    idle_since: float | None = None

    @property
    def all_seen(self) -> bool:
        """Whether an edit has all its parts."""
        return Part.VISITOR in self.parts and (not self.named or Part.NAME in self.parts)


class OpenIntents:
    """The intents that wait for a change, in the order of their start."""

    def __init__(self, settle: timedelta) -> None:
        self._settle_s = settle.total_seconds()
        self._waiting: dict[str, Waiting] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, waiting: Waiting) -> None:
        """Wait for the completing change."""
        self._waiting[waiting.event_id] = waiting

    def remove(self, waiting: Waiting) -> None:
        """It is complete."""
        self._waiting.pop(waiting.event_id, None)

    def of_type(self, event_type: str, *, session: str | None = None, visitor: str | None = None) -> Iterator[Waiting]:
        """Those of a type that wait for a change of this session or visitor, oldest first."""
        for waiting in list(self._waiting.values()):
            if (
                waiting.context.type == event_type
                and (session is None or waiting.session == session)
                and (visitor is None or waiting.visitor == visitor)
            ):
                yield waiting

    def sessions(self) -> set[str]:
        """The sessions of those that wait."""
        return {waiting.session for waiting in self._waiting.values()}

    def limit(self, started: Timestamp) -> Timestamp:
        """The stream time at which something that started then is overdue."""
        return Timestamp(started.time + int(self._settle_s) + 1, 0)

    def overdue_at(self, time: Timestamp) -> Iterable[tuple[Waiting, Timestamp]]:
        """Those that waited long enough when the stream has reached `time`, with the moment they are complete as of."""
        if self._waiting:
            for waiting in list(self._waiting.values()):
                limit = self.limit(waiting.started)
                if time > limit:
                    yield waiting, limit

    def overdue_idle(self, batch: Batch, monotonic: float) -> Iterable[tuple[Waiting, Timestamp]]:
        """Those that waited long enough while the server had nothing to give; call after each batch."""
        if not batch.idle:
            return
        for waiting in list(self._waiting.values()):
            if waiting.idle_since is None:
                waiting.idle_since = monotonic
            elif monotonic - waiting.idle_since >= self._settle_s:
                yield waiting, max(batch.position.cluster_time, waiting.started)

    @property
    def settle(self) -> timedelta:
        """How long an intent waits."""
        return timedelta(seconds=self._settle_s)
