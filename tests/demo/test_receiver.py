"""The receiver: records what came, checks the token, and misbehaves as it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import aiohttp
import pytest
import pytest_asyncio

from daemon.demo.receiver import Answer, Flaky, Received, Receiver

TOKEN = "secret"


@pytest_asyncio.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def send(
    http: aiohttp.ClientSession, receiver: Receiver, event: str = "Message:m1", attempt: int = 1, token: str = TOKEN
) -> int:
    headers = {
        "X-RocketChat-Livechat-Token": token,
        "X-Livechat-Relay-Event-Id": event,
        "X-Livechat-Relay-Attempt": str(attempt),
        "X-Livechat-Relay-Sequence": "17",
    }
    async with http.post(receiver.url, data=b'{"type": "Message"}', headers=headers) as response:
        return response.status


async def test_it_records_what_came(http: aiohttp.ClientSession) -> None:
    async with Receiver(token=TOKEN) as receiver:
        assert await send(http, receiver, "Message:m1", attempt=2) == 200
    (exchange,) = receiver.exchanges
    assert exchange.accepted
    assert (exchange.event_id, exchange.received.attempt, exchange.received.sequence) == ("Message:m1", 2, 17)
    assert exchange.received.payload == {"type": "Message"}
    assert exchange.received.headers["Content-Length"] == "19"


async def test_a_wrong_token_is_refused_whatever_it_is_told(http: aiohttp.ClientSession) -> None:
    async with Receiver(token=TOKEN) as receiver:
        assert await send(http, receiver, token="wröng") == 401
        assert await send(http, receiver, token="") == 401
    assert [exchange.status for exchange in receiver.exchanges] == [401, 401]


async def test_headers_that_are_missing_or_odd_do_not_break_it(http: aiohttp.ClientSession) -> None:
    async with (
        Receiver() as receiver,
        http.post(receiver.url, data=b"\xff", headers={"X-Livechat-Relay-Attempt": "x"}) as response,
    ):
        assert response.status == 200
    received = receiver.exchanges[0].received
    assert (received.event_id, received.attempt, received.sequence, received.body) == ("", 0, 0, b"\xff")


async def test_it_can_close_the_connection_be_slow_and_change_its_mind(http: aiohttp.ClientSession) -> None:
    async def behave(received: Received) -> Answer:
        await asyncio.sleep(0)
        return Answer(status=None) if received.attempt == 1 else Answer(status=503, delay_s=0.05, headers=(("Retry-After", "1"),))

    async with Receiver(behave=behave) as receiver:
        with pytest.raises(aiohttp.ClientError):
            await send(http, receiver, attempt=1)
        assert await send(http, receiver, attempt=2) == 503
        receiver.behave = lambda received: Answer()
        assert await send(http, receiver, attempt=3) == 200
    assert [exchange.status for exchange in receiver.exchanges] == [None, 503, 200]


async def test_it_can_go_away_and_come_back_on_the_same_port(http: aiohttp.ClientSession) -> None:
    async with Receiver() as receiver:
        url = receiver.url
        await receiver.stop()
        with pytest.raises(aiohttp.ClientError):
            await send(http, receiver)
        await receiver.start()
        assert receiver.url == url
        assert await send(http, receiver) == 200


def test_the_flaky_behaviour_is_repeatable_and_always_gives_in() -> None:
    def statuses(flaky: Flaky, event: str) -> list[int | None]:
        requests = [Received(event, n, 0, None, b"", {}, datetime(2026, 1, 1, tzinfo=UTC)) for n in range(1, 6)]
        return [flaky(request).status for request in requests]

    events = [f"Message:{n}" for n in range(400)]
    first = [statuses(Flaky(7, share=0.3, most=3), event) for event in events]
    assert first == [statuses(Flaky(7, share=0.3, most=3), event) for event in events]
    assert first != [statuses(Flaky(8, share=0.3, most=3), event) for event in events]
    assert all(answers[3:] == [200, 200] for answers in first)
    assert 80 < sum(answers[0] != 200 for answers in first) < 160
    assert {status for answers in first for status in answers} == {200, 500, 503, None}
