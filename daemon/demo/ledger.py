"""What must arrive: every event that was written, when, and in which order within its session."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from daemon.clock import Clock


@dataclass(slots=True)
class Entry:
    """One event. `written_at` is None until MongoDB has acknowledged it (majority); only then it must arrive."""

    id: str
    session: str
    place: int
    written_at: datetime | None = None

    @property
    def type(self) -> str:
        """The event's type."""
        return self.id.partition(":")[0]


class Ledger:
    """The events by id and by session, in the order in which they were written."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.entries: dict[str, Entry] = {}
        self.sessions: dict[str, list[Entry]] = {}

    @contextmanager
    def writing(self, event_id: str, session: str) -> Iterator[None]:
        """Around the write that makes or completes the event. If it raises, the event may or may not arrive."""
        of_session = self.sessions.setdefault(session, [])
        entry = Entry(event_id, session, len(of_session))
        self.entries[event_id] = entry
        of_session.append(entry)
        yield
        entry.written_at = self._clock.now()

    @property
    def owed(self) -> list[Entry]:
        """What must arrive."""
        return [entry for entry in self.entries.values() if entry.written_at is not None]


class Request(Protocol):
    """What is judged: one request that a receiver got."""

    @property
    def event_id(self) -> str: ...
    @property
    def at(self) -> datetime: ...
    @property
    def accepted(self) -> bool: ...


@dataclass(slots=True)
class Judgement:
    """What became of the ledger.

    Latencies are in seconds, sorted: from the acknowledged write to the first request that was accepted.
    """

    written: int
    delivered: int = 0
    missing: list[str] = field(default_factory=list)
    out_of_order: list[str] = field(default_factory=list)
    retried: int = 0
    failed_requests: int = 0
    duplicates: int = 0
    strangers: list[str] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)

    def latency_s(self, share: float) -> float:
        """The latency that `share` of the delivered events do not exceed; 0 when there are none."""
        if not self.latencies_s:
            return 0.0
        return self.latencies_s[min(len(self.latencies_s) - 1, int(share * len(self.latencies_s)))]


def judge(ledger: Ledger, requests: Iterable[Request]) -> Judgement:
    """Compare the ledger with the requests, given in the order of their answers.

    An event is out of order when a later one of its session was accepted before it; a duplicate is a request accepted
    although the event had been accepted before; a stranger is an accepted event that the ledger does not know.
    """
    owed = ledger.owed
    result = Judgement(written=len(owed))
    first: dict[str, datetime] = {}
    failed: set[str] = set()
    furthest: dict[str, int] = {}
    for request in requests:
        entry = ledger.entries.get(request.event_id)
        if not request.accepted:
            result.failed_requests += 1
            failed.add(request.event_id)
        elif request.event_id in first:
            result.duplicates += 1
        else:
            first[request.event_id] = request.at
            if entry is None:
                result.strangers.append(request.event_id)
            elif entry.place < furthest.get(entry.session, -1):
                result.out_of_order.append(entry.id)
            else:
                furthest[entry.session] = entry.place
    result.retried = len(failed & first.keys())
    for entry in owed:
        if entry.id in first and entry.written_at is not None:
            result.latencies_s.append(max(0.0, (first[entry.id] - entry.written_at).total_seconds()))
        elif entry.id not in first:
            result.missing.append(entry.id)
    result.latencies_s.sort()
    result.delivered = len(result.latencies_s)
    return result
