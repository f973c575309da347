"""A delivery, a way to send it, and a receiver that keeps it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

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


@dataclass
class Receiver:
    """Answers with `status` and keeps what it got."""

    url: str = ""
    status: int = 200
    requests: list[web.Request] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    peers: list[Any] = field(default_factory=list)

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(request)
        self.bodies.append(await request.read())
        self.peers.append(request.transport.get_extra_info("peername") if request.transport else None)
        return web.Response(status=self.status, text="got it", headers={"Location": "/target"})


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    state = Receiver()
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", state.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    state.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield state
    await runner.cleanup()
