"""Recorded traffic yields what Rocket.Chat would have sent: read live, read late, and read by a relay that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest

from daemon.demo.receiver import Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, RelayProcess, accepted, eventually, payloads, query, running, write_config
from tests.flow.traffic import Database


@pytest.fixture(name="uri")
def _uri(mongodb_uri: str) -> str:
    return mongodb_uri


@pytest.mark.parametrize("scenarios", [("S1",), ("S2",), ("S7",), ("S1", "S2", "S7")], ids="+".join)
async def test_live(uri: str, database: Database, tmp_path: Path, scenarios: tuple[str, ...]) -> None:
    await traffic.load_initial(database)
    want = traffic.expected(*scenarios)
    async with Receiver(token=TOKEN) as receiver:
        async with running(write_config(tmp_path, uri=uri, database=database.name, url=receiver.url)):
            await traffic.write(database, traffic.rows(*scenarios))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
        assert len(receiver.exchanges) == len(want)


async def test_what_is_not_livechat_yields_nothing(uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    async with Receiver(token=TOKEN) as receiver:
        async with running(write_config(tmp_path, uri=uri, database=database.name, url=receiver.url)):
            await traffic.write(database, traffic.rows("S11", "S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(traffic.expected("S1")), "the webhooks of S1")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(traffic.expected("S1"))


@pytest.mark.parametrize("share", [0.1, 0.35, 0.6, 0.9])
async def test_stopped_while_it_happens(uri: str, database: Database, tmp_path: Path, share: float) -> None:
    """A relay that was away for the rest of the traffic sends the same bytes afterwards."""
    await traffic.load_initial(database)
    rows = traffic.rows("S1", "S2", "S7")
    want = traffic.expected("S1", "S2", "S7")
    cut = int(len(rows) * share)
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=uri, database=database.name, url=receiver.url)
        async with running(config):
            await traffic.write(database, rows[:cut])
        await traffic.write(database, rows[cut:])
        async with running(config):
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
        assert len(receiver.exchanges) == len(want)


async def test_first_started_afterwards(uri: str, database: Database, tmp_path: Path) -> None:
    """A relay that starts from a time before the traffic, when all of it is over, sends the same bytes."""
    await traffic.load_initial(database)
    before = (await database.client.admin.command("ping"))["operationTime"].as_datetime()
    rows = traffic.rows("S1", "S2", "S7")
    want = traffic.expected("S1", "S2", "S7")
    await traffic.write(database, rows)
    async with Receiver(token=TOKEN) as receiver:
        start = {"capture": {"start": before.isoformat()}}
        async with running(write_config(tmp_path, uri=uri, database=database.name, url=receiver.url, **start)):
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


@pytest.mark.parametrize("kills", [(40,), (20, 60, 100), (70, 71, 72, 73)], ids=str)
async def test_killed_in_the_middle(uri: str, database: Database, tmp_path: Path, kills: tuple[int, ...]) -> None:
    """SIGKILL after these many writes of S1: nothing is lost, order holds, and only a request in flight may come twice."""
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=uri, database=database.name, url=receiver.url)
        async with RelayProcess(config) as relay:
            pending = list(kills)
            async for done in traffic.writing(database, traffic.rows("S1")):
                while pending and done >= pending[0]:
                    pending.pop(0)
                    await relay.kill()
                    await relay.start(ready=not pending)
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
            assert await relay.stop() == 0
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
        sequences = [exchange.received.sequence for exchange in accepted(receiver)]
        assert len(set(sequences)) == len(want)
        assert len(receiver.exchanges) - len(want) <= len(kills)
    ids = [event_id for (event_id,) in query(tmp_path, "SELECT id FROM events")]
    assert len(ids) == len(set(ids)) == len(want)
    assert query(tmp_path, "SELECT DISTINCT state FROM deliveries") == [("delivered",)]
