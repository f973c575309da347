"""Health of the whole relay: live is progress of every loop, and waiting for MongoDB is progress."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from daemon.app import App
from daemon.config.file import load
from daemon.errors import OutboxError
from daemon.outbox.sqlite import SqliteOutbox
from daemon.serve import health
from tests.flow import traffic
from tests.flow.harness import eventually, running, write_config
from tests.flow.traffic import Database

NOWHERE = "http://127.0.0.1:9/"
LOOPS = {"capture", "compose", "observe", "prune", "relay crm"}


async def livez(config: Path) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as http, http.get(f"http://{load(config).serve.listen}/livez") as response:
        return response.status, await response.json()


@asynccontextmanager
async def started(config: Path) -> AsyncIterator[App]:
    """A relay that need not get ready."""
    app, stop = App(load(config)), asyncio.Event()
    task = asyncio.create_task(app.run(stop))
    try:
        await eventually(lambda: task.done() or "relay crm" in app.health.loops, "a relay that turns")
        yield app
    finally:
        stop.set()
        await task


def only(app: App, loop: str) -> None:
    """Watch this one: the others may pause for longer than a test."""
    for name in LOOPS - {loop}:
        del app.health.loops[name]


async def test_every_loop_is_watched_by_its_progress(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    async with running(write_config(tmp_path, uri=mongodb_uri, database=database.name, url=NOWHERE)) as app:
        assert set(app.health.loops) == LOOPS
        before = app.health.loops["capture"]()
        await eventually(lambda: app.health.loops["capture"]() > before, "a turn without any change")


async def test_waiting_for_a_mongodb_that_is_away_is_live(tmp_path: Path) -> None:
    away = "mongodb://127.0.0.1:1/?replicaSet=rs0&serverSelectionTimeoutMS=50"
    config = write_config(tmp_path, uri=away, database="rocketchat", url=NOWHERE)
    async with started(config) as app:
        before = app.health.loops["capture"]()
        await eventually(lambda: app.health.loops["capture"]() > before, "a try that failed")
        assert app.health.not_ready() is not None
        assert await livez(config) == (200, {"live": True, "stuck": []})


async def test_capture_that_hangs_is_found(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """MongoDB answers and the stream is open, and still nothing goes on: the others turn."""
    await traffic.load_initial(database)
    monkeypatch.setattr(health, "_LOOP_STUCK_S", 3.0)  # an empty batch comes every second
    reached, go_on = asyncio.Event(), asyncio.Event()
    append = SqliteOutbox.append

    async def hang(self: SqliteOutbox, commit: Any) -> None:
        reached.set()
        await go_on.wait()
        await append(self, commit)

    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=NOWHERE)
    async with running(config) as app:
        only(app, "capture")
        monkeypatch.setattr(SqliteOutbox, "append", hang)
        await traffic.write(database, traffic.rows("S1")[:10])
        await reached.wait()
        await eventually(lambda: app.health.stuck() == ["capture"], "a relay that finds out")
        assert await livez(config) == (503, {"live": False, "stuck": ["capture"]})
        go_on.set()
        await eventually(lambda: app.health.stuck() == [], "a relay that is well again")


async def test_composing_that_hangs_is_found(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await traffic.load_initial(database)
    monkeypatch.setattr(health, "_LOOP_STUCK_S", 1.0)
    go_on = asyncio.Event()

    async def hang(self: SqliteOutbox, limit: int) -> list[Any]:
        await go_on.wait()
        return []

    monkeypatch.setattr(SqliteOutbox, "complete_intents", hang)
    async with running(write_config(tmp_path, uri=mongodb_uri, database=database.name, url=NOWHERE)) as app:
        only(app, "compose")
        await eventually(lambda: app.health.stuck() == ["compose"], "a relay that finds out")
        go_on.set()


async def test_an_endpoint_that_is_down_is_shown_and_the_relay_is_ready(
    mongodb_uri: str, database: Database, tmp_path: Path
) -> None:
    await traffic.load_initial(database)
    impatient = {"retry": {"tries": 1, "wait": "50ms"}}
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=NOWHERE, endpoint=impatient)
    async with running(config) as app, aiohttp.ClientSession() as http:
        url = f"http://{load(config).serve.listen}"
        await traffic.write(database, traffic.rows("S1")[:10])
        await eventually(app.health.down, "an endpoint that is down")
        async with http.get(f"{url}/readyz") as response:
            answer = await response.json()
            assert (response.status, answer["endpoints"]["crm"]["up"]) == (200, False)
        async with http.get(f"{url}/api/v1/endpoints") as response:
            (crm,) = (await response.json())["endpoints"]
        assert (crm["up"], crm["owed"] > 0) == (False, True)
        assert crm["down_since"] < crm["next_probe_at"]


async def test_a_writer_that_fails_ends_the_relay(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread of the outbox cannot die unnoticed: the relay ends with its error, and systemd starts another one."""
    await traffic.load_initial(database)
    opened: list[SqliteOutbox] = []
    position = SqliteOutbox.position

    async def note(self: SqliteOutbox) -> Any:
        opened.append(self)
        return await position(self)

    monkeypatch.setattr(SqliteOutbox, "position", note)
    app = App(load(write_config(tmp_path, uri=mongodb_uri, database=database.name, url=NOWHERE)))
    relay = asyncio.create_task(app.run(asyncio.Event()))
    await eventually(lambda: app.health.not_ready() is None)

    def break_down(*_: object) -> None:
        raise MemoryError("no memory")

    monkeypatch.setattr(opened[0]._writer, "_commit", break_down)
    async with asyncio.timeout(20):
        with pytest.raises(OutboxError, match="no memory"):
            await relay
