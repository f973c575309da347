"""A receiver that is down costs time, not events: they wait in their order, lose no tries, and follow when it is back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from daemon.demo.receiver import Answer, Received, Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, query, running, write_config
from tests.flow.traffic import Database

SHORT = {"retry": {"tries": 3, "wait": "20ms", "outage_probe": "50ms"}}


def states(folder: Path) -> dict[str, int]:
    return dict(query(folder, "SELECT state, count(*) FROM deliveries GROUP BY state"))


def down_since(folder: Path) -> list[Any]:
    return [since for (since,) in query(folder, "SELECT down_since FROM endpoints")]


async def test_events_wait_and_follow_in_order(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """Down for all of the traffic and over a restart; then everything arrives once, in order per session."""
    await traffic.load_initial(database)
    want = traffic.expected("S1", "S2")
    down = True

    async with Receiver(token=TOKEN, behave=lambda _: Answer(status=503 if down else 200)) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=SHORT)
        async with running(config):
            await traffic.write(database, traffic.rows("S1", "S2"))
            await eventually(lambda: states(tmp_path).get("suspended", 0) == 4, "a suspended head in each of the four sessions")
            before = len(receiver.exchanges)
            await eventually(lambda: len(receiver.exchanges) >= before + 8, "probes")
            assert "dead" not in states(tmp_path)
        async with running(config):
            assert down_since(tmp_path) != [None]
            down = False
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
            await eventually(lambda: states(tmp_path) == {"delivered": len(want)}, "a settled outbox")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
        assert down_since(tmp_path) == [None]
    # Only heads of lanes were ever tried, one request at a time once the endpoint was down.
    probed = {exchange.event_id for exchange in receiver.exchanges if not exchange.accepted}
    assert len(probed) == 4


async def test_one_poisoned_session_does_not_keep_an_endpoint_down(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """Probes rotate over the sessions; when one gets through, the poisoned one has a round among successes, and is dead."""
    await traffic.load_initial(database)
    want = traffic.by_session(traffic.expected("S1"))
    poisoned = next(iter(want))
    down = True

    def behave(received: Received) -> Answer:
        return Answer(status=500 if down or f"LivechatSessionStart:{poisoned}" == received.event_id else 200)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=SHORT)
        async with running(config):
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: states(tmp_path).get("suspended", 0) == 3, "three suspended heads")
            down = False
            total = sum(len(bodies) for bodies in want.values())
            await eventually(lambda: states(tmp_path) == {"delivered": total - 1, "dead": 1}, "one dead, the others delivered")
        want[poisoned] = want[poisoned][1:]
        assert traffic.by_session(payloads(receiver)) == want


async def test_an_event_alone_is_tried_ten_times_then_probed(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    alone = {"events": ["LivechatSessionStart"], "retry": {"wait": "20ms", "outage_probe": "1h"}}
    rows = [
        {**row, "transaction": None}
        for row in traffic.rows("S1")
        if row["collection"] in ("rocketchat_room", "rocketchat_livechat_visitor")
    ]
    async with Receiver(token=TOKEN, behave=lambda _: Answer(status=500)) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=alone)
        async with running(config):
            await traffic.write(database, rows[:2])
            await eventually(lambda: states(tmp_path) == {"suspended": 1}, "a suspended event")
            await asyncio.sleep(0.3)
    assert [exchange.received.attempt for exchange in receiver.exchanges] == list(range(1, 11))


async def test_too_old_is_dead_and_off_means_off(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """`max_age` ends a wait, and with `outage_probe: 0s` an event that used up its tries is dead at once."""
    await traffic.load_initial(database)
    (tmp_path / "old").mkdir()
    (tmp_path / "off").mkdir()
    old = {"retry": {"tries": 2, "wait": "20ms", "outage_probe": "50ms", "max_age": "400ms"}}
    off = {"retry": {"tries": 2, "wait": "20ms", "outage_probe": "0s"}}
    total = len(traffic.expected("S1"))
    async with Receiver(token=TOKEN, behave=lambda _: Answer(status=500)) as receiver:
        first = write_config(tmp_path / "old", uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=old)
        second = write_config(tmp_path / "off", uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=off)
        async with running(first), running(second):
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: states(tmp_path / "old") == {"dead": total}, "all dead of age")
            await eventually(lambda: states(tmp_path / "off") == {"dead": total}, "all dead after their tries")
    assert down_since(tmp_path / "off") == []
    reasons = {reason.split(",")[0] for (reason,) in query(tmp_path / "old", "SELECT reason FROM deliveries")}
    assert reasons == {"older than max_age"}
    assert {reason for (reason,) in query(tmp_path / "off", "SELECT reason FROM deliveries")} == {
        "2 tries failed, the last one: answered 500"
    }
