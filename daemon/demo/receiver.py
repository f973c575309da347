"""A webhook receiver on loopback that records every request and answers as it is told to."""

from __future__ import annotations

import hashlib
import hmac
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

from daemon.clock import Clock, SystemClock
from daemon.model import TOKEN_HEADER

_MAX_BODY = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """A request as it came. `attempt` and `sequence` are 0 when their header is missing."""

    event_id: str
    attempt: int
    sequence: int
    token: str | None
    body: bytes
    headers: dict[str, str]
    at: datetime

    @property
    def payload(self) -> Any:
        """The body as JSON; raises where it is none."""
        return orjson.loads(self.body)


@dataclass(frozen=True, slots=True)
class Answer:
    """What to do with a request: wait, then answer with `status`, or with None close the connection without a word."""

    status: int | None = 200
    delay_s: float = 0.0
    body: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer, `delay_s` later; `status` None means that the connection was closed instead."""

    received: Received
    status: int | None
    delay_s: float = 0.0

    @property
    def event_id(self) -> str:
        """See `Received`."""
        return self.received.event_id

    @property
    def at(self) -> datetime:
        """When the request came."""
        return self.received.at

    @property
    def accepted(self) -> bool:
        """Whether the answer was 200."""
        return self.status == 200


Behaviour = Callable[[Received], Answer | Awaitable[Answer]]


def always_fine(_: Received) -> Answer:
    """Accept everything at once."""
    return Answer()


class Flaky:
    """Fails `share` of the events up to `most` times each, and then accepts them.

    What happens is decided by the seed, the event id and the attempt alone, so a repeated request is treated alike.
    """

    def __init__(self, seed: int, *, share: float = 0.12, most: int = 3) -> None:
        self._seed = seed
        self._share = share
        self._most = most

    def __call__(self, received: Received) -> Answer:
        unlucky = self._draw(received.event_id) < self._share
        failures = 1 + int(self._draw(received.event_id, "failures") * self._most) if unlucky else 0
        kind = self._draw(received.event_id, received.attempt)
        if received.attempt <= failures:
            return Answer(status=(500, 503, None)[int(kind * 3)])
        return Answer(delay_s=0.2 + kind * 4) if kind < self._share / 4 else Answer()

    def _draw(self, *what: object) -> float:
        digest = hashlib.sha256(repr((self._seed, *what)).encode()).digest()
        return int.from_bytes(digest[:6]) / 2**48


class Receiver:
    """An HTTP server on 127.0.0.1 that treats each request as `behave` says.

    Requests without the right `token` get 401 whatever `behave` says. `exchanges` has all requests, in the order of their
    answers.
    """

    def __init__(
        self, *, token: str | None = None, behave: Behaviour = always_fine, port: int = 0, clock: Clock | None = None
    ) -> None:
        self.exchanges: list[Exchange] = []
        self.behave = behave
        self._token = token
        self._port = port
        self._clock = clock or SystemClock()
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        """Where it listens; the port stays the same after a stop and a new start."""
        return f"http://127.0.0.1:{self._port}/webhook"

    async def start(self) -> None:
        """Listen."""
        application = web.Application(client_max_size=_MAX_BODY)
        application.router.add_post("/webhook", self._handle)
        self._runner = web.AppRunner(application, access_log=None, shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port).start()
        self._port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening; open requests get a second to end."""
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Receiver:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _handle(self, request: web.Request) -> web.Response:
        headers = request.headers
        received = Received(
            event_id=headers.get("X-Livechat-Relay-Event-Id", ""),
            attempt=_number(headers.get("X-Livechat-Relay-Attempt")),
            sequence=_number(headers.get("X-Livechat-Relay-Sequence")),
            token=headers.get(TOKEN_HEADER),
            body=await request.read(),
            headers=dict(headers),
            at=self._clock.now(),
        )
        answer = await self._decide(received)
        if answer.delay_s:
            await self._clock.sleep(answer.delay_s)
        self.exchanges.append(Exchange(received, answer.status, answer.delay_s))
        if answer.status is None:
            if request.transport is not None:
                request.transport.abort()
            return web.Response()  # goes nowhere
        return web.Response(status=answer.status, text=answer.body, headers=answer.headers)

    async def _decide(self, received: Received) -> Answer:
        if self._token is not None and not hmac.compare_digest((received.token or "").encode(), self._token.encode()):
            return Answer(status=401)
        answer = self.behave(received)
        return await answer if inspect.isawaitable(answer) else answer


def _number(text: str | None) -> int:
    return int(text) if text is not None and text.isdecimal() else 0
