"""A delivery, and a way to send it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from daemon.clock import SystemClock
from daemon.config.endpoint import EndpointSection
from daemon.model import Body, Delivery, Outcome
from daemon.send.client import Sender
from tests.clocks import START

BODY = '{"_id":"r","visitor":{"name":"Zoë 👋"}}'.encode()
DELIVERY = Delivery(
    endpoint="crm",
    sequence=42,
    event_id="Message:m1",
    type="Message",
    session="room",
    attempt=3,
    failures=2,
    happened_at=START,
    recorded_at=START,
    round_at=START,
    body=Body(BODY),
)

Post = Callable[..., Awaitable[Outcome]]


def endpoint(url: str, **settings: Any) -> EndpointSection:
    return EndpointSection.model_validate({"url": url, "timeout": "5s", **settings})


@pytest.fixture
def post() -> Post:
    """One attempt over a connection of its own."""

    async def once(url: str, *, delivery: Delivery = DELIVERY, content: bytes = BODY, **settings: Any) -> Outcome:
        async with Sender("crm", endpoint(url, **settings), clock=SystemClock()) as sender:
            return await sender.post(delivery, content)

    return once
