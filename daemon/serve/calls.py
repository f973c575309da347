"""What callers of the API give and get. The OpenAPI description is made from these."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from daemon import ops
from daemon.check import findings as check
from daemon.outbox.figures import PositionRow
from daemon.outbox.records import Filter, Place, Record, State
from daemon.serve.health import Part

LARGEST_PAGE = 500


def _moment(value: object) -> object:
    return ops.moment(value) if isinstance(value, str) else value


def _place(value: object) -> object:
    if value is None or isinstance(value, Place):
        return value
    sequence, _, endpoint = str(value).partition(":")
    if not sequence.isascii() or not sequence.isdigit() or len(sequence) > 18:
        raise ValueError("give `next` of the page before, as it is")
    return Place(int(sequence), endpoint)


Moment = Annotated[datetime, BeforeValidator(_moment, json_schema_input_type=str)]
Cursor = Annotated[Place, BeforeValidator(_place, json_schema_input_type=str)]


class Given(BaseModel):
    """What all calls share: unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, arbitrary_types_allowed=True)


class Selection(Given):
    """Which deliveries; what is left out does not narrow."""

    event_id: list[str] = Field(default=[], max_length=500)
    """Of these events."""
    endpoint: str | None = None
    """Of this endpoint."""
    state: list[State] = []
    """In one of these states."""
    type: str | None = None
    """Of this event type."""
    session: str | None = None
    """Of this session (room id)."""
    since: Moment | None = None
    """That happened at or after this time (2026-11-23T08:00:00Z, or 2h for an age)."""
    until: Moment | None = None
    """That happened before this time."""
    cursor: Cursor | None = None
    """Go on after this place: `next` of the page before."""

    def filter(self) -> Filter:
        """As the outbox takes it."""
        return Filter(
            self.endpoint, tuple(self.state), self.type, self.session, self.since, self.until, event_ids=tuple(self.event_id)
        )


class ListQuery(Selection):
    """A page of deliveries."""

    limit: int = Field(default=50, ge=1, le=LARGEST_PAGE)
    """At most so many."""


class ShowQuery(Given):
    """One event."""

    endpoint: str | None = None
    """Of this endpoint."""
    body: bool = False
    """With the payload and the beginning of each answer: what visitors wrote. Needs the token."""


class CancelBody(Selection):
    """What to give up."""

    reason: str = Field(default="cancelled by hand", min_length=1, max_length=500)
    """Kept with each of them."""


class Nothing(Given):
    """No parameters."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt. `outcome` null: in flight. `answer`, with `body=true`: the beginning of what the endpoint answered."""

    number: int
    started_at: datetime
    duration_s: float | None
    outcome: str | None
    status: int | None
    error: str | None
    answer: str | None


@dataclass(frozen=True, slots=True)
class ShownDelivery(Record):
    """One delivery with every attempt. `payload` is null without `body=true`, when there is none yet, and when it is no longer
    kept; of a skipped one it is the folded state, as base64 of BSON.
    """

    history: list[Attempt]
    payload: Any


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Deliveries in the order of their events; `next` is the cursor of the following page, null when this is the last."""

    deliveries: list[Record]
    next: str | None


@dataclass(frozen=True, slots=True)
class Deliveries:
    """The deliveries of one event, one an endpoint."""

    deliveries: list[ShownDelivery]


@dataclass(frozen=True, slots=True)
class Changes:
    """How many were changed, and how many could not be. `next`: there is more, call again with it as `cursor`."""

    done: int
    left: int
    next: str | None


@dataclass(frozen=True, slots=True)
class Endpoint:
    """What an endpoint is owed, and whether it takes it. `configured` false: orphaned, nothing is sent."""

    name: str
    configured: bool
    up: bool
    down_since: datetime | None
    next_probe_at: datetime | None
    last_success_at: datetime | None
    owed: int
    dead: int
    oldest_owed_at: datetime | None


@dataclass(frozen=True, slots=True)
class Endpoints:
    """Every endpoint that is configured or owed something."""

    endpoints: list[Endpoint]


@dataclass(frozen=True, slots=True)
class Status:
    """The relay as a whole. `lag_s`: everything that MongoDB committed longer ago is read and kept."""

    version: str
    live: bool
    stuck: list[str]
    ready: bool
    parts: dict[str, Part]
    position: PositionRow | None
    lag_s: float | None
    note: str | None


@dataclass(frozen=True, slots=True)
class Findings:
    """What `livechat-relay check` finds; `status` is the worst of them."""

    status: check.Status
    findings: list[check.Finding]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a call was refused, and what to do."""

    error: str


def cursor(place: Place | None) -> str | None:
    """A place as callers get it."""
    return None if place is None else f"{place.sequence}:{place.endpoint}"
