"""Endpoints that fail, hang or are away, and relays that stop in between."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import pytest

from daemon.app import App
from daemon.config.file import load
from daemon.demo.receiver import Answer, Received, Receiver
from daemon.errors import OutboxError
from tests.flow import traffic
from tests.flow.harness import TOKEN, RelayProcess, accepted, eventually, payloads, query, running, write_config
from tests.flow.traffic import Database


@pytest.mark.parametrize("status", [400, 201, 302], ids=str)
async def test_ten_tries_then_dead(mongodb_uri: str, database: Database, tmp_path: Path, status: int) -> None:
    """Without a 200: exactly ten requests for an event, the same bytes each; then it is dead, with its history."""
    await traffic.load_initial(database)
    start = next(row for row in traffic.rows("S1") if row["collection"] == "rocketchat_room")
    visitor = next(row for row in traffic.rows("S1") if row["collection"] == "rocketchat_livechat_visitor")
    async with Receiver(token=TOKEN, behave=lambda _: Answer(status=status, body="no thanks")) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config):
            await traffic.write(database, [visitor, {**start, "transaction": None}])
            await eventually(lambda: query(tmp_path, "SELECT 1 FROM deliveries WHERE state = 'dead'"), "a dead letter")
    assert [exchange.received.attempt for exchange in receiver.exchanges] == list(range(1, 11))
    assert len({exchange.received.body for exchange in receiver.exchanges}) == 1
    assert query(tmp_path, "SELECT number, outcome, status, answer FROM attempts ORDER BY number") == [
        (number, "answered", status, b"no thanks") for number in range(1, 11)
    ]
    ((content,),) = query(tmp_path, "SELECT content FROM bodies")
    assert content == receiver.exchanges[0].received.body
    assert query(tmp_path, "SELECT reason FROM deliveries") == [(f"10 tries failed, the last one: answered {status}",)]


async def test_an_address_that_requests_do_not_go_to(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """No outage, which would wait for nothing, but dead letters that name the setting."""
    await traffic.load_initial(database)
    async with Receiver(token=TOKEN) as receiver:
        few, send = {"retry": {"wait": "10ms", "tries": 2}}, {"deny": ["127.0.0.0/8"]}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=few, send=send)
        async with running(config):
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: query(tmp_path, "SELECT 1 FROM deliveries WHERE state = 'dead'"), "a dead letter")
    assert receiver.exchanges == []
    ((reason,),) = query(tmp_path, "SELECT DISTINCT reason FROM deliveries WHERE state = 'dead'")
    assert reason.startswith("2 tries failed, the last one: 127.0.0.1 is in 127.0.0.0/8 (send.deny)")
    assert "send.allow" in reason


async def test_a_failing_session_holds_up_nobody_else(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    want = traffic.by_session(traffic.expected("S1"))
    poisoned = next(iter(want))

    def behave(received: Received) -> Answer:
        return Answer(status=500 if poisoned in received.event_id else 200)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        slow = {"retry": {"wait": "1h"}}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, endpoint=slow)
        async with running(config):
            await traffic.write(database, traffic.rows("S1"))
            others = sum(len(bodies) for session, bodies in want.items() if session != poisoned)
            await eventually(lambda: len(accepted(receiver)) >= others, "the other sessions")
        got = traffic.by_session(payloads(receiver))
        assert got == {session: bodies for session, bodies in want.items() if session != poisoned}
        # One try of its first event; the events behind it wait their turn.
        assert sum(not exchange.accepted for exchange in receiver.exchanges) == 1


async def test_endpoints_do_not_wait_for_each_other(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    async with Receiver(token=TOKEN) as receiver, Receiver(behave=lambda _: Answer(delay_s=3600)) as stuck:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, relay={"grace": "100ms"})
        text = config.read_text().replace("serve:", f"  stuck:\n    url: {stuck.url}\n    events: [LivechatSession]\nserve:")
        config.write_text(text)
        async with running(config):
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks of the healthy endpoint")
    owed = query(
        tmp_path, "SELECT count(*) FROM deliveries JOIN events USING (sequence) WHERE endpoint = 'stuck' AND state = 'pending'"
    )
    assert owed == [(sum(payload["type"] == "LivechatSession" for payload in want),)]


async def test_stop_lets_requests_finish(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """A request in flight at the stop gets its answer; nothing new leaves; the rest is sent after the next start."""
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def behave(_: Received) -> Answer:
        reached.set()
        await go_on.wait()
        return Answer()

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        app, stop = App(load(config)), asyncio.Event()
        relay = asyncio.create_task(app.run(stop))
        await eventually(lambda: app.health.not_ready() is None)
        await traffic.write(database, traffic.rows("S1"))
        await reached.wait()
        stop.set()
        await eventually(lambda: app.health.not_ready() == "stopping")
        go_on.set()
        await relay
        done = len(receiver.exchanges)
        assert 0 < done < len(want)
        assert query(tmp_path, "SELECT count(*) FROM attempts WHERE outcome = 'answered'") == [(done,)]
        assert query(tmp_path, "SELECT count(*) FROM attempts WHERE outcome IS NULL") == [(0,)]
        async with running(config):
            await eventually(lambda: len(accepted(receiver)) >= len(want), "the rest")
        assert len(receiver.exchanges) == len(want)
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


async def test_interrupted_attempt_is_counted_and_repeated(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """SIGKILL while the receiver has the request: the next start sends the same event again as a further attempt."""
    await traffic.load_initial(database)
    reached = asyncio.Event()

    async def behave(received: Received) -> Answer:
        reached.set()
        return Answer(delay_s=0 if received.attempt > 1 else 3600)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with RelayProcess(config) as relay:
            await traffic.write(database, traffic.rows("S1")[:4])
            await reached.wait()
            await relay.kill()
            await relay.start()
            await eventually(lambda: accepted(receiver), "the repeated request")
            assert await relay.stop() == 0
        assert accepted(receiver)[0].received.attempt == 2
    assert query(tmp_path, "SELECT number, outcome FROM attempts") == [(1, "interrupted"), (2, "answered")]
    assert query(tmp_path, "SELECT attempts, failures, state FROM deliveries") == [(2, 0, "delivered")]


async def test_second_relay_is_refused(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/")
    async with RelayProcess(config) as relay:
        with pytest.raises(OutboxError, match=f"in use by another relay .process {relay.process.pid}"):
            await App(load(config)).run(asyncio.Event())
        assert await relay.stop() == 0


async def test_closed_session_without_closing_message_is_sent_after_settle(
    mongodb_uri: str, database: Database, tmp_path: Path
) -> None:
    await traffic.load_initial(database)
    rows = [row for row in traffic.rows("S1") if row.get("document", {}).get("t") != "livechat-close"]
    closed = sum(payload["type"] == "LivechatSession" for payload in traffic.expected("S1"))
    async with Receiver(token=TOKEN) as receiver:
        quick = {"settle": "300ms"}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, compose=quick)
        async with running(config):
            await traffic.write(database, rows)
            await eventually(
                lambda: sum(payload["type"] == "LivechatSession" for payload in payloads(receiver)) == closed, "closed sessions"
            )
        sessions = [payload for payload in payloads(receiver) if payload["type"] == "LivechatSession"]
        assert all(payload["messages"] and "closingMessage" not in payload["messages"][-1] for payload in sessions)


async def test_latency_is_measured_from_the_change(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    async with Receiver(token=TOKEN) as receiver:
        async with running(write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)) as app:
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(traffic.expected("S1")))
            await eventually(lambda: b'attempts_total{endpoint="crm",outcome="delivered"} 20.0' in app.metrics.render())
            page = app.metrics.render().decode()
        assert 'livechat_relay_relay_delivery_seconds_count{endpoint="crm"} 20.0' in page
        assert all(exchange.at > datetime(2026, 1, 1, tzinfo=UTC) for exchange in receiver.exchanges)
