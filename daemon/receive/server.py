"""The receiver: takes requests, decides what they are answered, and hands what came to whoever shows it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from aiohttp import web

from daemon.clock import Clock
from daemon.errors import DaemonError
from daemon.receive.checks import Check, Proofs

LARGEST_BODY = 64 * 1024 * 1024
_MOST_REMEMBERED = 100_000
_UNSAFE_IN_NAME = re.compile(r"[^A-Za-z0-9_-]+")


class Known(StrEnum):
    """Whether an event came before."""

    NEW = ""
    AGAIN = "again, after a failed try"
    DUPLICATE = "DUPLICATE: accepted before"


@dataclass(frozen=True, slots=True)
class Manners:
    """How to answer: after `delay_s`, with `status`, or only every `fail_every`-th request with it and others with 200."""

    status: int = 200
    delay_s: float = 0.0
    fail_every: int | None = None

    def status_of(self, number: int) -> int:
        """The status of the answer to the request of this number; the first one is 1."""
        return self.status if self.fail_every is None or number % self.fail_every == 0 else 200


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came, and the `status` that it is answered. `payload` None: the body is no JSON, as `body` shows."""

    number: int
    at: datetime
    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    payload: Any
    token: Check
    signature: Check
    known: Known
    status: int
    note: str = ""

    @property
    def event_id(self) -> str:
        """The id of the event; empty from others than the relay."""
        return self.headers.get("X-Livechat-Relay-Event-Id", "")


@dataclass(slots=True)
class Counts:
    """What came."""

    requests: int = 0
    accepted: int = 0
    failed: int = 0
    refused: int = 0
    duplicates: int = 0


class Receiver:
    """Listens on `host` and `port`. Use as an async context manager; raises `DaemonError` when the address cannot be had.

    A request without the proofs is answered 401, anything but a POST 405, a body of more than `LARGEST_BODY` bytes 413. `show` is
    called with each request before it is answered; bodies are kept in the folder `save`.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        proofs: Proofs,
        manners: Manners,
        show: Callable[[Request], None],
        save: Path | None,
        clock: Clock,
    ) -> None:
        self.counts = Counts()
        self._host, self._port = host, port
        self._proofs = proofs
        self._manners = manners
        self._show = show
        self._save = save
        self._clock = clock
        self._accepted: dict[str, bool] = {}  # by event id, the latest last
        app = web.Application(client_max_size=LARGEST_BODY)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.5)

    @property
    def url(self) -> str:
        """Where it listens."""
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{self._port}/"

    async def __aenter__(self) -> Receiver:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise DaemonError(
                f"cannot listen on {self._host}:{self._port}: {error.strerror}", hint="choose another --port or --host"
            ) from error
        self._port = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()

    async def _handle(self, request: web.Request) -> web.Response:
        at = self._clock.now()
        self.counts.requests += 1
        number = self.counts.requests
        body, note = b"", ""
        try:
            body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            note = f"more than {LARGEST_BODY} bytes"
        token = self._proofs.check_token(request.headers)
        signature = Check.NONE if note else self._proofs.check_signature(request.headers, body, at)
        status = 413 if note else self._status(number, request.method, token, signature)
        if request.method == "POST" and not note:
            note = self._keep(at, request, body)
        received = Request(
            number=number,
            at=at,
            method=request.method,
            path=request.path_qs,
            headers=request.headers,
            body=body,
            payload=_json(body),
            token=token,
            signature=signature,
            known=self._remember(request.headers.get("X-Livechat-Relay-Event-Id", ""), status),
            status=status,
            note=note,
        )
        self._show(received)
        if self._manners.delay_s:
            await self._clock.sleep(self._manners.delay_s)
        why = f"token {token}, signature {signature}\n" if status == 401 else f"{status}\n"
        return web.Response(status=status, text=why, headers={"Allow": "POST"} if status == 405 else None)

    def _status(self, number: int, method: str, token: Check, signature: Check) -> int:
        if method != "POST":
            return 405
        if not token.passed or not signature.passed:
            return 401
        return self._manners.status_of(number)

    def _remember(self, event_id: str, status: int) -> Known:
        accepted = 200 <= status < 300
        self.counts.accepted += accepted
        self.counts.refused += status == 401
        self.counts.failed += not accepted and status != 401
        before = self._accepted.pop(event_id, None)
        known = Known.NEW if before is None else Known.DUPLICATE if before else Known.AGAIN
        self.counts.duplicates += known is Known.DUPLICATE
        if event_id:
            self._accepted[event_id] = accepted or bool(before)
            if len(self._accepted) > _MOST_REMEMBERED:
                del self._accepted[next(iter(self._accepted))]
        return known

    def _keep(self, at: datetime, request: web.Request, body: bytes) -> str:
        """Write the body to a file of its own; says what went wrong."""
        if self._save is None:
            return ""
        what = (
            request.headers.get("X-Livechat-Relay-Event-Id", "no-id") + "-" + request.headers.get("X-Livechat-Relay-Attempt", "0")
        )
        name = f"{at:%Y%m%dT%H%M%S}.{at.microsecond:06d}-{_UNSAFE_IN_NAME.sub('_', what)[:120]}.json"
        try:
            self._save.mkdir(parents=True, exist_ok=True)
            with (self._save / name).open("xb") as file:
                file.write(body)
        except OSError as error:
            return f"not saved to {self._save / name}: {error.strerror}"
        return ""


def _json(body: bytes) -> Any:
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
