"""What an admin sees while it runs: a lag that is true, figures that follow, and a log that can be lived with."""

from __future__ import annotations

import json
import logging
import math
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import structlog
from motor.motor_asyncio import AsyncIOMotorClient
from prometheus_client.parser import text_string_to_metric_families

from daemon import log
from daemon.app import App
from daemon.config.file import load
from daemon.demo.mongod import EmbeddedMongod
from daemon.demo.receiver import Answer, Receiver
from daemon.metrics import Metrics
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, query, running, write_config
from tests.flow.traffic import Database

LAG = "livechat_relay_capture_lag_seconds"
MANY = 300


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
    yield
    structlog.configure(**before)
    logging.root.handlers[:] = handlers
    logging.root.setLevel(level)


def scrape(metrics: Metrics, name: str, **labels: str) -> float:
    """The value that Prometheus would see now."""
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return float(sample.value)
    return math.nan


@asynccontextmanager
async def client_of(uri: str) -> AsyncIterator[AsyncIOMotorClient[dict[str, Any]]]:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri, tz_aware=True, retryWrites=True)
    try:
        yield client
    finally:
        client.close()


async def test_figures_are_true_when_idle_away_and_catching_up(tmp_path: Path) -> None:
    """A relay that loses MongoDB, is stopped, and started again: its lag rises while it cannot read, and falls to nothing."""
    rows, want = traffic.rows("S1"), traffic.expected("S1")
    owed = {"endpoint": "crm", "state": "pending"}
    patient = {"retry": {"tries": 1000, "wait": "50ms"}}
    behave = Answer(500)
    async with (
        EmbeddedMongod() as mongod,
        Receiver(token=TOKEN, behave=lambda _: behave) as receiver,
        client_of(mongod.uri) as client,
    ):
        database = client["rocketchat"]
        await traffic.load_initial(database)
        uri = f"{mongod.uri}&serverSelectionTimeoutMS=300"
        config = write_config(tmp_path, uri=uri, database="rocketchat", url=receiver.url, endpoint=patient)
        async with running(config) as app:
            await traffic.write(database, rows[:40])
            await eventually(lambda: receiver.exchanges, "a relay that reads")
            await eventually(lambda: scrape(app.metrics, LAG) < 1, "an idle relay")
            await mongod.kill()
            await eventually(lambda: scrape(app.metrics, LAG) > 2.5, "a lag that rises")
            assert scrape(app.metrics, "livechat_relay_ready") == 0
            assert scrape(app.metrics, "livechat_relay_live") == 1
        composed = query(tmp_path, "SELECT count(*) FROM events")[0][0]
        await mongod.start()
        await traffic.write(database, rows[40:])
        async with running(config) as app:
            await eventually(lambda: scrape(app.metrics, "livechat_relay_outbox_owed", **owed) > 0, "figures of the outbox")
            assert scrape(app.metrics, "livechat_relay_outbox_oldest_age_seconds", **owed) > 2.5
            assert scrape(app.metrics, "livechat_relay_relay_lanes", endpoint="crm") > 0
            assert (
                10_000
                < scrape(app.metrics, "livechat_relay_outbox_size_bytes")
                < scrape(app.metrics, "livechat_relay_outbox_max_size_bytes")
            )
            assert scrape(app.metrics, "livechat_relay_outbox_file_bytes") > 10_000
            behave = Answer(200)
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
            await eventually(lambda: scrape(app.metrics, LAG) < 1, "a relay that caught up")
            types = {payload["type"] for payload in want}
            events = [scrape(app.metrics, "livechat_relay_compose_events_total", type=kind) for kind in types]
            assert sum(events) == len(want) - composed
            delivered = partial(scrape, app.metrics, "livechat_relay_relay_delivery_seconds_count", endpoint="crm")
            await eventually(lambda: delivered() >= len(want), "all deliveries on record")
            assert delivered() == len(want)
            assert scrape(app.metrics, "livechat_relay_relay_in_flight", endpoint="crm") == 0
            assert scrape(app.metrics, "livechat_relay_outbox_commit_seconds_count") > 0


async def test_it_is_not_0_before_mongodb_was_ever_there(tmp_path: Path) -> None:
    uri = "mongodb://127.0.0.1:1/?serverSelectionTimeoutMS=100"
    app = App(load(write_config(tmp_path, uri=uri, database="rocketchat", url="http://127.0.0.1:1/")))
    assert math.isnan(scrape(app.metrics, LAG))


async def test_hundreds_of_dead_letters_are_some_lines(
    mongodb_uri: str, database: Database, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each is counted; none is a line of its own, and `deliveries list` has them all."""
    await traffic.load_initial(database)
    refuses = {"events": ["Message"], "retry": {"tries": 1, "wait": "20ms", "final": [410]}}
    log.configure("info", "json")
    async with Receiver(token=TOKEN, behave=lambda _: Answer(410)) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=refuses)
        async with running(config) as app:
            await traffic.write(database, traffic.rows("S1"))
            room = await database["rocketchat_room"].find_one({"t": "l", "open": True})
            message = await database["rocketchat_message"].find_one({"rid": (room or {})["_id"], "t": None})
            await database["rocketchat_message"].insert_many([{**(message or {}), "_id": f"again{n}"} for n in range(MANY)])
            dead = "SELECT count(*) FROM deliveries WHERE state = 'dead'"
            await eventually(lambda: query(tmp_path, dead)[0][0] >= MANY, "dead letters")
            await eventually(lambda: scrape(app.metrics, "livechat_relay_relay_in_flight", endpoint="crm") == 0)
        total = query(tmp_path, dead)[0][0]
        assert scrape(app.metrics, "livechat_relay_relay_dead_total", endpoint="crm") == total
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    counted: Counter[str] = Counter()
    for line in lines:
        counted[line["event"]] += line.get("repeated", 1)
    assert counted["delivery.dead"] == total
    assert len(lines) < 15
