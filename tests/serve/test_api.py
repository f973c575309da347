"""The API, asked over HTTP, and every answer compared with its own description."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest
import pytest_asyncio
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate
from structlog.testing import capture_logs
from yarl import URL

from daemon.check.findings import Finding, ok, warning
from daemon.metrics import Metrics
from daemon.model import Dead, Delivered, Suspended
from daemon.outbox.sqlite import SqliteOutbox
from daemon.serve.api import OPERATIONS, PREFIX, Api
from daemon.serve.health import Health
from daemon.serve.http import Server
from tests.clocks import FakeClock
from tests.outbox.events import DOWN, OK, REFUSED, commit, event, look, settle, skipped
from tests.serve.test_http import free_port

TOKEN = "0123456789abcdef"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


async def check_nothing() -> list[Finding]:
    return [ok("mongodb.version", "8.0"), warning("backlog.owed", "5 events", "mend it", subject="crm")]


@dataclass
class Asker:
    """A caller of the API that compares every answer with the description."""

    url: str
    api: Api
    health: Health
    outbox: SqliteOutbox
    path: Path
    session: aiohttp.ClientSession
    description: dict[str, Any] = field(default_factory=dict)
    seen: set[tuple[str, str, int]] = field(default_factory=set)
    wakes: int = 0

    def wake(self) -> None:
        self.wakes += 1

    async def get(self, path: str, **arguments: Any) -> tuple[int, Any]:
        return await self.call("GET", path, **arguments)

    async def post(self, path: str, body: object, **arguments: Any) -> tuple[int, Any]:
        return await self.call("POST", path, json=body, **{"headers": BEARER, **arguments})

    async def call(self, method: str, path: str, **arguments: Any) -> tuple[int, Any]:
        async with self.session.request(method, f"{self.url}{PREFIX}{path}", **arguments) as response:
            answer = await response.json()
        assert response.content_type == "application/json"
        self._compare(method, path.partition("?")[0], response.status, answer)
        return response.status, answer

    def _compare(self, method: str, path: str, status: int, answer: Any) -> None:
        for operation in OPERATIONS:
            described = self.description["paths"][PREFIX + operation.path][operation.method.lower()]
            parts, asked = operation.path.split("/"), path.split("/")
            if method == operation.method and len(parts) == len(asked) and parts[:2] == asked[:2]:
                if parts[2:] and parts[2] != asked[2] and not parts[2].startswith("{"):
                    continue
                schema = described["responses"][str(status)]["content"]["application/json"]["schema"]
                strict = _strict({**schema, "components": self.description["components"]})
                Draft202012Validator(strict, format_checker=Draft202012Validator.FORMAT_CHECKER).validate(answer)
                self.seen.add((method, operation.path, status))
                return


def _strict(schema: Any) -> Any:
    """The schema with members that it does not name forbidden."""
    if isinstance(schema, list):
        return [_strict(member) for member in schema]
    if not isinstance(schema, dict):
        return schema
    strict = {name: _strict(member) for name, member in schema.items()}
    return {**strict, "additionalProperties": False} if "properties" in schema else strict


@pytest_asyncio.fixture
async def asker(tmp_path: Path) -> AsyncIterator[Asker]:
    clock, port, path = FakeClock(), free_port(), tmp_path / "outbox.db"
    outbox = SqliteOutbox(path, clock=clock, metrics=Metrics())
    health = Health(clock)
    health.endpoints["crm"] = lambda: None
    address = ("127.0.0.1", port)
    api = Api(path, health, listen=address, version="1.2.3", check=check_nothing)
    api.token = TOKEN
    async with Server(address, health, Metrics(), api=api), aiohttp.ClientSession() as session:
        found = Asker(f"http://127.0.0.1:{port}", api, health, outbox, path, session)
        async with session.get(f"{found.url}{PREFIX}/openapi.json") as response:
            found.description = await response.json()
        api.wake = found.wake
        yield found
    await outbox.close()


async def fill(outbox: SqliteOutbox, count: int = 5) -> None:
    """Events e1, e2, ... of rooms r1, r2, ...; the first is delivered, the second dead, the others are pending."""
    await outbox.append(commit(*(event(f"e{number}", f"r{number}", content=b"{}") for number in range(1, count + 1))))
    claimed, _ = await outbox.claim("crm", 2, 2)
    await settle(outbox, claimed[0], OK, Delivered())
    await settle(outbox, claimed[1], REFUSED, Dead("no"))


def ids(answer: Any) -> list[str]:
    return [delivery["event_id"] for delivery in answer["deliveries"]]


class TestDescription:
    async def test_it_is_openapi(self, asker: Asker) -> None:
        validate(asker.description)
        assert asker.description["openapi"] == "3.1.0"

    async def test_every_call_and_every_answer_is_as_described(self, asker: Asker) -> None:
        """One of each answer there can be. What is described and cannot be had here is named."""
        await fill(asker.outbox)
        for path in (
            "/status",
            "/endpoints",
            "/deliveries",
            "/deliveries/e2",
            "/deliveries/e2?body=true",
            "/check",
            "/openapi.json",
        ):
            assert (await asker.get(path, headers=BEARER))[0] == 200, path
            assert (await asker.get(path, headers={"Host": "evil.example"}))[0] == 403, path
        for path in (
            "/deliveries?limit=0",
            "/deliveries/e2?page=1",
            "/status?x=1",
            "/endpoints?x=1",
            "/check?x=1",
            "/openapi.json?x=1",
        ):
            assert (await asker.get(path))[0] == 400, path
        assert (await asker.get("/deliveries/nothing"))[0] == 404
        assert (await asker.get("/deliveries/e2?body=true"))[0] == 401
        for path in ("/deliveries/retry", "/deliveries/cancel"):
            assert (await asker.post(path, {"event_id": ["e2"]}))[0] == 200
            assert (await asker.post(path, {}))[0] == 400
            assert (await asker.post(path, {"event_id": ["e2"]}, headers={}))[0] == 401
            assert (await asker.post(path, {"event_id": ["e2"]}, headers={**BEARER, "Host": "evil.example"}))[0] == 403
            assert (await asker.post(path, {"session": "x" * 300_000}))[0] == 413
            assert (await asker.call("POST", path, data=b"{}", headers={**BEARER, "Content-Type": "text/plain"}))[0] == 415
        described = {
            (operation.method, operation.path, int(status))
            for operation in OPERATIONS
            for status in asker.description["paths"][PREFIX + operation.path][operation.method.lower()]["responses"]
        }
        elsewhere = {(method, path, status) for method, path, status in described if status == 503}
        only_beyond_loopback = {(method, path, 401) for method, path, status in described if method == "GET"}
        assert described - asker.seen - elsewhere - only_beyond_loopback == set()

    async def test_an_outbox_that_cannot_be_read_is_503(self, asker: Asker) -> None:
        asker.api._outbox = asker.path.with_name("gone.db")
        for path in ("/status", "/endpoints", "/deliveries", "/deliveries/e1"):
            status, answer = await asker.get(path)
            assert (status, "there is no outbox" in answer["error"]) == (503, True)
        for path in ("/deliveries/retry", "/deliveries/cancel"):
            assert (await asker.post(path, {"session": "r"}))[0] == 503


class TestList:
    async def test_pages_by_cursor(self, asker: Asker) -> None:
        await fill(asker.outbox, 5)
        found, cursor = [], ""
        for _ in range(10):
            _, answer = await asker.get("/deliveries?limit=2" + cursor)
            assert len(answer["deliveries"]) <= 2
            found += ids(answer)
            if answer["next"] is None:
                break
            cursor = f"&cursor={answer['next']}"
        assert found == ["e1", "e2", "e3", "e4", "e5"]

    async def test_a_full_last_page_has_no_next(self, asker: Asker) -> None:
        await fill(asker.outbox, 4)
        _, answer = await asker.get("/deliveries?limit=4")
        assert (len(answer["deliveries"]), answer["next"]) == (4, None)

    @pytest.mark.parametrize(
        ("query", "expected"),
        [
            ("state=dead", ["e2"]),
            ("state=dead&state=delivered", ["e1", "e2"]),
            ("session=r3", ["e3"]),
            ("session=r3&state=dead", []),
            ("endpoint=archive", []),
            ("type=Message&endpoint=crm&state=pending", ["e3", "e4"]),
            ("event_id=e4&event_id=e1", ["e1", "e4"]),
            ("since=2026-11-23T08:00:00Z", ["e1", "e2", "e3", "e4"]),
            ("until=2026-11-23T08:00:00Z", []),
        ],
    )
    async def test_filters(self, asker: Asker, query: str, expected: list[str]) -> None:
        await fill(asker.outbox, 4)
        assert ids((await asker.get(f"/deliveries?{query}"))[1]) == expected

    @pytest.mark.parametrize(
        ("query", "word"),
        [
            ("limit=501", "limit"),
            ("limit=many", "limit"),
            ("state=lost", "state.0"),
            ("since=yesterday", "neither a time"),
            ("cursor=here", "`next`"),
            ("colour=red", "colour"),
        ],
    )
    async def test_what_is_wrong_is_named(self, asker: Asker, query: str, word: str) -> None:
        status, answer = await asker.get(f"/deliveries?{query}")
        assert (status, word in answer["error"]) == (400, True)

    async def test_a_list_that_takes_too_long_is_given_up(self, asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("daemon.serve.api._LONGEST_READ_S", 0.05)
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        monkeypatch.setattr("daemon.serve.api.records.page", lambda connection, *_: connection.execute(endless).fetchall())
        status, answer = await asker.get("/deliveries")
        assert (status, "longer than 0.05 s" in answer["error"]) == (503, True)

    async def test_the_relay_goes_on_meanwhile(self, asker: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
        """Two long reads take both threads; the outbox is written and the loop turns."""
        endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n"
        monkeypatch.setattr("daemon.serve.api._LONGEST_READ_S", 1.0)
        monkeypatch.setattr("daemon.serve.api.records.page", lambda connection, *_: connection.execute(endless).fetchall())
        long = [asyncio.ensure_future(asker.get("/deliveries")) for _ in range(2)]
        await asyncio.sleep(0.1)
        async with asyncio.timeout(0.5):
            await fill(asker.outbox)
            async with asker.session.get(f"{asker.url}/livez") as response:
                assert response.status == 200
        assert not any(call.done() for call in long)
        assert [status for status, _ in await asyncio.gather(*long)] == [503, 503]


class TestShow:
    async def test_attempts_without_what_visitors_wrote(self, asker: Asker) -> None:
        await fill(asker.outbox)
        _, answer = await asker.get("/deliveries/e2")
        (delivery,) = answer["deliveries"]
        assert (delivery["state"], delivery["reason"], delivery["payload"]) == ("dead", "no", None)
        (attempt,) = delivery["history"]
        assert (attempt["number"], attempt["outcome"], attempt["status"], attempt["answer"]) == (1, "answered", 400, None)

    async def test_with_body(self, asker: Asker) -> None:
        await asker.outbox.append(commit(event("e1", content=b'{"text":"secret of a visitor"}')))
        claimed, _ = await asker.outbox.claim("crm", 1, 1)
        await settle(asker.outbox, claimed[0], REFUSED, Dead("no"))
        with capture_logs() as logs:
            _, answer = await asker.get("/deliveries/e1?body=true", headers=BEARER)
        (delivery,) = answer["deliveries"]
        assert delivery["payload"] == {"text": "secret of a visitor"}
        assert delivery["history"][0]["answer"] == "no"
        assert "secret" not in str(logs)

    async def test_one_that_was_skipped(self, asker: Asker) -> None:
        await asker.outbox.append(commit(skipped("e1", "odd")))
        status, answer = await asker.get("/deliveries/e1?body=true", headers=BEARER)
        assert (status, answer["deliveries"][0]["reason"]) == (200, "odd")

    @pytest.mark.parametrize("event_id", ["a/b", "a%2Fb", "LivechatSession:r:1", "ä ö", "retry"])
    async def test_odd_ids(self, asker: Asker, event_id: str) -> None:
        await asker.outbox.append(commit(event(event_id)))
        url = URL(f"{asker.url}{PREFIX}/deliveries/{quote(event_id, safe='')}", encoded=True)
        async with asker.session.get(url) as response:
            assert ids(await response.json()) == [event_id]


class TestChange:
    async def test_retry_wakes_the_relay(self, asker: Asker) -> None:
        await fill(asker.outbox)
        assert await asker.post("/deliveries/retry", {"state": ["dead"]}) == (200, {"done": 1, "left": 0, "next": None})
        assert look(asker.path, "SELECT state FROM deliveries WHERE sequence = 2") == ["pending"]
        assert asker.wakes == 1

    async def test_cancel_keeps_the_reason(self, asker: Asker) -> None:
        await fill(asker.outbox)
        _, answer = await asker.post("/deliveries/cancel", {"session": "r3", "reason": "spam"})
        assert answer == {"done": 1, "left": 0, "next": None}
        assert look(asker.path, "SELECT state, reason FROM deliveries WHERE sequence = 3") == [("cancelled", "spam")]

    async def test_what_is_in_flight_is_left(self, asker: Asker) -> None:
        await asker.outbox.append(commit(event("e1")))
        await asker.outbox.claim("crm", 1, 1)
        assert await asker.post("/deliveries/cancel", {"event_id": ["e1"]}) == (200, {"done": 0, "left": 1, "next": None})

    async def test_many_are_changed_call_by_call(self, asker: Asker) -> None:
        await asker.outbox.append(commit(*(event(f"e{number}", f"r{number}") for number in range(2300))))
        done, calls = 0, 0
        body: dict[str, str] = {"endpoint": "crm"}
        while True:
            _, answer = await asker.post("/deliveries/cancel", body)
            done, calls = done + answer["done"], calls + 1
            if answer["next"] is None:
                break
            body["cursor"] = answer["next"]
        assert (done, calls) == (2300, 3)
        assert look(asker.path, "SELECT count(*) FROM deliveries WHERE state <> 'cancelled'") == [0]

    async def test_nothing_named_changes_nothing(self, asker: Asker) -> None:
        await fill(asker.outbox)
        bodies: tuple[dict[str, list[str]], ...] = ({}, {"event_id": []}, {"state": []})
        for body in bodies:
            assert (await asker.post("/deliveries/cancel", body))[0] == 400
        assert look(asker.path, "SELECT count(*) FROM deliveries WHERE state = 'cancelled'") == [0]

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b"null", b'{"state": "dead"}', b'{"colour": 1}', b'{"event_id": [7]}'])
    async def test_what_is_no_selection(self, asker: Asker, content: bytes) -> None:
        headers = {**BEARER, "Content-Type": "application/json"}
        assert (await asker.call("POST", "/deliveries/retry", data=content, headers=headers))[0] == 400


class TestToken:
    CALLS = (("POST", "/deliveries/retry"), ("POST", "/deliveries/cancel"), ("GET", "/deliveries/e1?body=true"))

    @pytest.mark.parametrize(("method", "path"), CALLS)
    async def test_without_one_configured_it_is_403_and_names_the_key(self, asker: Asker, method: str, path: str) -> None:
        asker.api.token = ""
        for headers in ({}, BEARER, {"Authorization": "Bearer "}):
            status, answer = await asker.call(method, path, headers=headers, json={"session": "r"})
            assert (status, "serve.api_token_file" in answer["error"]) == (403, True)

    @pytest.mark.parametrize(("method", "path"), CALLS)
    async def test_a_wrong_one(self, asker: Asker, method: str, path: str) -> None:
        await fill(asker.outbox)
        wrong = ["", "Bearer", "Bearer ", f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", f"Basic {TOKEN}", TOKEN, "Bearer ü"]
        for headers in ({}, *({"Authorization": value} for value in wrong)):
            assert (await asker.call(method, path, headers=headers, json={"state": ["dead"]}))[0] == 401, headers
        assert look(asker.path, "SELECT count(*) FROM deliveries WHERE state = 'dead'") == [1]


class TestHost:
    async def test_this_machine(self, asker: Asker) -> None:
        for host in ("localhost", "LOCALHOST:8940", "127.0.0.1:1", "[::1]:8940", "127.9.9.9"):
            assert (await asker.get("/deliveries", headers={"Host": host}))[0] == 200, host

    async def test_others_are_refused_whatever_the_token(self, asker: Asker) -> None:
        await fill(asker.outbox)
        for host in ("evil.example", "localhost.evil.example", "127.0.0.1.nip.io", "10.0.0.1", "[", ""):
            headers = {**BEARER, "Host": host}
            assert (await asker.get("/deliveries", headers=headers))[0] == 403, host
            assert (await asker.post("/deliveries/retry", {"state": ["dead"]}, headers=headers))[0] == 403, host
        assert look(asker.path, "SELECT count(*) FROM deliveries WHERE state = 'dead'") == [1]

    async def test_beyond_loopback_every_call_needs_the_token(self, asker: Asker, tmp_path: Path) -> None:
        port = free_port()
        address = ("0.0.0.0", port)  # noqa: S104
        api = Api(asker.path, asker.health, listen=address, version="1", check=check_nothing)
        api.token = TOKEN
        async with Server(address, asker.health, Metrics(), api=api):
            url = f"http://127.0.0.1:{port}{PREFIX}/deliveries"
            async with asker.session.get(url) as response:
                assert response.status == 401
            async with asker.session.get(url, headers={**BEARER, "Host": "relay.example.org"}) as response:
                assert response.status == 200


class TestOthers:
    @pytest.mark.parametrize(("method", "path", "status"), [("GET", "/nothing", 404), ("DELETE", "/deliveries", 405)])
    async def test_refusals_are_json(self, asker: Asker, method: str, path: str, status: int) -> None:
        async with asker.session.request(method, f"{asker.url}{PREFIX}{path}") as response:
            assert (response.status, set(await response.json())) == (status, {"error"})

    async def test_endpoints(self, asker: Asker) -> None:
        await asker.outbox.append(
            commit(event("e1", "r1"), event("e2", "r2", endpoints={"old": next(iter(event("x").endpoints.values()))}))
        )
        claimed, _ = await asker.outbox.claim("crm", 1, 1)
        await settle(asker.outbox, claimed[0], DOWN, Suspended("away"))
        _, answer = await asker.get("/endpoints")
        crm, old = answer["endpoints"]
        assert (crm["name"], crm["configured"], crm["up"], crm["owed"]) == ("crm", True, False, 1)
        assert crm["down_since"] == "2026-11-23T08:00:00Z"
        assert crm["next_probe_at"] == "2026-11-23T08:00:30Z"
        assert (old["name"], old["configured"], old["owed"], old["oldest_owed_at"]) == ("old", False, 1, "2026-11-23T08:00:00Z")

    async def test_check(self, asker: Asker) -> None:
        _, answer = await asker.get("/check")
        assert answer["status"] == "warning"
        assert [(found["check"], found["subject"]) for found in answer["findings"]] == [
            ("mongodb.version", None),
            ("backlog.owed", "crm"),
        ]

    async def test_status(self, asker: Asker) -> None:
        _, answer = await asker.get("/status")
        assert (answer["version"], answer["ready"], answer["live"], answer["position"]) == ("1.2.3", False, True, None)
        await asker.outbox.append(commit())
        asker.health.capture_open(True)
        asker.health.capture_lag(lambda: 1.5)
        _, answer = await asker.get("/status")
        assert (answer["ready"], answer["lag_s"]) == (True, 1.5)
        assert answer["position"] == {"cluster_time": "2023-11-14T22:13:20Z", "saved_at": "2026-11-23T08:00:00Z"}

    async def test_an_outbox_that_another_process_writes_to_holds_up_nobody_else(self, asker: Asker) -> None:
        await fill(asker.outbox)
        other = sqlite3.connect(asker.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        call = asyncio.ensure_future(asker.post("/deliveries/retry", {"state": ["dead"]}))
        assert (await asker.get("/deliveries"))[0] == 200
        assert not call.done()
        other.execute("ROLLBACK")
        other.close()
        assert (await call)[1]["done"] == 1
