"""Events again from stored data, on demand: what an outbox lacks of them, counted or added, beside a running relay or alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from daemon import ops
from daemon.clock import SystemClock
from daemon.compose.lookup import Lookup
from daemon.compose.match import Endpoints
from daemon.compose.recovery import Recovery, Span
from daemon.config.endpoint import EndpointSection
from daemon.config.root import Config
from daemon.errors import MongoError
from daemon.metrics import Metrics
from daemon.model import EventType, NewEvent
from daemon.mongo import Mongo
from daemon.outbox import entries, records

_PATIENCE_S = 30.0

Key = tuple[str, str]


@dataclass(slots=True)
class Counts:
    """Deliveries by endpoint and type: found in stored data, and of these missing in the outbox."""

    found: Counter[Key] = field(default_factory=Counter)
    missing: Counter[Key] = field(default_factory=Counter)


async def backfill(
    config: Config,
    span: Span,
    *,
    endpoint: str | None,
    event_type: EventType | None,
    add: bool,
    report: Callable[[int, int], None],
) -> Counts:
    """Count what stored data tells of `span`, and with `add` put what is missing into the outbox, session by session.

    `report` is told how many sessions are done, and of how many. Raises `DaemonError` when MongoDB or the outbox cannot be used.
    """
    mongo = Mongo(config.mongodb.connection_string(), config.mongodb.database)
    try:
        lookup = Lookup(mongo, clock=SystemClock(), metrics=Metrics())
        recovery = Recovery(
            lookup,
            Endpoints(_narrowed(config, endpoint, event_type)),
            Metrics(),
            site_url=config.compose.address,
            server_version=config.compose.version,
        )
        try:
            rooms = await asyncio.wait_for(recovery.rooms(span), _PATIENCE_S)
        except TimeoutError:
            hint = "check mongodb.uri; `livechat-relay check` tells more"
            raise MongoError(f"{mongo.where} does not answer", hint=hint) from None
        counts = Counts()
        report(0, len(rooms))
        async for done, events in recovery.events(span, rooms):
            _take(config, events, counts, add=add)
            report(done, len(rooms))
        return counts
    finally:
        mongo.close()


def _narrowed(config: Config, endpoint: str | None, event_type: EventType | None) -> dict[str, EndpointSection]:
    return {
        name: section if event_type is None else section.model_copy(update={"events": (event_type,)})
        for name, section in config.endpoints.items()
        if endpoint in (None, name) and (event_type is None or event_type in section.events)
    }


def _take(config: Config, events: Sequence[NewEvent], counts: Counts, *, add: bool) -> None:
    """One transaction, so that the events of a session stay together and in their order."""
    with ops.opened(config.outbox.path, writing=add) as connection:
        for event in events:
            for endpoint in event.endpoints:
                counts.found[endpoint, event.type] += 1
                if not records.is_known(connection, event.id, endpoint):
                    counts.missing[endpoint, event.type] += 1
        if add:
            entries.append_events(connection, events, SystemClock().now().timestamp())
