"""The JSON API under /api/v1: what `livechat-relay deliveries` does, for programs, and the state of the relay."""

from __future__ import annotations

import asyncio
import base64
import hmac
import ipaddress
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from enum import Enum, auto
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_origin

import orjson
from aiohttp import web
from pydantic import ValidationError
from yarl import URL

from daemon import ops
from daemon.check.findings import Finding, worst
from daemon.errors import OutboxError
from daemon.log import get_logger
from daemon.outbox import figures, records
from daemon.outbox.records import CAN_BE_RETRIED, OWED, AttemptRecord, Filter, Place, Record, State
from daemon.serve import calls
from daemon.serve.health import Health

PREFIX = "/api/v1"
_LONGEST_READ_S = 10.0
_CHANGED_AT_ONCE = 1000
_THREADS = 2

T = TypeVar("T")
Check = Callable[[], Awaitable[list[Finding]]]
Handler = Callable[["Api", Any, web.Request], Awaitable[object]]

log = get_logger("serve")


class Token(Enum):
    """When a call needs the token."""

    NEVER = auto()
    WITH_BODY = auto()
    ALWAYS = auto()


class Operation(NamedTuple):
    """One call: the routes and the OpenAPI description are made from these."""

    method: str
    path: str
    name: str
    summary: str
    given: type[calls.Given]
    answer: Any
    refusals: tuple[int, ...]  # beside 400, 401 and 403, which every call can meet
    token: Token
    handler: Handler


class Api:
    """Reads and writes the outbox beside the relay, in threads and in short pages, so that no call holds it up.

    `token` is what callers have to show, empty when none is configured; `wake` tells the relay that there may be something to
    deliver. Both may be changed while it runs.
    """

    def __init__(self, outbox: Path, health: Health, *, listen: tuple[str, int], version: str, check: Check) -> None:
        self.token = ""
        self.wake: Callable[[], None] = lambda: None
        self._check = check
        self._checking = asyncio.Lock()
        self.version = version
        self._outbox = outbox
        self._health = health
        self._loopback = _is_loopback(listen[0])
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="api")

    def routes(self) -> list[web.RouteDef]:
        """What there is."""
        return [web.route(operation.method, PREFIX + operation.path, self._serve(operation)) for operation in OPERATIONS]

    def close(self) -> None:
        """Take no more calls."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    @web.middleware
    async def middleware(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Every refusal under /api is JSON, and foreign pages are kept out."""
        if not request.path.startswith("/api/"):
            return await handler(request)
        if self._loopback and not _is_loopback(_host(request)):
            # A page of somebody else whose name was made to point here: the browser of an operator would be its hands.
            return _refuse(403, "the Host header names another address; call 127.0.0.1, and let a proxy in front do the same")
        try:
            return await handler(request)
        except web.HTTPException as error:
            return _refuse(error.status, error.reason)
        except OutboxError as error:
            return _refuse(503, f"{error}; {error.hint}")

    def _serve(self, operation: Operation) -> Callable[[web.Request], Awaitable[web.Response]]:
        async def serve(request: web.Request) -> web.Response:
            try:
                given = await _given(operation, request)
            except ValidationError as error:
                return _refuse(400, "; ".join(_fault(fault) for fault in error.errors(include_url=False, include_input=False)))
            needed = operation.token is Token.ALWAYS or (operation.token is Token.WITH_BODY and given.body)
            if (needed or not self._loopback) and (refusal := self._check_token(request)):
                return refusal
            return web.Response(body=_dump(await operation.handler(self, given, request)), content_type="application/json")

        return serve

    def _check_token(self, request: web.Request) -> web.Response | None:
        if not self.token:
            return _refuse(403, "this call needs a token, and none is configured: set serve.api_token_file, or serve.api_token")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        same = hmac.compare_digest(token.strip().encode("utf-8", "surrogateescape"), self.token.encode())
        if scheme.lower() != "bearer" or not same:
            return _refuse(401, "this call needs the header `Authorization: Bearer <token>` with the token of serve.api_token")
        return None

    async def _run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    async def list_deliveries(self, given: calls.ListQuery, _request: web.Request) -> calls.DeliveryPage:
        """A page of them."""

        def work() -> list[Record]:
            with ops.opened(self._outbox, longest_s=_LONGEST_READ_S) as connection:
                return records.page(connection, self._known(given.filter()), given.cursor or Place(), given.limit + 1)

        found = await self._run(work)
        page = found[: given.limit]
        last = Place(page[-1].sequence, page[-1].endpoint) if len(found) > given.limit else None
        return calls.DeliveryPage(page, calls.cursor(last))

    async def show_delivery(self, given: calls.ShowQuery, request: web.Request) -> calls.Deliveries:
        """One event, at every endpoint."""
        event_id = request.match_info["event_id"]

        def work() -> list[calls.ShownDelivery]:
            with ops.opened(self._outbox, longest_s=_LONGEST_READ_S) as connection:
                wanted = self._known(Filter(given.endpoint, event_ids=(event_id,)))
                return [
                    _shown(
                        record,
                        records.attempts(connection, record),
                        records.body(connection, record) if given.body else None,
                        with_answers=given.body,
                    )
                    for record in records.select(connection, wanted)
                ]

        found = await self._run(work)
        if not found:
            raise web.HTTPNotFound(reason="there is no delivery of this event")
        return calls.Deliveries(found)

    async def retry_deliveries(self, given: calls.Selection, _request: web.Request) -> calls.Changes:
        """Owe them again."""
        wanted = self._known(_narrowed(given, CAN_BE_RETRIED))
        changed = await self._run(lambda: ops.retry(self._outbox, wanted, given.cursor, _CHANGED_AT_ONCE))
        self.wake()
        return _changes("retry", changed)

    async def cancel_deliveries(self, given: calls.CancelBody, _request: web.Request) -> calls.Changes:
        """Give them up."""
        wanted = self._known(_narrowed(given, OWED))
        changed = await self._run(lambda: ops.cancel(self._outbox, wanted, given.reason, given.cursor, _CHANGED_AT_ONCE))
        self.wake()
        return _changes("cancel", changed)

    def _known(self, wanted: Filter) -> Filter:
        return replace(wanted, configured=tuple(self._health.endpoints))

    async def list_endpoints(self, _given: calls.Nothing, _request: web.Request) -> calls.Endpoints:
        """All of them, orphaned ones included."""

        def work() -> tuple[list[figures.Backlog], list[figures.EndpointRow]]:
            with ops.opened(self._outbox, longest_s=_LONGEST_READ_S) as connection:
                return figures.count_backlog(connection), figures.endpoint_rows(connection)

        found, known = await self._run(work)
        backlog = {entry.endpoint: entry for entry in found}
        rows = {row.name: row for row in known}
        configured = list(self._health.endpoints)
        names = [*configured, *sorted(backlog.keys() - set(configured))]
        return calls.Endpoints([_endpoint(name, name in configured, rows.get(name), backlog.get(name)) for name in names])

    async def show_status(self, _given: calls.Nothing, _request: web.Request) -> calls.Status:
        """The relay as a whole."""

        def work() -> figures.PositionRow | None:
            with ops.opened(self._outbox, longest_s=_LONGEST_READ_S) as connection:
                return figures.position(connection)

        position = await self._run(work)
        health = self._health
        parts, stuck = health.parts(), health.stuck()
        ready = all(part.ok for part in parts.values())
        return calls.Status(self.version, not stuck, stuck, ready, parts, position, health.lag_s, health.note)

    async def show_check(self, _given: calls.Nothing, _request: web.Request) -> calls.Findings:
        """What the command finds, as seen by the relay; one at a time, since it connects to all endpoints."""
        async with self._checking:
            findings = await self._check()
        return calls.Findings(worst(findings), findings)

    async def describe(self, _given: calls.Nothing, _request: web.Request) -> object:
        """The description of this API."""
        from daemon.serve.openapi import describe  # noqa: PLC0415 - it is made from OPERATIONS below

        return await self._run(lambda: describe(OPERATIONS, self.version))


OPERATIONS = (
    Operation(
        "GET", "/status", "showStatus", "Version, position, lag, and what is in the way.",
        calls.Nothing, calls.Status, (503,), Token.NEVER, Api.show_status,
    ),
    Operation(
        "GET", "/endpoints", "listEndpoints", "What each endpoint is owed, and whether it is down.",
        calls.Nothing, calls.Endpoints, (503,), Token.NEVER, Api.list_endpoints,
    ),
    Operation(
        "GET", "/deliveries", "listDeliveries", "Deliveries in the order of their events, a page at a time.",
        calls.ListQuery, calls.DeliveryPage, (503,), Token.NEVER, Api.list_deliveries,
    ),
    Operation(
        "GET", "/deliveries/{event_id}", "showDelivery", "One event at every endpoint, with every attempt.",
        calls.ShowQuery, calls.Deliveries, (404, 503), Token.WITH_BODY, Api.show_delivery,
    ),
    Operation(
        "POST", "/deliveries/retry", "retryDeliveries",
        "Send dead or cancelled deliveries again, with a new round of tries; suspended ones now. At most 1000 a call.",
        calls.Selection, calls.Changes, (413, 415, 503), Token.ALWAYS, Api.retry_deliveries,
    ),
    Operation(
        "POST", "/deliveries/cancel", "cancelDeliveries", "Give up what is owed; retry takes it back. At most 1000 a call.",
        calls.CancelBody, calls.Changes, (413, 415, 503), Token.ALWAYS, Api.cancel_deliveries,
    ),
    Operation(
        "GET", "/check", "check", "What is as it should be and what is not, with a remedy for each.",
        calls.Nothing, calls.Findings, (), Token.NEVER, Api.show_check,
    ),
    Operation(
        "GET", "/openapi.json", "describeApi", "This description.",
        calls.Nothing, dict[str, Any], (), Token.NEVER, Api.describe,
    ),
)  # fmt: skip
"""Every call there is; one more is one more line here."""


async def _given(operation: Operation, request: web.Request) -> Any:
    """The parameters, checked. Raises `ValidationError`, or aiohttp's exception for what cannot be taken at all."""
    if operation.method == "POST":
        if request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="send Content-Type: application/json")
        return operation.given.model_validate_json(await request.read())
    lists = {name for name, field in operation.given.model_fields.items() if get_origin(field.annotation) is list}
    return operation.given.model_validate(
        {name: request.query.getall(name) if name in lists else request.query[name] for name in request.query}
    )


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    text = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {text}" if where else text


def _narrowed(given: calls.Selection, states: tuple[State, ...]) -> Filter:
    """A call that changes something must name something."""
    wanted = given.filter()
    if not wanted.narrows:
        raise web.HTTPBadRequest(reason="name event ids (event_id), or narrow by endpoint, state, type, session, since or until")
    return wanted if wanted.states else replace(wanted, states=states)


def _changes(action: str, changed: ops.Changed) -> calls.Changes:
    log.info("api.changed", action=action, done=changed.done, left=changed.left)
    return calls.Changes(changed.done, changed.left, calls.cursor(changed.following))


def _shown(record: Record, attempts: list[AttemptRecord], body: bytes | None, *, with_answers: bool) -> calls.ShownDelivery:
    payload: object = None
    if body is not None:
        payload = base64.b64encode(body).decode() if record.state is State.SKIPPED else orjson.Fragment(body)
    history = [
        calls.Attempt(
            attempt.number,
            attempt.started_at,
            attempt.duration_s,
            attempt.outcome,
            attempt.status,
            attempt.error,
            attempt.answer.decode("utf-8", "replace") if with_answers and attempt.answer is not None else None,
        )
        for attempt in attempts
    ]
    return calls.ShownDelivery(**{name: getattr(record, name) for name in Record.__slots__}, history=history, payload=payload)


def _endpoint(name: str, configured: bool, row: figures.EndpointRow | None, backlog: figures.Backlog | None) -> calls.Endpoint:
    down_since = None if row is None else row.down_since
    return calls.Endpoint(
        name=name,
        configured=configured,
        up=down_since is None,
        down_since=down_since,
        next_probe_at=None if row is None else row.probe_at,
        last_success_at=None if row is None else row.last_success_at,
        owed=0 if backlog is None else backlog.owed,
        dead=0 if backlog is None else backlog.dead,
        oldest_owed_at=None if backlog is None else backlog.oldest,
    )


def _refuse(status: int, reason: str) -> web.Response:
    headers = {"WWW-Authenticate": "Bearer"} if status == 401 else {}
    return web.Response(status=status, body=_dump(calls.Refusal(reason)), content_type="application/json", headers=headers)


def _dump(answer: object) -> bytes:
    return orjson.dumps(answer, option=orjson.OPT_UTC_Z)


def _host(request: web.Request) -> str:
    try:
        return URL(f"http://{request.host}").host or ""
    except ValueError:
        return ""


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
