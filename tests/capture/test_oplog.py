"""How far back the oplog reaches: found with read rights only, exactly as an administrator sees it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import OperationFailure

from daemon.capture.oplog import Oplog, OplogWatch, OplogWindow
from daemon.metrics import Metrics
from daemon.model import Position
from tests.guarded import Guarded, guarded_mongod

READ = [{"role": "read", "db": "rocketchat"}]
# A checkpoint every second: MongoDB cuts its oplog behind one, by default every minute.
SMALL = ("--syncdelay", "1")


async def oldest_entry(client: AsyncIOMotorClient[dict[str, Any]]) -> Timestamp:
    entry = await client.local["oplog.rs"].find_one({}, sort=[("$natural", 1)])
    assert entry is not None
    stamp: Timestamp = entry["ts"]
    return stamp


async def roll_over(client: AsyncIOMotorClient[dict[str, Any]]) -> None:
    """Write until the first entry is gone."""
    first = await oldest_entry(client)
    async with asyncio.timeout(20):
        while await oldest_entry(client) == first:
            await client["rocketchat"]["x"].insert_many([{"text": "x" * 100_000} for _ in range(10)])
            await asyncio.sleep(0.05)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def small(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[Guarded, str]]:
    """A MongoDB whose oplog of one megabyte was full before, and the URI of a user who may only read."""
    async with guarded_mongod(tmp_path_factory.mktemp("mongod"), *SMALL, oplog_mb=1) as guarded:
        reader = await guarded.create_user("reader", READ)
        async with guarded.client() as client:
            await roll_over(client)
            await asyncio.sleep(2)  # the window is to be longer than the second to which it is told
            await client["rocketchat"]["x"].insert_one({})
        yield guarded, reader


@pytest.mark.asyncio(loop_scope="session")
async def test_read_rights_tell_what_an_administrator_sees(small: tuple[Guarded, str]) -> None:
    guarded, uri = small
    async with guarded.client() as admin, guarded.client(uri) as reader:
        with pytest.raises(OperationFailure, match="not authorized"):
            await oldest_entry(reader)
        async with asyncio.timeout(5):
            found = await Oplog(lambda: reader["rocketchat"]).window()
        exact = await Oplog(lambda: admin["rocketchat"]).window()
        # A start is a whole second: the first that is not before the oldest entry.
        assert exact.oldest <= found.oldest <= exact.oldest + 1
        assert not found.complete
        assert not exact.complete
        assert found.length_s >= 1
        assert abs(found.now - exact.now) <= 1


@pytest.mark.asyncio(loop_scope="session")
async def test_start_at_the_oldest_entry_and_not_before(small: tuple[Guarded, str]) -> None:
    guarded, uri = small
    async with guarded.client() as admin, guarded.client(uri) as reader:
        oplog, oldest = Oplog(lambda: reader["rocketchat"]), await oldest_entry(admin)
        assert await oplog.reaches(oldest)
        assert not await oplog.reaches(Timestamp(oldest.time - 1, oldest.inc))
        assert not await oplog.reaches(Timestamp(1, 1))
        assert await oplog.reaches(Timestamp(oldest.time + 3600, 1))


@pytest.mark.asyncio(loop_scope="session")
async def test_second_look_is_refused_nothing(small: tuple[Guarded, str]) -> None:
    """MongoDB writes a line into its log for every refusal."""
    guarded, uri = small
    async with guarded.client(uri) as reader:
        oplog = Oplog(lambda: reader["rocketchat"])
        first = await oplog.window()
        before = guarded.mongod.log.read_text(encoding="utf-8").count("executor error")
        assert before > 0
        assert (await oplog.window()).oldest == first.oldest
        assert guarded.mongod.log.read_text(encoding="utf-8").count("executor error") == before


class Imagined(Oplog):
    """An oplog that begins where a test says."""

    def __init__(self, begins: int) -> None:
        self.begins = begins
        self._missed = self._reached = None
        self.asked = self.refused = 0

    async def _first_after(self, cluster_time: Timestamp) -> list[Any] | None:
        self.asked += 1
        self.refused += cluster_time.time < self.begins
        return [] if cluster_time.time >= self.begins else None


@pytest.mark.parametrize("length", [1, 30, 3599, 3600, 90_000, 3_000_000])
async def test_search(length: int) -> None:
    """Exact to half a percent, or near the position to a quarter of what is left; later looks ask little."""
    now = 1_800_000_000
    oplog = Imagined(now - length)
    window = await oplog._search(now, now)
    assert 0 <= window.oldest - oplog.begins <= max(1, length // 200)
    assert oplog.asked < 35
    asked = oplog.refused = 0
    for later in range(0, 3 * length, max(1, length // 50)):
        oplog.begins, oplog.asked = now - length + later, 0
        window = await oplog._search(now + later, now + later)
        assert 0 <= window.oldest - oplog.begins <= max(1, length // 200)
        asked = max(asked, oplog.asked)
    assert asked < 20
    near = await oplog._search(now + later, oplog.begins + 8)
    assert near.oldest - oplog.begins <= 2


@pytest.mark.asyncio(loop_scope="session")
async def test_looking_leaves_no_cursor_open(small: tuple[Guarded, str]) -> None:
    guarded, uri = small
    async with guarded.client() as admin, guarded.client(uri) as reader:
        before = (await admin.admin.command("serverStatus"))["metrics"]["cursor"]["open"]["total"]
        await Oplog(lambda: reader["rocketchat"]).window()
        assert (await admin.admin.command("serverStatus"))["metrics"]["cursor"]["open"]["total"] <= before


@pytest.mark.asyncio(loop_scope="session")
async def test_watch_sets_the_figures(small: tuple[Guarded, str]) -> None:
    guarded, uri = small
    metrics = Metrics()
    async with guarded.client(uri) as reader:
        oplog = Oplog(lambda: reader["rocketchat"])
        oldest = (await oplog.window()).oldest

        async def position() -> Position:
            return Position(Timestamp(oldest + 90, 1))

        watch = OplogWatch(oplog, position, metrics)
        assert await watch.look() == 90
        rendered = metrics.render().decode()
    assert await watch.look() is None  # the client is closed: an old figure would be taken for a true one
    assert "livechat_relay_capture_oplog_left_seconds NaN" in metrics.render().decode()
    assert "livechat_relay_capture_oplog_left_seconds 90.0" in rendered
    assert "livechat_relay_capture_oplog_window_seconds 0.0" not in rendered


async def test_replica_set_whose_oplog_was_never_full(tmp_path: Path) -> None:
    """It reaches back to whatever time is asked for: nothing was before. Both ways say so."""
    async with guarded_mongod(tmp_path) as guarded:
        uri = await guarded.create_user("reader", READ)
        async with guarded.client() as admin, guarded.client(uri) as reader:
            await admin["rocketchat"]["x"].insert_one({})
            for oplog in (Oplog(lambda: admin["rocketchat"]), Oplog(lambda: reader["rocketchat"])):
                window = await oplog.window()
                assert window.complete
                assert window.left_s(Position(Timestamp(window.now, 1))) == math.inf
                assert 0 <= window.length_s < 60


async def test_watch_survives_a_mongodb_that_is_away() -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient("mongodb://127.0.0.1:9/?serverSelectionTimeoutMS=50")
    metrics = Metrics()

    async def position() -> None:
        return None

    assert await OplogWatch(Oplog(lambda: client["rocketchat"]), position, metrics).look() is None
    assert "livechat_relay_capture_oplog_left_seconds NaN" in metrics.render().decode()
    client.close()


@pytest.mark.parametrize(
    ("position", "left"),
    [pytest.param(1500, 500, id="ahead"), pytest.param(1000, 0, id="at the end"), pytest.param(400, 0, id="overtaken")],
)
def test_what_is_left(position: int, left: float) -> None:
    window = OplogWindow(oldest=1000, now=2000, complete=False)
    assert window.left_s(Position(Timestamp(position, 1))) == left
    assert window.length_s == 1000
