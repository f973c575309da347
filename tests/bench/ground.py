"""What a family of figures stands on: MongoDB, a folder, a database of its own, a configuration."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from tests.flow.harness import write_config

CONCURRENCY = 32
Database = AsyncIOMotorDatabase[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Place:
    """A database and a folder for one run of the relay."""

    uri: str
    name: str
    folder: Path
    database: Database

    def config(self, url: str, *, start: Timestamp | None = None, endpoint: dict[str, Any] | None = None, **more: Any) -> Path:
        """A configuration: messages only, as the guide shows them, unless `endpoint` says otherwise."""
        found = {"events": ["Message"], "profile": "guide", "concurrency": CONCURRENCY, **(endpoint or {})}
        if start is not None:
            more["capture"] = {"start": datetime.fromtimestamp(start.time, UTC).isoformat()}
        return write_config(self.folder, uri=self.uri, database=self.name, url=url, endpoint=found, **more)


class Ground:
    """One MongoDB for the whole bench."""

    def __init__(self, uri: str, folder: Path, scale: float) -> None:
        self.uri = uri
        self.folder = folder
        self.scale = scale
        self._places = 0

    def count(self, full: int, least: int = 100) -> int:
        """A number of things at this scale."""
        return max(least, int(full * self.scale))

    def seconds(self, full: float, least: float = 2.0) -> float:
        """A duration at this scale."""
        return max(least, full * self.scale)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        """A place that was never used; its database is dropped at the end."""
        self._places += 1
        name = f"bench{self._places}"
        folder = self.folder / name
        folder.mkdir()
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(self.uri, tz_aware=True)
        try:
            yield Place(self.uri, name, folder, client[name])
        finally:
            await client.drop_database(name)
            client.close()


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share of the values lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def median(values: Sequence[float]) -> float:
    """The value in the middle."""
    return statistics.median(values)
