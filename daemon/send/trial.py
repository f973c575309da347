"""One request to an endpoint, made as the relay makes it, and watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace

import aiohttp

from daemon.clock import Clock
from daemon.config.endpoint import EndpointSection
from daemon.config.types import redact_url
from daemon.model import TOKEN_HEADER, Body, Delivery, EventType, Outcome
from daemon.send.client import Sender
from daemon.send.guard import Guard
from daemon.send.sample import SAMPLE_ID, sample_payload

_HIDDEN = "(hidden)"


@dataclass(frozen=True, slots=True)
class Trial:
    """What was sent, without secrets, and what came of it. `request` is empty when no request left, `answer` when none came."""

    delivery: Delivery
    url: str
    request: Mapping[str, str]
    outcome: Outcome
    answer: Mapping[str, str]


async def try_endpoint(name: str, endpoint: EndpointSection, event_type: EventType, *, guard: Guard, clock: Clock) -> Trial:
    """Send the sample once. Raises `ConfigurationError` when a file that the endpoint's section names cannot be used."""
    now = clock.now()
    delivery = Delivery(
        endpoint=name,
        sequence=int(now.timestamp() * 1000),
        event_id=f"{event_type}:{SAMPLE_ID}:{int(now.timestamp() * 1000)}",  # its own each time: receivers drop what they know
        type=event_type,
        session=SAMPLE_ID,
        attempt=1,
        failures=0,
        happened_at=now,
        recorded_at=now,
        round_at=now,
        body=Body(sample_payload(event_type, now)),
    )
    request: dict[str, str] = {}
    answer: dict[str, str] = {}

    async def sent(
        _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestHeadersSentParams
    ) -> None:
        request.update(params.headers)

    async def answered(_session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestEndParams) -> None:
        answer.update(params.response.headers)

    trace = aiohttp.TraceConfig()
    trace.on_request_headers_sent.append(sent)
    trace.on_request_end.append(answered)
    async with Sender(name, endpoint, clock=clock, guard=guard, traces=(trace,)) as sender:
        outcome = await sender.post(delivery, delivery.body.content)
    secret = {header.lower() for header in (TOKEN_HEADER, "Authorization", *endpoint.headers, *endpoint.header_files)}
    shown = {header: _HIDDEN if header.lower() in secret else value for header, value in request.items()}
    return Trial(delivery, redact_url(str(endpoint.url)), shown, outcome, answer)
