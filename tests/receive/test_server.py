"""The receiver against the relay's own sender, and against worse."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon.clock import SystemClock
from daemon.errors import DaemonError
from daemon.model import Answered, Delivery
from daemon.receive.checks import Check, Proofs
from daemon.receive.server import LARGEST_BODY, Counts, Known, Manners, Receiver, Request
from daemon.send.client import Sender
from tests.send.conftest import BODY, DELIVERY, endpoint

KEY = b"k" * 32
WHSEC = "whsec_" + base64.b64encode(KEY).decode()
Start = Callable[..., AbstractAsyncContextManager[Receiver]]


@pytest.fixture
def seen() -> list[Request]:
    return []


@pytest.fixture
def start(seen: list[Request]) -> Start:
    def receiver(*, save: Path | None = None, proofs: Proofs | None = None, port: int = 0, **manners: Any) -> Receiver:
        return Receiver(
            "127.0.0.1",
            port,
            proofs=proofs or Proofs(),
            manners=Manners(**manners),
            show=seen.append,
            save=save,
            clock=SystemClock(),
        )

    return receiver


async def send(receiver: Receiver, *deliveries: Delivery, content: bytes = BODY, **settings: Any) -> list[int]:
    """The statuses of answers, one after the other."""
    statuses = []
    async with Sender("crm", endpoint(receiver.url, **settings), clock=SystemClock()) as sender:
        for delivery in deliveries or (DELIVERY,):
            outcome = await sender.post(delivery, content)
            assert isinstance(outcome, Answered)
            statuses.append(outcome.status)
    return statuses


async def test_a_good_request_with_all_that_it_says(start: Start, seen: list[Request]) -> None:
    async with start(proofs=Proofs("s3cret", (KEY,))) as receiver:
        assert await send(receiver, secret_token="s3cret", signing_secrets=[WHSEC]) == [200]
    (request,) = seen
    assert (request.token, request.signature, request.known, request.status) == (Check.OK, Check.OK, Known.NEW, 200)
    assert (request.event_id, request.body, request.payload) == (DELIVERY.event_id, BODY, json.loads(BODY))


@pytest.mark.parametrize(
    ("settings", "token", "signature"),
    [
        ({"signing_secrets": [WHSEC]}, Check.MISSING, Check.OK),
        ({"signing_secrets": [WHSEC], "secret_token": "x"}, Check.WRONG, Check.OK),
        ({"secret_token": "s3cret"}, Check.OK, Check.MISSING),
        ({"secret_token": "s3cret", "signing_secrets": ["whsec_" + "A" * 43]}, Check.OK, Check.WRONG),
    ],
)
async def test_without_its_proofs_a_request_is_answered_401(
    start: Start, seen: list[Request], settings: dict[str, Any], token: Check, signature: Check
) -> None:
    async with start(proofs=Proofs("s3cret", (KEY,))) as receiver:
        assert await send(receiver, **settings) == [401]
        assert receiver.counts == Counts(requests=1, refused=1)
    assert (seen[0].token, seen[0].signature) == (token, signature)


async def test_a_duplicate_is_what_was_accepted_before(start: Start, seen: list[Request]) -> None:
    async with start(status=503, fail_every=2) as receiver:
        other = DELIVERY._replace(event_id="Message:m2")
        assert await send(receiver, DELIVERY, other, other, DELIVERY, DELIVERY) == [200, 503, 200, 503, 200]
        assert receiver.counts == Counts(requests=5, accepted=3, failed=2, duplicates=2)
    assert [request.known for request in seen] == [Known.NEW, Known.NEW, Known.AGAIN, Known.DUPLICATE, Known.DUPLICATE]


@pytest.mark.parametrize(
    ("manners", "statuses"),
    [({"status": 500}, [500] * 4), ({"status": 204}, [204] * 4), ({"status": 500, "fail_every": 3}, [200, 200, 500, 200])],
)
async def test_it_fails_when_told_to(start: Start, manners: dict[str, Any], statuses: list[int]) -> None:
    async with start(**manners) as receiver:
        assert await send(receiver, *[DELIVERY] * 4) == statuses


async def test_it_takes_its_time_when_told_to(start: Start) -> None:
    async with start(delay_s=0.2) as receiver, Sender("crm", endpoint(receiver.url), clock=SystemClock()) as sender:
        outcome = await sender.post(DELIVERY, BODY)
    assert outcome.duration_s >= 0.2


@pytest.mark.parametrize(
    "content", [b"", b"\xff\x00", b"{", b'"text"', b"[" * 100_000], ids=["none", "bytes", "half", "text", "deep"]
)
async def test_whatever_the_body_is(start: Start, seen: list[Request], content: bytes) -> None:
    async with start() as receiver:
        assert await send(receiver, content=content) == [200]
    assert seen[0].body == content


async def test_a_body_without_end_is_refused(start: Start, seen: list[Request]) -> None:
    async def content() -> Any:
        for _ in range(LARGEST_BODY // 1_000_000 + 2):
            yield b"x" * 1_000_000

    async with start() as receiver, aiohttp.ClientSession() as session, session.post(receiver.url, data=content()) as response:
        assert response.status == 413
    assert "more than" in seen[0].note
    assert seen[0].body == b""


async def test_what_is_no_post(start: Start, seen: list[Request]) -> None:
    async with start() as receiver, aiohttp.ClientSession() as session, session.get(f"{receiver.url}a/b?c=d") as response:
        assert (response.status, response.headers["Allow"]) == (405, "POST")
    assert (seen[0].method, seen[0].path, seen[0].known) == ("GET", "/a/b?c=d", Known.NEW)


def files(folder: Path) -> list[tuple[Path, bytes]]:
    """Where they are, and what is in them."""
    return [(path.parent, path.read_bytes()) for path in folder.rglob("*") if path.is_file()]


class TestSave:
    @pytest.mark.parametrize("event_id", ["Message:m1", "../../etc/passwd", "a/b", "x" * 500, ".."])
    async def test_bodies_are_files_of_that_folder_whatever_their_id(self, start: Start, tmp_path: Path, event_id: str) -> None:
        folder = tmp_path / "new" / "folder"
        async with start(save=folder) as receiver:
            assert await send(receiver, DELIVERY._replace(event_id=event_id)) == [200]
        assert files(tmp_path) == [(folder, BODY)]

    async def test_each_try_is_kept(self, start: Start, tmp_path: Path) -> None:
        async with start(save=tmp_path) as receiver:
            await send(receiver, *[DELIVERY] * 3)
        assert files(tmp_path) == [(tmp_path, BODY)] * 3

    async def test_a_folder_that_cannot_be_written_is_said_and_the_answer_stays(
        self, start: Start, seen: list[Request], tmp_path: Path
    ) -> None:
        (tmp_path / "file").write_text("")
        async with start(save=tmp_path / "file") as receiver:
            assert await send(receiver) == [200]
        assert "not saved to" in seen[0].note


async def test_an_address_that_another_process_has(start: Start) -> None:
    async with start() as receiver:
        port = int(receiver.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(DaemonError, match=f"cannot listen on 127.0.0.1:{port}"):
            async with start(port=port):
                await asyncio.sleep(0)
