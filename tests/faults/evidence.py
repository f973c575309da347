"""What is known after a run, as plain data: the checker judges it, the story tells it. Times are the driver's own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field


@dataclass(slots=True)
class Request:
    """One request that a receiver got whole. `status` None: no status line went out. `accepted`: it counts as done."""

    endpoint: str
    event_id: str
    attempt: int
    sequence: int
    body: bytes
    arrived: float
    status: int | None = None
    accepted: bool = False
    answered: float | None = None
    answer_spoilt: bool = False  # on purpose: the relay cannot know that it was accepted


@dataclass(frozen=True, slots=True)
class Written:
    """An event that the traffic made. `at` None: MongoDB never acknowledged it, so it may or may not arrive."""

    event_id: str
    session: str
    place: int
    at: float | None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A row of the record of attempts."""

    endpoint: str
    event_id: str
    number: int
    outcome: str
    status: int | None
    error: str | None

    @property
    def failed(self) -> bool:
        """Whether it counts as a failed try. What the relay itself lacked for a moment does not."""
        if self.error is not None and self.error.startswith("the secret for file links"):
            return False
        return self.outcome in ("timeout", "unreachable", "broken") or (self.outcome == "answered" and self.status != 200)


@dataclass(frozen=True, slots=True)
class Row:
    """A delivery as the outbox has it at the end."""

    endpoint: str
    event_id: str
    session: str
    state: str
    attempts: int
    failures: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class Ending:
    """A process of the relay ended. `cuts_off`: requests may have been in flight."""

    at: float
    how: str
    cuts_off: bool


@dataclass(slots=True)
class Disturbance:
    """From `begin` to `end` answers may not have reached the relay in time; `endpoint` None: any."""

    kind: str
    begin: float
    end: float
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class Rules:
    """What an endpoint is configured to."""

    tries: int
    concurrency: int
    timeout_s: float
    final: tuple[int, ...] = ()


@dataclass(slots=True)
class Evidence:
    """All of it. `verdicts` are from the relay's log: (endpoint, event, attempt) to retry, suspended or dead."""

    rules: dict[str, Rules]
    written: dict[str, Written] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    attempts: list[Attempt] = field(default_factory=list)
    verdicts: dict[tuple[str, str, int], str] = field(default_factory=dict)
    endings: list[Ending] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)
    poisoned: set[tuple[str, str]] = field(default_factory=set)
    odd: list[str] = field(default_factory=list)
    moments: list[tuple[float, str]] = field(default_factory=list)

    def disturbed(self, endpoint: str, begin: float, end: float) -> bool:
        """Whether answers of `endpoint` may have been lost between these times."""
        return any(
            found.endpoint in (None, endpoint) and found.begin <= end and begin <= found.end for found in self.disturbances
        )


@dataclass(frozen=True, slots=True)
class Violation:
    """A broken promise; `event_id` empty when it is not about one event."""

    kind: str
    text: str
    endpoint: str = ""
    event_id: str = ""


def by_event(requests: Iterable[Request]) -> dict[tuple[str, str], list[Request]]:
    """Requests by endpoint and event, in the order of their arrival."""
    found: dict[tuple[str, str], list[Request]] = {}
    for request in requests:
        found.setdefault((request.endpoint, request.event_id), []).append(request)
    return found
