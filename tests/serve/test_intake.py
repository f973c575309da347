"""Rocket.Chat's own webhook for offline messages, posted over HTTP."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import structlog

from daemon.compose.intake import offline_event
from daemon.compose.match import Endpoints
from daemon.config.endpoint import EndpointSection
from daemon.errors import OutboxError
from daemon.metrics import Metrics
from daemon.outbox.sqlite import SqliteOutbox
from daemon.serve.health import Health
from daemon.serve.http import Server
from daemon.serve.intake import LARGEST_BODY, Intake
from tests.clocks import START, FakeClock
from tests.outbox.events import look
from tests.serve.test_http import free_port

HEADER = "X-RocketChat-Livechat-Token"
TOKEN = "s3cret"
WEBHOOK = {
    "type": "LivechatOfflineMessage",
    "sentAt": "2026-11-23T08:00:00.412Z",
    "visitor": {"name": "Erika Beispiel", "email": "erika@example.org"},
    "message": "Hello,\nmy lamp is broken. 👋",
}
BODY = json.dumps(WEBHOOK).encode()
ENDPOINTS = Endpoints({"crm": EndpointSection.model_validate({"url": "https://crm.example.org"})})


@dataclass
class Door:
    """A running intake and the outbox behind it."""

    port: int
    session: aiohttp.ClientSession
    outbox: SqliteOutbox
    path: Path

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/intake/offline"

    async def post(self, body: Any = BODY, **headers: str) -> tuple[int, Any]:
        sent = headers or {HEADER: TOKEN}
        async with self.session.post(self.url, data=body, headers=sent) as response:
            return response.status, await response.json()

    async def raw(self, request: bytes) -> bytes:
        """The head of the answer to a request that no library would send."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            writer.write(request)
            async with asyncio.timeout(3):
                return await reader.readuntil(b"\r\n")
        finally:
            writer.close()

    def kept(self) -> list[Any]:
        return look(self.path, "SELECT content FROM bodies")


@asynccontextmanager
async def opened(path: Path, token: str = TOKEN) -> AsyncIterator[Door]:
    outbox = SqliteOutbox(path, clock=FakeClock(), metrics=Metrics())

    async def take(content: bytes) -> None:
        await outbox.add([offline_event(content, ENDPOINTS, START)])

    port = free_port()
    server = Server(("127.0.0.1", port), Health(FakeClock()), Metrics(), Intake(token, take))
    try:
        async with server, aiohttp.ClientSession() as session:
            yield Door(port, session, outbox, path)
    finally:
        await outbox.close()


@pytest_asyncio.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path / "outbox.db") as found:
        yield found


class TestStored:
    async def test_it_is_on_disk_when_the_answer_comes(self, door: Door) -> None:
        assert await door.post() == (200, {"stored": True})
        (content,) = door.kept()
        assert json.loads(content) == WEBHOOK
        (delivery,), _ = await door.outbox.claim("crm", 10, 10)
        assert (delivery.type, delivery.body.content) == ("LivechatOfflineMessage", content)

    async def test_there_is_no_answer_before(self, door: Door) -> None:
        started, go_on = threading.Event(), threading.Event()

        def work(_: object) -> None:
            started.set()
            go_on.wait(5)

        busy = asyncio.ensure_future(door.outbox._writer.run(work))
        await asyncio.to_thread(started.wait, 5)
        posting = asyncio.ensure_future(door.post())
        try:
            done, _ = await asyncio.wait([posting], timeout=0.2)
            assert not done
            assert door.kept() == []
        finally:
            go_on.set()
        assert (await posting)[0] == 200
        await busy
        assert len(door.kept()) == 1

    async def test_a_repeat_is_answered_alike_and_counts_once(self, door: Door) -> None:
        assert [await door.post() for _ in range(3)] == [(200, {"stored": True})] * 3
        assert len(door.kept()) == 1

    async def test_many_at_once(self, door: Door) -> None:
        bodies = [json.dumps({**WEBHOOK, "message": f"number {number}"}).encode() for number in range(30)]
        assert [status for status, _ in await asyncio.gather(*(door.post(body) for body in bodies))] == [200] * 30
        assert {json.loads(content)["message"] for content in door.kept()} == {f"number {number}" for number in range(30)}

    async def test_its_type_of_content_does_not_matter(self, door: Door) -> None:
        assert (await door.post(BODY, **{HEADER: TOKEN, "Content-Type": "text/plain"}))[0] == 200

    async def test_after_a_restart_it_is_still_owed_and_known(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "outbox.db") as before:
            await before.post()
        async with opened(tmp_path / "outbox.db") as after:
            assert (await after.post())[0] == 200
            (delivery,), _ = await after.outbox.claim("crm", 10, 10)
            assert delivery.type == "LivechatOfflineMessage"


class TestToken:
    @pytest.mark.parametrize(
        "headers",
        [
            {"Accept": "*/*"},
            {HEADER: ""},
            {HEADER: "S3CRET"},
            {HEADER: f"{TOKEN}x"},
            {HEADER: TOKEN[:-1]},
            {"Authorization": f"Bearer {TOKEN}"},
            {"X-Token": TOKEN},
            {f"{HEADER}2": TOKEN},
        ],
        ids=["none", "empty", "upper case", "longer", "shorter", "authorization", "another header", "a similar header"],
    )
    async def test_a_wrong_one_is_refused(self, door: Door, headers: dict[str, str]) -> None:
        status, answer = await door.post(BODY, **headers)
        assert status == 401
        assert HEADER in answer["error"]
        assert TOKEN not in str(answer)
        assert door.kept() == []

    @pytest.mark.parametrize("name", [HEADER, HEADER.lower(), HEADER.upper()])
    async def test_headers_have_no_case(self, door: Door, name: str) -> None:
        assert (await door.post(BODY, **{name: TOKEN}))[0] == 200

    async def test_it_is_asked_for_before_the_body_is_read(self, door: Door) -> None:
        request = b"POST /intake/offline HTTP/1.1\r\nHost: x\r\nContent-Length: 200000\r\n\r\n"
        assert await door.raw(request) == b"HTTP/1.1 401 Unauthorized\r\n"

    async def test_one_with_letters_beyond_ascii(self, tmp_path: Path) -> None:
        async with opened(tmp_path / "outbox.db", "geheim-ü") as door:
            assert (await door.post(BODY, **{HEADER: "geheim-ü"}))[0] == 200
            assert (await door.post(BODY, **{HEADER: "geheim-u"}))[0] == 401

    async def test_one_that_is_no_text(self, door: Door) -> None:
        head = f"POST /intake/offline HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n{HEADER}: ".encode()
        assert await door.raw(head + b"\xff\xfe\r\n\r\n{}") == b"HTTP/1.1 401 Unauthorized\r\n"


class TestRefused:
    @pytest.mark.parametrize("size", [LARGEST_BODY + 1, 4 * LARGEST_BODY], ids=["just", "far"])
    @pytest.mark.parametrize("chunked", [False, True], ids=["length told", "in chunks"])
    async def test_too_large(self, door: Door, size: int, chunked: bool) -> None:
        async def pieces() -> AsyncIterator[bytes]:
            for start in range(0, size, 65536):
                yield b"x" * min(65536, size - start)

        status, answer = await door.post(pieces() if chunked else b"x" * size)
        assert (status, answer) == (413, {"error": f"more than {LARGEST_BODY} bytes"})
        assert door.kept() == []

    async def test_the_longest_that_is_taken(self, door: Door) -> None:
        rest = LARGEST_BODY - len(json.dumps({**WEBHOOK, "message": ""}).encode())
        body = json.dumps({**WEBHOOK, "message": "x" * rest}).encode()
        assert len(body) == LARGEST_BODY
        assert (await door.post(body))[0] == 200

    @pytest.mark.parametrize(
        ("body", "said"),
        [
            (b"", "Invalid JSON"),
            (b"{}", "type: "),
            (BODY.replace(b"LivechatOfflineMessage", b"LivechatSession"), "type: "),
            (BODY.replace(b"2026-11-23", b"yesterday-"), "sentAt: "),
        ],
        ids=["empty", "nothing in it", "another event", "no time"],
    )
    async def test_no_offline_message(self, door: Door, body: bytes, said: str) -> None:
        status, answer = await door.post(body)
        assert status == 422
        assert answer["error"].startswith("only LivechatOfflineMessage is taken here: ")
        assert said in answer["error"]
        assert door.kept() == []

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "OPTIONS"])
    async def test_another_method(self, door: Door, method: str) -> None:
        async with door.session.request(method, door.url, data=BODY, headers={HEADER: TOKEN}) as response:
            assert response.status == 405
        assert door.kept() == []

    async def test_another_path(self, door: Door) -> None:
        async with door.session.post(f"{door.url}/", data=BODY, headers={HEADER: TOKEN}) as response:
            assert response.status == 404

    async def test_where_there_is_no_intake_nothing_is_taken(self) -> None:
        port = free_port()
        async with (
            Server(("127.0.0.1", port), Health(FakeClock()), Metrics()),
            aiohttp.ClientSession() as session,
            session.post(f"http://127.0.0.1:{port}/intake/offline", data=BODY) as response,
        ):
            assert response.status == 404

    async def test_a_sender_that_goes_away_leaves_nothing(self, door: Door) -> None:
        head = f"POST /intake/offline HTTP/1.1\r\nHost: x\r\nContent-Length: {len(BODY)}\r\n{HEADER}: {TOKEN}\r\n\r\n"
        _, writer = await asyncio.open_connection("127.0.0.1", door.port)
        writer.write(head.encode() + BODY[:-10])
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await door.post())[0] == 200, "others are served"
        assert len(door.kept()) == 1


class TestNotStored:
    async def test_a_full_disk_is_503_so_that_it_is_sent_again(self, door: Door) -> None:
        (pages,) = look(door.path, "PRAGMA page_count")
        await self._limit(door, pages + 2)
        large = json.dumps({**WEBHOOK, "message": "x" * 100_000}).encode()
        with structlog.testing.capture_logs() as logs:
            assert await door.post(large) == (503, {"error": "cannot be stored at the moment"})
        (line,) = [line for line in logs if line["event"] == "intake.not_stored"]
        assert "disk" in line["hint"]
        assert door.kept() == []

        await self._limit(door, 1_000_000)
        assert (await door.post(large))[0] == 200

    @staticmethod
    async def _limit(door: Door, pages: int) -> None:
        await door.outbox._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages}").fetchall())

    async def test_no_word_of_the_reason_leaves_the_host(self, tmp_path: Path) -> None:
        async def take(_: bytes) -> None:
            raise OutboxError("the outbox /var/lib/x cannot be used", hint="mend it")

        port = free_port()
        server = Server(("127.0.0.1", port), Health(FakeClock()), Metrics(), Intake(TOKEN, take))
        async with server, aiohttp.ClientSession() as session:
            url, headers = f"http://127.0.0.1:{port}/intake/offline", {HEADER: TOKEN}
            async with session.post(url, data=BODY, headers=headers) as response:
                assert response.status == 503
                assert "/var" not in await response.text()


@pytest.mark.parametrize(
    "post",
    [
        lambda door: door.post(),
        lambda door: door.post(BODY, **{HEADER: "hunter2"}),
        lambda door: door.post(BODY.replace(b"LivechatOfflineMessage", b"hunter2")),
        lambda door: door.post(b"hunter2"),
    ],
    ids=["stored", "wrong token", "another event", "no JSON"],
)
async def test_nothing_that_was_posted_is_logged(door: Door, post: Callable[[Door], Any]) -> None:
    with structlog.testing.capture_logs() as logs:
        await post(door)
    assert not any(private in str(logs) for private in ("hunter2", TOKEN, "Erika", "erika@example.org", "lamp"))
