"""One MongoDB for all tests, and a database of its own for each test that asks for one."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any

import pytest
import pytest_asyncio
import structlog
import uvloop
from hypothesis import settings
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from daemon.demo.mongod import EmbeddedMongod

# How long an example takes says more about the machine than about the code.
settings.register_profile("relay", deadline=None)
settings.load_profile("relay")


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests run on the event loop of the relay, those of the demo on that of the demo."""
    if item.path.parent.name == "demo":
        return {"asyncio": asyncio.new_event_loop}
    return {"uvloop": uvloop.new_event_loop}


GIVEN = os.environ.get("LIVECHAT_RELAY_TEST_MONGODB_URI")


@pytest.fixture(autouse=True)
def _logging_restored() -> Iterator[None]:
    """Logging is a setting of the process, which commands change: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def mongodb_uri() -> AsyncIterator[str]:
    """A real one-member replica set: the one that LIVECHAT_RELAY_TEST_MONGODB_URI names, else one started for the tests."""
    if GIVEN:
        yield GIVEN
        return
    async with EmbeddedMongod() as server:
        yield server.uri


@pytest_asyncio.fixture
async def database(mongodb_uri: str) -> AsyncIterator[AsyncIOMotorDatabase[dict[str, Any]]]:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongodb_uri, tz_aware=True)
    name = f"test_{secrets.token_hex(4)}"
    try:
        yield client[name]
    finally:
        await client.drop_database(name)
        client.close()
