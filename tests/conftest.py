"""One MongoDB for all tests, and a database of its own for each test that asks for one."""

from __future__ import annotations

import os
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest_asyncio
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from daemon.demo.mongod import EmbeddedMongod

GIVEN = os.environ.get("LIVECHAT_RELAY_TEST_MONGODB_URI")


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
