"""An outbox that may not grow further: reading pauses and says so, nothing is lost, and it goes on when there is room."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from daemon import flow
from daemon.app import App
from daemon.capture.oplog import OplogWatch
from daemon.config.file import load
from daemon.demo.receiver import Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, running, write_config
from tests.flow.traffic import Database


async def test_reading_pauses_while_it_is_full(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_MEASURE_EVERY_S", 0.05)
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config):
            pass  # the position from which the traffic must be read in the end
        roomy = config.read_text(encoding="utf-8")
        config.write_text(roomy.replace("outbox:\n", "outbox:\n  max_size: 10kB\n"), encoding="utf-8")
        app, stop = App(load(config)), asyncio.Event()
        with capture_logs() as lines:
            relay = asyncio.create_task(app.run(stop))
            await eventually(lambda: any(line["event"] == "capture.paused" for line in lines), "a relay that pauses and says so")
            assert "outbox.max_size" in (app.health.not_ready() or "")
            await traffic.write(database, traffic.rows("S1"))
            stop.set()
            await relay
        assert receiver.exchanges == []
        (paused,) = (line for line in lines if line["event"] == "capture.paused")
        assert paused["log_level"] == "error"
        assert "oplog_left_hours" in paused
        assert "outbox.max_size" in paused["hint"]

        config.write_text(roomy, encoding="utf-8")
        async with running(config):
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


async def test_warns_again_whenever_half_of_the_oplog_is_gone(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And only then: neither for small steps nor while it cannot be told."""
    monkeypatch.setattr(flow, "_MEASURE_EVERY_S", 0.01)
    monkeypatch.setattr(flow, "_LOOK_AT_OPLOG_EVERY_S", 0.0)
    left = iter([36_000.0, 30_000.0, 18_000.0, 17_999.0, None, 9_000.0, 8_900.0, 3_600.0, 0.0])
    last = asyncio.Event()

    async def look(_: object) -> float | None:
        found = next(left, 0.0)
        if found == 0.0:
            last.set()
        return found

    monkeypatch.setattr(OplogWatch, "look", look)
    await traffic.load_initial(database)
    outbox = {"url": f"sqlite:///{tmp_path / 'outbox.db'}", "max_size": "10kB"}
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/", outbox=outbox)
    stop = asyncio.Event()
    with capture_logs() as lines:
        relay = asyncio.create_task(App(load(config)).run(stop))
        async with asyncio.timeout(20):
            await last.wait()
            await eventually(lambda: [line for line in lines if line.get("oplog_left_hours") == 0.0], "the last warning")
        stop.set()
        await relay
    assert [line["oplog_left_hours"] for line in lines if line["event"] == "capture.paused"] == [10.0, 5.0, 2.5, 1.0, 0.0]
