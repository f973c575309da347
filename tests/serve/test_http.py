"""The operator's window, asked over HTTP."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass

import aiohttp
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families

from daemon.errors import DaemonError
from daemon.metrics import Metrics
from daemon.serve.health import Health
from daemon.serve.http import Server
from tests.clocks import START, FakeClock


@dataclass
class Window:
    """A running server and what it shows."""

    url: str
    clock: FakeClock
    health: Health
    metrics: Metrics
    session: aiohttp.ClientSession

    async def get(self, path: str) -> tuple[int, object]:
        async with self.session.get(self.url + path) as response:
            return response.status, await response.json()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
        return port


@pytest_asyncio.fixture
async def window() -> AsyncIterator[Window]:
    clock, metrics, port = FakeClock(), Metrics(), free_port()
    health = Health(clock)
    async with Server(("127.0.0.1", port), health, metrics), aiohttp.ClientSession() as session:
        yield Window(f"http://127.0.0.1:{port}", clock, health, metrics, session)


class TestLive:
    async def test_loops_that_turn_are_live(self, window: Window) -> None:
        window.health.loops["relay crm"] = window.clock.monotonic
        window.clock.advance(100_000)
        assert await window.get("/livez") == (200, {"live": True, "stuck": []})

    async def test_live_does_not_depend_on_mongodb(self, window: Window) -> None:
        window.health.capture_open(False, "MongoDB is down")
        assert await window.get("/livez") == (200, {"live": True, "stuck": []})

    async def test_a_loop_that_stopped_turning_is_named(self, window: Window) -> None:
        turned_at = window.clock.monotonic()
        window.health.loops["relay crm"] = lambda: turned_at
        window.health.loops["relay archive"] = window.clock.monotonic
        window.clock.advance(119)
        assert await window.get("/livez") == (200, {"live": True, "stuck": []})
        window.clock.advance(2)
        assert await window.get("/livez") == (503, {"live": False, "stuck": ["relay crm"]})

    async def test_a_wall_clock_that_jumps_does_not_matter(self, window: Window) -> None:
        turned_at = window.clock.monotonic()
        window.health.loops["relay crm"] = lambda: turned_at
        window.clock.step(86_400)
        assert await window.get("/livez") == (200, {"live": True, "stuck": []})


FINE = {"ok": True, "reason": None}


def not_ok(reason: str) -> dict[str, object]:
    return {"ok": False, "reason": reason}


class TestBusyOutbox:
    async def test_waiting_for_another_process_is_live_and_not_ready(self, window: Window) -> None:
        turned_at = window.clock.monotonic()
        window.health.loops["relay crm"] = lambda: turned_at
        window.health.capture_open(True)
        window.health.outbox_waiting = lambda: True
        window.clock.advance(1000)
        assert await window.get("/livez") == (200, {"live": True, "stuck": []})
        status, answer = await window.get("/readyz")
        assert status == 503
        assert parts(answer) == {"capture": FINE, "outbox": not_ok("another process is writing to it"), "relay": FINE}

    async def test_afterwards_the_loops_have_time_to_turn(self, window: Window) -> None:
        turned_at = window.clock.monotonic()
        window.health.loops["relay crm"] = lambda: turned_at
        window.health.outbox_waiting = lambda: True
        window.clock.advance(1000)
        await window.get("/livez")
        window.health.outbox_waiting = lambda: False
        window.clock.advance(119)
        assert await window.get("/livez") == (200, {"live": True, "stuck": []})
        window.clock.advance(2)
        assert await window.get("/livez") == (503, {"live": False, "stuck": ["relay crm"]})


def parts(answer: object) -> object:
    assert isinstance(answer, dict)
    return answer["parts"]


class TestReady:
    async def test_not_before_the_change_stream_is_open(self, window: Window) -> None:
        status, answer = await window.get("/readyz")
        assert status == 503
        assert answer == {
            "ready": False,
            "parts": {"capture": not_ok("the change stream is not open: starting"), "outbox": FINE, "relay": FINE},
            "endpoints": {},
        }

    async def test_ready(self, window: Window) -> None:
        window.health.capture_open(True)
        expected = {"ready": True, "parts": {"capture": FINE, "outbox": FINE, "relay": FINE}, "endpoints": {}}
        assert await window.get("/readyz") == (200, expected)

    async def test_why_not(self, window: Window) -> None:
        window.health.capture_open(True)
        window.health.capture_open(False, "no primary")
        status, answer = await window.get("/readyz")
        assert (status, parts(answer)) == (
            503,
            {"capture": not_ok("the change stream is not open: no primary"), "outbox": FINE, "relay": FINE},
        )

    async def test_a_full_outbox(self, window: Window) -> None:
        window.health.capture_open(True)
        window.health.capture_paused("full")
        status, answer = await window.get("/readyz")
        assert (status, parts(answer)) == (
            503,
            {"capture": not_ok("paused: full"), "outbox": not_ok("full"), "relay": FINE},
        )

    async def test_lanes_that_do_not_turn(self, window: Window) -> None:
        turned_at = window.clock.monotonic()
        window.health.capture_open(True)
        window.health.loops["relay crm"] = lambda: turned_at
        window.clock.advance(121)
        status, answer = await window.get("/readyz")
        assert (status, parts(answer)) == (503, {"capture": FINE, "outbox": FINE, "relay": not_ok("stuck: relay crm")})

    async def test_an_endpoint_that_is_down_is_shown_and_no_reason(self, window: Window) -> None:
        window.health.capture_open(True)
        window.health.endpoints.update({"crm": lambda: START, "archive": lambda: None})
        status, answer = await window.get("/readyz")
        assert isinstance(answer, dict)
        assert (status, answer["endpoints"]) == (
            200,
            {"crm": {"up": False, "down_since": START.isoformat()}, "archive": {"up": True, "down_since": None}},
        )

    async def test_stopping(self, window: Window) -> None:
        window.health.capture_open(True)
        window.health.stopping = True
        status, answer = await window.get("/readyz")
        assert (status, parts(answer)) == (
            503,
            {"capture": not_ok("stopping"), "outbox": FINE, "relay": not_ok("stopping")},
        )


class TestMetrics:
    async def test_prometheus_can_read_it(self, window: Window) -> None:
        window.metrics.owed.labels("crm", "pending").set(3)
        async with window.session.get(f"{window.url}/metrics") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
            text = await response.text()
        families = {family.name: family for family in text_string_to_metric_families(text)}
        (sample,) = families["livechat_relay_outbox_owed"].samples
        assert (sample.labels, sample.value) == ({"endpoint": "crm", "state": "pending"}, 3)
        assert "process_resident_memory_bytes" in families

    def test_every_metric_says_what_it_is(self) -> None:
        families = list(Metrics().registry.collect())
        assert len([family for family in families if family.name.startswith("livechat_relay_")]) >= 15
        for family in families:
            assert family.documentation, family.name
            if family.name.startswith("livechat_relay_"):
                assert family.documentation.endswith("."), family.name

    def test_several_relays_can_run_in_one_process(self) -> None:
        first, second = Metrics(), Metrics()
        first.commits.inc()
        assert second.commits._value.get() == 0


class TestAddress:
    async def test_an_address_in_use_is_an_error_that_names_the_setting(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            port = taken.getsockname()[1]
            with pytest.raises(DaemonError) as error:
                async with Server(("127.0.0.1", port), Health(FakeClock()), Metrics()):
                    pass
        assert f"serve.listen: cannot listen on 127.0.0.1:{port}" in str(error.value)
        assert "serve.listen" in error.value.hint

    async def test_an_address_that_is_not_ours(self) -> None:
        with pytest.raises(DaemonError):
            async with Server(("192.0.2.1", 8940), Health(FakeClock()), Metrics()):
                pass

    async def test_it_is_free_again_afterwards(self) -> None:
        port = free_port()
        for _ in range(2):
            async with Server(("127.0.0.1", port), Health(FakeClock()), Metrics()):
                pass

    @pytest.mark.parametrize(("path", "method", "status"), [("/", "GET", 404), ("/livez", "POST", 405), ("/livez", "HEAD", 200)])
    async def test_nothing_else_is_there(self, window: Window, path: str, method: str, status: int) -> None:
        async with window.session.request(method, window.url + path) as response:
            assert response.status == status
