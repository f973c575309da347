"""From what aiohttp says to an outcome, where the connection does not matter."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from typing import Any
from unittest.mock import Mock

import aiohttp
import pytest
from aioresponses import aioresponses, core

from daemon.model import Answered, TimedOut, Unreachable
from daemon.send.client import Sender
from tests.clocks import FakeClock
from tests.send.conftest import BODY, DELIVERY, endpoint

URL = "https://crm.example.org/hook"


@pytest.fixture
def mocked(monkeypatch: pytest.MonkeyPatch) -> Iterator[aioresponses]:
    """aioresponses 0.7.9 does not know that an answer of aiohttp 3.14 belongs to a stream writer."""

    class Response(aiohttp.ClientResponse):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{"stream_writer": Mock(output_size=0), **options})

    monkeypatch.setattr(core, "ClientResponse", Response)
    with aioresponses() as patched:
        yield patched


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        pytest.param(TimeoutError(), TimedOut(0), id="time-out"),
        pytest.param(aiohttp.ServerTimeoutError("slow"), TimedOut(0), id="server time-out"),
        pytest.param(aiohttp.ConnectionTimeoutError("slow"), TimedOut(0), id="connection time-out"),
        pytest.param(
            aiohttp.ServerDisconnectedError(), Unreachable("ServerDisconnectedError: Server disconnected", 0), id="gone"
        ),
        pytest.param(aiohttp.ClientPayloadError("cut"), Unreachable("ClientPayloadError: cut", 0), id="cut body"),
        pytest.param(ConnectionResetError(104, "reset"), Unreachable("ConnectionResetError: [Errno 104] reset", 0), id="reset"),
        pytest.param(OSError(24, "too many"), Unreachable("OSError: [Errno 24] too many", 0), id="no file descriptors"),
        pytest.param(ssl.SSLError(1, "wrong"), Unreachable("SSLError: wrong", 0), id="TLS"),
        pytest.param(ValueError("odd"), Unreachable("ValueError: odd", 0), id="value"),
    ],
)
async def test_errors(mocked: aioresponses, error: Exception, expected: object) -> None:
    mocked.post(URL, exception=error)
    async with Sender("crm", endpoint(URL), clock=FakeClock()) as sender:
        assert await sender.post(DELIVERY, BODY) == expected


async def test_an_answer(mocked: aioresponses) -> None:
    mocked.post(URL, status=207, body=b"a" * 100_000)
    async with Sender("crm", endpoint(URL), clock=FakeClock()) as sender:
        assert await sender.post(DELIVERY, BODY) == Answered(207, b"a" * 65536, 0)


async def test_a_long_error_is_cut(mocked: aioresponses) -> None:
    mocked.post(URL, exception=aiohttp.ClientError("x" * 9000))
    async with Sender("crm", endpoint(URL), clock=FakeClock()) as sender:
        outcome = await sender.post(DELIVERY, BODY)
    assert isinstance(outcome, Unreachable)
    assert len(outcome.error) == 300


async def test_what_is_no_fault_of_the_endpoint_is_raised(mocked: aioresponses) -> None:
    mocked.post(URL, exception=ZeroDivisionError())
    async with Sender("crm", endpoint(URL), clock=FakeClock()) as sender:
        with pytest.raises(ZeroDivisionError):
            await sender.post(DELIVERY, BODY)
