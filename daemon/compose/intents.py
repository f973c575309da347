"""Events that took their place but wait for a later change: what they wait for, and how long.

Time here is stream time, so that a relay that catches up after a night still sees the closing message first: an intent is
overdue when the stream was read beyond its start plus `settle`, or when the server had nothing more to give and `settle` has
passed since then.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from bson.timestamp import Timestamp

from daemon.model import Batch, Completion, Intent


@dataclass(slots=True)
class _Waiting:
    event_id: str
    session: str
    started: Timestamp
    cut: datetime
    idle_since: float | None = None


class OpenIntents:
    """The intents that wait for a change, in the order of their start."""

    def __init__(self, settle: timedelta) -> None:
        self._settle = settle
        self._waiting: dict[str, _Waiting] = {}

    def add(self, intent: Intent) -> None:
        """Wait for the completing change of `intent`."""
        self._waiting[intent.event_id] = _Waiting(intent.event_id, intent.session, intent.started, intent.cut)

    def complete(self, session: str, at: Timestamp, cut: datetime) -> Completion | None:
        """The oldest intent of `session` is completed by a change at `at`; None when none waits."""
        for waiting in self._waiting.values():
            if waiting.session == session:
                del self._waiting[waiting.event_id]
                return Completion(waiting.event_id, at, max(waiting.cut, cut))
        return None

    def overdue(self, batch: Batch, monotonic: float) -> Iterable[Completion]:
        """The intents that waited long enough; call after each batch."""
        for waiting in list(self._waiting.values()):
            limit = Timestamp(waiting.started.time + int(self._settle.total_seconds()) + 1, 0)
            if batch.position.cluster_time > limit:
                yield self._give_up(waiting, limit)
            elif batch.idle:
                if waiting.idle_since is None:
                    waiting.idle_since = monotonic
                elif monotonic - waiting.idle_since >= self._settle.total_seconds():
                    yield self._give_up(waiting, batch.position.cluster_time)

    def _give_up(self, waiting: _Waiting, at: Timestamp) -> Completion:
        del self._waiting[waiting.event_id]
        return Completion(waiting.event_id, max(at, waiting.started), waiting.cut + self._settle)
