"""MongoDB as check finds it; real servers where it can be had."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import ServerSelectionTimeoutError

from daemon.capture.oplog import Oplog, OplogWindow
from daemon.check import mongodb
from daemon.check.findings import Finding, Status
from daemon.clock import SystemClock
from daemon.demo.child import free_port
from daemon.demo.mongod import EmbeddedMongod
from daemon.errors import MongoError
from daemon.model import Position
from tests.check.build import config, statuses

OK, WARNING, FAILURE = Status.OK, Status.WARNING, Status.FAILURE
HOUR = 3600
NOW = 1_800_000_000


@pytest.fixture
def client(mongodb_uri: str) -> AsyncIOMotorClient[dict[str, Any]]:
    return AsyncIOMotorClient(mongodb_uri)


async def test_server(client: AsyncIOMotorClient[dict[str, Any]]) -> None:
    (finding,), hello = await mongodb.check_server(client)
    assert finding.status is OK
    assert f"replica set {hello['setName']}" in finding.found
    assert statuses(mongodb.check_majority(hello)) == [OK]
    client.close()


async def test_standalone_server() -> None:
    async with EmbeddedMongod(replica_set=False) as mongod:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri)
        with pytest.raises(MongoError, match="not a replica set"):
            await mongodb.check_server(client)
        client.close()


async def test_members(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that cannot be reached from here is named."""
    monkeypatch.setattr(mongodb, "_DISCOVERY_S", 0.3)
    absent = f"127.0.0.1:{free_port()}"
    async with EmbeddedMongod() as mongod:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri)
        _, hello = await mongodb.check_server(client)
        assert statuses(await mongodb.check_members(client, hello, SystemClock())) == [OK]
        members = [
            {"_id": 0, "host": mongod.address},
            {"_id": 1, "host": absent, "votes": 0, "priority": 0},
        ]
        await client.admin.command("replSetReconfig", {"_id": "rs0", "version": 2, "members": members}, force=True)
        _, hello = await mongodb.check_server(client)
        (finding,) = await mongodb.check_members(client, hello, SystemClock())
        client.close()
        await mongod.kill()  # an orderly end would wait for the member that is not there
    assert finding.status is WARNING
    assert f"not reachable from here: {absent}" in finding.found


@pytest.mark.parametrize(("committed", "status"), [(1000, OK), (990, OK), (900, FAILURE)])
def test_majority(committed: int, status: Status) -> None:
    last = {"opTime": {"ts": Timestamp(1000, 1)}, "majorityOpTime": {"ts": Timestamp(committed, 1)}}
    assert statuses(mongodb.check_majority({"lastWrite": last})) == [status]


@pytest.mark.parametrize(
    ("off_s", "status", "says"), [(0, OK, "differ by"), (60, WARNING, "60 seconds behind"), (-60, WARNING, "60 seconds ahead of")]
)
async def test_clock(client: AsyncIOMotorClient[dict[str, Any]], off_s: float, status: Status, says: str) -> None:
    class Off(SystemClock):
        def now(self) -> Any:
            return super().now() + timedelta(seconds=off_s)

    (finding,) = await mongodb.check_clock(client, Off())
    client.close()
    assert finding.status is status
    assert says in finding.found


async def oplog_finding(
    monkeypatch: pytest.MonkeyPatch, window: OplogWindow, position: Position | None, **capture: Any
) -> Finding:
    """What is found with such an oplog."""

    async def given(*_: object) -> OplogWindow:
        return window

    async def reaches(_: Oplog, cluster_time: Timestamp) -> bool:
        return cluster_time.time >= window.oldest

    monkeypatch.setattr(Oplog, "window", given)
    monkeypatch.setattr(Oplog, "reaches", reaches)
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient("mongodb://127.0.0.1:9/")
    (finding,) = await mongodb.check_oplog(client, config(capture=capture), position, running=False)
    client.close()
    return finding


@pytest.mark.parametrize(
    ("oplog", "behind_h", "status", "says"),
    [
        pytest.param((72, False), None, OK, "the oplog holds 3 days", id="first start"),
        pytest.param((72, False), 0, OK, "3 days before the oplog's end passes it", id="up to date"),
        pytest.param((72, False), 48, WARNING, "2 days behind, 24 hours before", id="far behind"),
        pytest.param((72, False), 73, FAILURE, "that is lost", id="lost"),
        pytest.param((6, False), 0, WARNING, "stopped for longer loses its place", id="short"),
        pytest.param((6, True), 5, OK, "everything since the replica set began, 6 hours", id="never full"),
    ],
)
async def test_oplog(
    monkeypatch: pytest.MonkeyPatch, oplog: tuple[int, bool], behind_h: int | None, status: Status, says: str
) -> None:
    """Hours that it holds, whether that is everything, and how many hours ago reading stands."""
    hours, complete = oplog
    window = OplogWindow(NOW - hours * HOUR, NOW, complete)
    position = None if behind_h is None else Position(Timestamp(NOW - behind_h * HOUR, 1))
    finding = await oplog_finding(monkeypatch, window, position)
    assert finding.status is status
    assert says in finding.found


async def test_capture_start_that_the_oplog_has_passed(monkeypatch: pytest.MonkeyPatch) -> None:
    window = OplogWindow(NOW - 72 * HOUR, NOW, complete=False)
    finding = await oplog_finding(monkeypatch, window, None, start="2020-01-01T00:00:00Z")
    assert finding.status is FAILURE
    assert "capture.start" in str(finding.remedy)


@pytest.mark.parametrize("text", ["No primary available for writes", 'No replica set members match selector "Primary()"'])
def test_no_primary(text: str) -> None:
    error = ServerSelectionTimeoutError(f"{text}, Timeout: 5s")
    finding = mongodb.as_failure("mongodb.server", error, "MongoDB")
    assert "has no primary" in finding.found
    assert "rs.status()" in str(finding.remedy)
