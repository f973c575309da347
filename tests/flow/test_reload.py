"""Another configuration for the running relay: nothing is lost, doubled or out of order, and a faulty one changes nothing."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ruamel.yaml import YAML
from structlog.testing import capture_logs

from daemon.app import App
from daemon.config.file import load
from daemon.demo.receiver import Answer, Received, Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, RelayProcess, accepted, eventually, payloads, query, running, write_config
from tests.flow.traffic import Database

OTHER_TOKEN = "an0ther"


def edit(config: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change the file as an operator does."""
    content = YAML(typ="safe").load(config.read_text(encoding="utf-8"))
    change(content)
    with config.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)


def concurrency(number: int) -> Callable[[dict[str, Any]], object]:
    return lambda content: content["endpoints"]["crm"].update(concurrency=number)


async def told(logs: list[Any], event: str, count: int = 1) -> Any:
    """Wait for the `count`-th line of this event."""

    def lines() -> list[Any]:
        return [line for line in logs if line["event"] == event]

    await eventually(lambda: len(lines()) >= count, event)
    return lines()[count - 1]


async def reload(app: App, logs: list[Any]) -> Any:
    """Reload; gives the line that says what has changed."""
    before = sum(line["event"] == "relay.reloaded" for line in logs)
    app.reload()
    await told(logs, "relay.reloaded", before + 1)
    return [line for line in logs if line["event"] == "relay.reloading"][-1]


async def ask(config: Path, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"http://{load(config).serve.listen}{path}") as response:
        return response.status, await response.json()


@pytest.fixture
def logs() -> Iterator[list[Any]]:
    with capture_logs() as found:
        yield found


async def test_under_traffic_nothing_is_lost_or_doubled(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    want = traffic.expected("S1", "S2")
    async with Receiver(token=TOKEN, behave=lambda _: Answer(delay_s=0.01)) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config) as app:
            reloads = 0
            async for done in traffic.writing(database, traffic.rows("S1", "S2")):
                if done // 15 > reloads:
                    reloads += 1
                    edit(config, concurrency(10 + reloads))
                    app.reload()
                    await asyncio.sleep(0)
            await told(logs, "relay.reloaded")
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
            for _ in range(3):  # what was asked for before may still be on its way
                line = await reload(app, logs)
        assert sum(line["event"] == "relay.reloaded" for line in logs) > 3
        assert line["changed"] == []
        assert len(receiver.exchanges) == len(want)
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
        assert query(tmp_path, "SELECT DISTINCT outcome, number FROM attempts") == [("answered", 1)]


async def test_requests_in_flight_finish_and_what_follows_them_waits(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def behave(_: Received) -> Answer:
        reached.set()
        await go_on.wait()
        return Answer()

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config) as app:
            await traffic.write(database, traffic.rows("S1"))
            await reached.wait()
            edit(config, concurrency(1))
            app.reload()
            await eventually(lambda: "being reloaded" in (app.health.not_ready() or ""), "a relay that drains")
            assert (await ask(config, "/livez"))[0] == 200
            go_on.set()
            await told(logs, "relay.reloaded")
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert len(receiver.exchanges) == len(want)
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


async def test_a_request_longer_than_grace_is_sent_again(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    reached = asyncio.Event()

    async def behave(received: Received) -> Answer:
        reached.set()
        return Answer(delay_s=0 if received.attempt > 1 else 3600)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        config = write_config(
            tmp_path,
            uri=mongodb_uri,
            database=database.name,
            url=receiver.url,
            relay={"grace": "50ms"},
            endpoint={"concurrency": 1},
        )
        async with running(config) as app:
            await traffic.write(database, traffic.rows("S1")[:4])
            await reached.wait()
            await reload(app, logs)
            await eventually(lambda: accepted(receiver), "the repeated request")
        assert accepted(receiver)[0].received.attempt == 2
    assert query(tmp_path, "SELECT number, outcome FROM attempts ORDER BY number")[:2] == [(1, "interrupted"), (2, "answered")]


async def test_a_stop_during_a_reload(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """One grace for both: what is in flight may use it once, then the relay ends."""
    await traffic.load_initial(database)
    reached = asyncio.Event()

    async def behave(_: Received) -> Answer:
        reached.set()
        return Answer(delay_s=3600)

    async with Receiver(token=TOKEN, behave=behave) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, relay={"grace": "300ms"})
        app, stop = App(load(config), read_config=lambda: load(config)), asyncio.Event()
        relay = asyncio.create_task(app.run(stop))
        await eventually(lambda: app.health.not_ready() is None)
        await traffic.write(database, traffic.rows("S1")[:4])
        await reached.wait()
        app.reload()
        await eventually(lambda: "being reloaded" in (app.health.not_ready() or ""), "a relay that drains")
        stop.set()
        async with asyncio.timeout(5):
            await relay
    in_flight = "SELECT started_at IS NOT NULL, failures, state FROM deliveries JOIN lanes USING (endpoint, sequence) LIMIT 1"
    assert query(tmp_path, in_flight) == [(1, 0, "pending")]


async def test_a_new_endpoint_gets_what_happens_from_then_on(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    first, second = traffic.expected("S1"), traffic.expected("S2")
    async with Receiver(token=TOKEN) as receiver, Receiver(token=TOKEN) as archive:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config) as app:
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(first), "what came before")
            new = {"url": archive.url, "secret_token": TOKEN, "profile": "native"}
            edit(config, lambda content: content["endpoints"].update(archive=new))
            line = await reload(app, logs)
            assert {key for key in line["added"] if key.endswith(".secret_token")} == {"endpoints.archive.secret_token"}
            assert TOKEN not in str(line)
            await traffic.write(database, traffic.rows("S2"))
            await eventually(lambda: len(accepted(archive)) >= len(second), "the new endpoint's")
            await eventually(lambda: len(accepted(receiver)) >= len(first + second), "the old endpoint's")
        assert traffic.by_session(payloads(archive)) == traffic.by_session(second)
        assert len(receiver.exchanges) == len(first + second)


async def test_what_a_removed_endpoint_was_owed_is_orphaned_and_visible(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        old = {"url": "http://127.0.0.1:9/", "retry": {"wait": "1h"}}
        edit(config, lambda content: content["endpoints"].update(old=old))
        async with running(config) as app:
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks of the other endpoint")
            edit(config, lambda content: content["endpoints"].pop("old"))
            await reload(app, logs)
            assert (await told(logs, "relay.orphaned"))["endpoint"] == "old"
            _, answer = await ask(config, "/api/v1/endpoints")
            (orphaned,) = [endpoint for endpoint in answer["endpoints"] if endpoint["name"] == "old"]
            assert (orphaned["configured"], orphaned["owed"] > 0) == (False, True)
            assert b'endpoint_up{endpoint="old"}' not in app.metrics.render()
            edit(config, lambda content: content["endpoints"].update(old={**old, "url": receiver.url, "secret_token": TOKEN}))
            await reload(app, logs)
            await eventually(lambda: app.health.not_ready() is None)
    assert query(tmp_path, "SELECT count(*) FROM deliveries WHERE endpoint = 'old' AND state = 'pending'") != [(0,)]


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(("endpoints: [", 1), id="no YAML"),
        pytest.param(("endpoints: {crm: {retry: {tries: 0}}}\nmongo: {}\n", 3), id="several faults"),
        pytest.param(
            ("mongodb: {uri: 'postgres://user:hunter2@host'}\nendpoints: {crm: {url: 'http://x'}}\n", 1), id="no MongoDB"
        ),
        pytest.param(("endpoints: {crm: {url: 'http://x', secret_token_file: /nowhere}}\n", 1), id="no secret"),
    ],
)
async def test_a_bad_file_changes_nothing_and_says_every_fault(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any], bad: tuple[str, int]
) -> None:
    text, faults = bad
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        good = config.read_text(encoding="utf-8")
        async with running(config) as app:
            config.write_text(text, encoding="utf-8")
            app.reload()
            line = await told(logs, "relay.reload_refused")
            assert line["log_level"] == "error"
            assert "hunter2" not in str(line)
            assert app.health.note == f"the configuration was not reloaded: {faults} fault{'s' * (faults > 1)}, see the log"
            assert app.health.not_ready() is None
            assert not [line for line in logs if line["event"] == "relay.reloading"]
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
            config.write_text(good, encoding="utf-8")
            await reload(app, logs)
            assert app.health.note is None


async def test_a_configuration_that_does_not_work_is_given_up(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    """What is only found when MongoDB is asked: the configuration from before is back, and nothing is lost."""
    await traffic.load_initial(database)
    want = traffic.expected("S1")
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config) as app:
            edit(config, lambda content: content["mongodb"].update(database="nothing_here"))
            app.reload()
            line = await told(logs, "relay.reload_failed")
            assert "mongodb.database" in line["hint"]
            await eventually(lambda: app.health.not_ready() is None, "the relay as before")
            assert "from before is back" in (app.health.note or "")
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
            assert (await ask(config, "/readyz"))[0] == 200


async def test_a_secret_that_was_changed_in_its_file_is_taken(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    secret = tmp_path / "token"
    secret.write_text(TOKEN, encoding="utf-8")
    async with Receiver() as receiver:
        config = write_config(
            tmp_path,
            uri=mongodb_uri,
            database=database.name,
            url=receiver.url,
            endpoint={"secret_token": None, "secret_token_file": str(secret)},
        )
        async with running(config) as app:
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(traffic.expected("S1")))
            secret.write_text(OTHER_TOKEN, encoding="utf-8")
            line = await reload(app, logs)
            assert (line["added"], line["removed"]) == ([], [])
            assert line["changed"] == ["endpoints.crm.secret_token_file (content)"]
            await traffic.write(database, traffic.rows("S2"))
            await eventually(lambda: len(accepted(receiver)) >= len(traffic.expected("S1", "S2")))
        tokens = [exchange.received.token or "" for exchange in receiver.exchanges]
        assert tokens == sorted(tokens, reverse=True)
        assert set(tokens) == {TOKEN, OTHER_TOKEN}


async def test_what_only_a_start_can_change_is_named_and_the_rest_applied(
    mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]
) -> None:
    await traffic.load_initial(database)
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/")
    before = load(config)
    async with running(config) as app:
        edit(config, lambda content: content["serve"].update(listen="127.0.0.1:1"))
        edit(config, lambda content: content["outbox"].update(url=f"sqlite:///{tmp_path}/other.db", keep_delivered="1h"))
        line = await reload(app, logs)
        assert line["changed"] == ["outbox.keep_delivered: 7d -> 1h"]
        assert (await told(logs, "relay.restart_needed"))["keys"] == ["outbox.url", "serve.listen"]
        assert app.health.note == "restart needed for outbox.url, serve.listen"
        assert not (tmp_path / "other.db").exists()
        async with aiohttp.ClientSession() as http, http.get(f"http://{before.serve.listen}/api/v1/status") as response:
            assert (await response.json())["note"] == app.health.note


async def test_the_token_of_the_api_is_taken_over(mongodb_uri: str, database: Database, tmp_path: Path, logs: list[Any]) -> None:
    await traffic.load_initial(database)
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/")
    async with running(config) as app, aiohttp.ClientSession() as http:
        url = f"http://{load(config).serve.listen}/api/v1/deliveries/retry"
        call = {"json": {"state": ["dead"]}, "headers": {"Authorization": "Bearer 0123456789abcdef"}}
        async with http.post(url, **call) as response:  # type: ignore[arg-type]
            assert response.status == 403
        edit(config, lambda content: content["serve"].update(api_token="0123456789abcdef"))
        await reload(app, logs)
        async with http.post(url, **call) as response:  # type: ignore[arg-type]
            assert response.status == 200


async def test_sighup_and_what_systemd_hears(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await traffic.load_initial(database)
    heard: list[str] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.setblocking(False)

        def hear(text: str) -> bool:
            try:
                while True:
                    heard.append(listener.recv(4096).decode())
            except BlockingIOError:
                return any(text in message for message in heard)

        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/")
        async with RelayProcess(config) as relay:
            await eventually(lambda: hear("READY=1"), "the relay says that it has started")
            heard.clear()
            edit(config, concurrency(7))
            relay.process.send_signal(signal.SIGHUP)
            await eventually(lambda: hear("READY=1"), "the relay says that the reload is over")
            assert [message.partition("=")[0] for message in heard if not message.startswith("STATUS")] == ["RELOADING", "READY"]
            assert "\nMONOTONIC_USEC=" in heard[[message.startswith("RELOADING") for message in heard].index(True)]
            await relay.ready()
            assert "concurrency: 32 -> 7" in relay.log.read_text(encoding="utf-8")

            heard.clear()
            config.write_text("endpoints: {}\n", encoding="utf-8")
            relay.process.send_signal(signal.SIGHUP)
            await eventually(
                lambda: hear("READY=1\nSTATUS=the configuration was not reloaded: 1 fault"), "the relay says that it was refused"
            )
            assert await relay.stop() == 0
