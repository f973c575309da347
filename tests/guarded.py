"""A MongoDB that asks for a user, and the users that tests need."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient

from daemon.demo.mongod import EmbeddedMongod

_ADMIN = "admin"
_PASSWORD = "right"


class Guarded:
    """A `mongod` with access control; `admin` may do everything."""

    def __init__(self, mongod: EmbeddedMongod) -> None:
        self.mongod = mongod

    def uri(self, user: str = _ADMIN, password: str = _PASSWORD) -> str:
        return self.mongod.uri.replace("mongodb://", f"mongodb://{user}:{password}@") + "&authSource=admin"

    async def create_user(self, user: str, roles: Sequence[Mapping[str, str]]) -> str:
        """Gives the URI of the user."""
        async with self.client() as client:
            await client.admin.command("createUser", user, pwd=_PASSWORD, roles=list(roles))
        return self.uri(user)

    @asynccontextmanager
    async def client(self, uri: str | None = None) -> AsyncIterator[AsyncIOMotorClient[dict[str, Any]]]:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(uri or self.uri(), tz_aware=True)
        try:
            yield client
        finally:
            client.close()


@asynccontextmanager
async def guarded_mongod(folder: Path, *arguments: str, oplog_mb: int = 200) -> AsyncIterator[Guarded]:
    """Started with access control; its first user is made while there is none, as MongoDB allows on loopback."""
    key = folder / "key"
    key.write_text(secrets.token_hex(32))
    key.chmod(0o600)
    async with EmbeddedMongod(arguments=("--auth", "--keyFile", str(key), *arguments), oplog_mb=oplog_mb) as mongod:
        guarded = Guarded(mongod)
        async with guarded.client(mongod.uri) as client:
            await client.admin.command("createUser", _ADMIN, pwd=_PASSWORD, roles=[{"role": "root", "db": "admin"}])
        yield guarded
