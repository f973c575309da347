"""An outbox that may not grow further: reading pauses and says so, nothing is lost, and it goes on when there is room."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from daemon import flow
from daemon.app import App
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
        relay = asyncio.create_task(app.run(stop))
        await eventually(lambda: "outbox.max_size" in (app.health.not_ready() or ""), "a relay that pauses")
        await traffic.write(database, traffic.rows("S1"))
        stop.set()
        await relay
        assert receiver.exchanges == []

        config.write_text(roomy, encoding="utf-8")
        async with running(config):
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
