"""What travels between the stages: frozen values, no behaviour beyond their own meaning.

Those that are made for every change, event or attempt are tuples: a frozen dataclass takes four times as long to make.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from bson.timestamp import Timestamp

Document = Mapping[str, Any]

TOKEN_HEADER = "X-RocketChat-Livechat-Token"  # noqa: S105 - the name of a header
"""Carries the token that Rocket.Chat and its receivers share."""


class EventType(StrEnum):
    """The `type` of a webhook, as Rocket.Chat spells it."""

    SESSION_START = "LivechatSessionStart"
    SESSION_QUEUED = "LivechatSessionQueued"
    SESSION_TAKEN = "LivechatSessionTaken"
    SESSION_FORWARDED = "LivechatSessionForwarded"
    SESSION = "LivechatSession"
    EDIT = "LivechatEdit"
    MESSAGE = "Message"
    LEAD = "LeadCapture"
    OFFLINE_MESSAGE = "LivechatOfflineMessage"


class Profile(StrEnum):
    """The shape of a payload: as the public guide documents it, or as a current server sends it."""

    GUIDE = "guide"
    NATIVE = "native"


@dataclass(frozen=True, slots=True)
class Position:
    """A place in the change stream: after `token`, or, before there is one, from `cluster_time` on."""

    cluster_time: Timestamp
    token: Document | None = None


class Change(NamedTuple):
    """One change event. Keys of `updated` and entries of `removed` are dotted paths, as MongoDB gives them.

    `updated_at` is the `_updatedAt` that an update sets: when it was made, by Rocket.Chat's clock.
    """

    collection: str
    operation: Literal["insert", "update", "replace", "delete"]
    id: Any
    cluster_time: Timestamp
    wall_time: datetime
    document: Document | None = None
    updated: Document = MappingProxyType({})
    removed: Sequence[str] = ()
    truncated: Sequence[Document] = ()
    updated_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """Changes in stream order and the position after them; `idle` when the server had nothing more to give. `server_time` is the
    cluster time of the newest write when the server gave it.
    """

    changes: tuple[Change, ...]
    position: Position
    idle: bool
    server_time: Timestamp | None = None

    @property
    def behind_s(self) -> int:
        """How far the position was behind the newest write."""
        if self.server_time is None:
            return 0
        return max(0, self.server_time.time - self.position.cluster_time.time)


class Body(NamedTuple):
    """A payload as it will be sent.

    `files` lists where a file link still lacks its token, as `(offset in bytes, room id, user id, file id)`, rising by offset:
    a token lives for an hour, so it is made for each attempt and never stored. `answer` is the place (start and end) of the
    member `crmData`, where an endpoint's own last answer goes.
    """

    content: bytes
    files: tuple[tuple[int, str, str, str], ...] = ()
    answer: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class Intent:
    """An event that took its place in its lane but has no body yet.

    `context` is everything but the transcript that its payload needs (BSON). `completed` is the cluster time of the change that
    completes it (None: it waits for one), `cut` the latest `ts` of a message that belongs to its transcript, `profiles` the
    shapes that are owed.
    """

    event_id: str
    session: str
    started: Timestamp
    completed: Timestamp | None
    cut: datetime
    context: bytes
    profiles: tuple[Profile, ...] = ()


@dataclass(frozen=True, slots=True)
class IntentUpdate:
    """A later change spoke of an intent: it is complete now, or `context` has what is known so far (None: as before)."""

    event_id: str
    completed: Timestamp | None
    cut: datetime
    context: bytes | None = None


@dataclass(frozen=True, slots=True)
class Pairing:
    """Something that can arrive by two ways counts once: the first arrival is the event, its twin by the other `way` is dropped.

    Twins have the same `key` and times `at` that are close; the n-th of one way pairs with the n-th of the other.
    """

    way: str
    key: str
    at: datetime


class NewEvent(NamedTuple):
    """An event for `endpoints` (each with its profile): with its bodies, as an intent, or skipped for a reason.

    `type` is that of the webhook, or `Change` for a change that could not be understood. `recovered`: made from stored data, not
    from a change.
    """

    id: str
    type: str
    session: str
    happened_at: datetime
    endpoints: Mapping[str, Profile]
    bodies: Mapping[Profile, Body] = MappingProxyType({})
    intent: Intent | None = None
    skipped: str | None = None
    pairing: Pairing | None = None
    recovered: bool = False


@dataclass(frozen=True, slots=True)
class StateRow:
    """A folded document to keep with the outbox; `document` None forgets it."""

    kind: str
    id: str
    document: Document | None


@dataclass(frozen=True, slots=True)
class Commit:
    """What one batch of changes means, kept in one commit: the events, what became of earlier ones, state, position."""

    position: Position
    events: tuple[NewEvent, ...] = ()
    intent_updates: tuple[IntentUpdate, ...] = ()
    states: tuple[StateRow, ...] = ()


class Delivery(NamedTuple):
    """One attempt that is already counted: `attempt` is its number, `failures` how many before it had a failing outcome.

    `answer` (JSON) is the endpoint's last answer in this session, which the payload returns. `recorded_at` is when the event
    entered the outbox, `round_at` when its present round of tries began. `probe`: it finds out whether an endpoint that is
    down is back.
    """

    endpoint: str
    sequence: int
    event_id: str
    type: str
    session: str
    attempt: int
    failures: int
    happened_at: datetime
    recorded_at: datetime
    round_at: datetime
    body: Body
    answer: bytes | None = None
    probe: bool = False
    recovered: bool = False


class Answered(NamedTuple):
    """The endpoint answered; `answer` is the bounded beginning of its body."""

    status: int
    answer: bytes
    duration_s: float
    retry_after: str | None = None


@dataclass(frozen=True, slots=True)
class TimedOut:
    """The endpoint did not answer in time."""

    duration_s: float


@dataclass(frozen=True, slots=True)
class Unreachable:
    """No connection, a broken one, or an answer that is not HTTP."""

    error: str
    duration_s: float


@dataclass(frozen=True, slots=True)
class Broken:
    """The attempt failed in the relay itself, before or after the endpoint; `counts` as a failed try, or not."""

    error: str
    duration_s: float
    counts: bool = True


Outcome = Answered | TimedOut | Unreachable | Broken


@dataclass(frozen=True, slots=True)
class Delivered:
    """The event is done at this endpoint."""


@dataclass(frozen=True, slots=True)
class RetryAt:
    """The next attempt is due at `due`."""

    due: datetime


@dataclass(frozen=True, slots=True)
class Suspended:
    """The endpoint is down: the event keeps its place, and its tries, until the endpoint is up again."""

    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """No further attempt is made; kept with its payload and its history."""

    reason: str


Verdict = Delivered | RetryAt | Suspended | Dead


class Recorded(NamedTuple):
    """What an attempt that was made at `started_at` meant, to be kept: the outcome, the verdict, the answer (JSON) that later
    payloads return, and how long an endpoint that is down is left alone.
    """

    started_at: datetime
    outcome: Outcome
    verdict: Verdict
    answer: bytes | None
    probe_every_s: float


class EndpointState(NamedTuple):
    """What is remembered of an endpoint. `down_since` None: it is up."""

    down_since: datetime | None
    last_success_at: datetime | None


@dataclass(frozen=True, slots=True)
class Watch:
    """What of one collection matters: only this leaves MongoDB.

    `fields` are top-level fields or `parent.child`; an update is read when it touches one of them. `ids` narrows to these
    documents, `update_sets` to updates that set this field.
    """

    collection: str
    operations: tuple[str, ...]
    fields: tuple[str, ...]
    ids: tuple[str, ...] | None = None
    update_sets: str | None = None
