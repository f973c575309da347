"""MongoDB that is away, comes back, or cannot be used: the relay waits, or says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from motor.motor_asyncio import AsyncIOMotorClient

from daemon.app import App
from daemon.config.file import load
from daemon.demo.mongod import EmbeddedMongod
from daemon.demo.receiver import Receiver
from daemon.errors import DaemonError, MongoError, PositionLostError
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, running, write_config
from tests.flow.traffic import Database

NOWHERE = "http://127.0.0.1:9/"


async def failure_of(config: Path) -> DaemonError:
    """The error that ends a relay with this configuration."""
    app = App(load(config))
    with pytest.raises((DaemonError, ExceptionGroup)) as caught:
        async with asyncio.timeout(20):
            await app.run(asyncio.Event())
    error: BaseException = caught.value
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, DaemonError)
    return error


async def test_restarts_lose_nothing(tmp_path: Path) -> None:
    """Down at the start, killed in the middle, stopped and started again: the relay waits, resumes, and delivers everything."""
    rows, want = traffic.rows("S1"), traffic.expected("S1")
    async with EmbeddedMongod() as mongod, Receiver(token=TOKEN) as receiver:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri, tz_aware=True, retryWrites=True)
        database = client["rocketchat"]
        await traffic.load_initial(database)
        await mongod.stop()
        impatient = f"{mongod.uri}&serverSelectionTimeoutMS=300"
        config = write_config(tmp_path, uri=impatient, database="rocketchat", url=receiver.url)
        app, stop = App(load(config)), asyncio.Event()
        relay = asyncio.create_task(app.run(stop))
        await eventually(lambda: "not open: Serv" in (app.health.not_ready() or ""), "a relay that says why it is not ready")
        await mongod.start()
        await eventually(lambda: app.health.not_ready() is None, "a ready relay")
        await traffic.write(database, rows[:50])
        await mongod.kill()
        await eventually(lambda: app.health.not_ready() is not None, "a relay that is not ready")
        await mongod.start()
        await traffic.write(database, rows[50:])
        await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        stop.set()
        await relay
        client.close()
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


async def test_member_that_was_recovering_is_read_as_soon_as_it_can_be(tmp_path: Path) -> None:
    """Connections opened while it was are useless ever after: the driver takes them for connections without sessions."""
    want = traffic.expected("S1")
    async with EmbeddedMongod() as mongod, Receiver(token=TOKEN) as receiver:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri, tz_aware=True)
        database = client["rocketchat"]
        await traffic.load_initial(database)
        direct: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(f"mongodb://{mongod.address}/?directConnection=true")
        await direct.admin.command("replSetStepDown", 2, secondaryCatchUpPeriodSecs=0, force=True)
        await direct.admin.command("replSetMaintenance", 1)
        config = write_config(
            tmp_path, uri=f"mongodb://{mongod.address}/?directConnection=true", database="rocketchat", url=receiver.url
        )
        app, stop = App(load(config)), asyncio.Event()
        relay = asyncio.create_task(app.run(stop))
        await eventually(lambda: "recovering" in (app.health.not_ready() or ""), "a relay that says why it is not ready")
        await direct.admin.command("replSetMaintenance", 0)
        await eventually(lambda: app.health.not_ready() is None, "a ready relay")
        await traffic.write(database, traffic.rows("S1"))
        await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        stop.set()
        await relay
        direct.close()
        client.close()
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


async def test_standalone_server_is_refused(tmp_path: Path) -> None:
    async with EmbeddedMongod(replica_set=False) as mongod:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri)
        await traffic.load_initial(client["rocketchat"])
        client.close()
        for uri in (mongod.uri, f"mongodb://{mongod.address}/?replicaSet=rs0"):
            error = await failure_of(write_config(tmp_path, uri=uri, database="rocketchat", url=NOWHERE))
            assert isinstance(error, MongoError)
            assert "replica set" in str(error)
            assert "--replSet" in error.hint


async def test_database_without_rocketchat_is_refused(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    error = await failure_of(write_config(tmp_path, uri=mongodb_uri, database=database.name, url=NOWHERE))
    assert isinstance(error, MongoError)
    assert f"database {database.name} has no collections of Rocket.Chat" in str(error)
    assert "mongodb.database" in error.hint


async def test_position_that_the_oplog_has_passed(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """By default the relay stops and names the choices; told to, it goes on from now."""
    await traffic.load_initial(database)
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config):
            pass
        await traffic.lose_position(database, tmp_path)
        error = await failure_of(config)
        assert isinstance(error, PositionLostError)
        assert "capture.on_lost_position" in error.hint
        assert "`restart`" in error.hint

        restart = {"on_lost_position": "restart"}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, capture=restart)
        want = traffic.expected("S1")
        async with running(config):
            await traffic.write(database, traffic.rows("S1"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks after the restart from now")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def guarded() -> AsyncIterator[EmbeddedMongod]:
    """A MongoDB with authentication, Rocket.Chat's data, and a few users."""
    async with EmbeddedMongod() as mongod:
        key = mongod.folder / "key"
        key.write_text("c2VjcmV0" * 4)
        key.chmod(0o600)
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri, tz_aware=True)
        await traffic.load_initial(client["rocketchat"])
        reads = [{"role": "read", "db": "rocketchat"}]
        await client.admin.command("createUser", "reader", pwd="right", roles=reads)
        await client.admin.command("createUser", "nobody", pwd="right", roles=[{"role": "read", "db": "other"}])
        await client.admin.command("createUser", "chat", pwd="right", roles=[{"role": "readWrite", "db": "rocketchat"}])
        client.close()
        await mongod.stop()
        mongod._arguments = ("--auth", "--keyFile", str(key))
        await mongod.start()
        yield mongod


def as_user(mongod: EmbeddedMongod, user: str, password: str) -> str:
    return mongod.uri.replace("mongodb://", f"mongodb://{user}:{password}@") + "&authSource=admin"


async def test_wrong_password(guarded: EmbeddedMongod, tmp_path: Path) -> None:
    error = await failure_of(write_config(tmp_path, uri=as_user(guarded, "reader", "wr0ng"), database="rocketchat", url=NOWHERE))
    assert isinstance(error, MongoError)
    assert "refuses user or password" in str(error)
    assert "check user, password and authSource" in error.hint
    assert "wr0ng" not in str(error) + error.hint


async def test_missing_rights(guarded: EmbeddedMongod, tmp_path: Path) -> None:
    error = await failure_of(write_config(tmp_path, uri=as_user(guarded, "nobody", "right"), database="rocketchat", url=NOWHERE))
    assert isinstance(error, MongoError)
    assert "may not open a change stream" in str(error)
    assert "grantRolesToUser" in error.hint


async def test_read_rights_are_enough(guarded: EmbeddedMongod, tmp_path: Path) -> None:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(as_user(guarded, "chat", "right"), tz_aware=True)
    want = traffic.expected("S1", "S2")
    async with Receiver(token=TOKEN) as receiver:
        async with running(
            write_config(tmp_path, uri=as_user(guarded, "reader", "right"), database="rocketchat", url=receiver.url)
        ):
            await traffic.write(client["rocketchat"], traffic.rows("S1", "S2"))
            await eventually(lambda: len(accepted(receiver)) >= len(want), "all webhooks")
        assert traffic.by_session(payloads(receiver)) == traffic.by_session(want)
    client.close()
