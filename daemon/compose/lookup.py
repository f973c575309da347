"""The only reads of MongoDB that composing needs: batched, and as of a moment of the stream where MongoDB can still tell.

A snapshot read sees the data exactly as it was at a cluster time (MongoDB 5.0 and later, for
`minSnapshotHistoryWindowInSeconds`, five minutes by default). Beyond that the data of now is read, and the caller cuts it as
well as it can.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from bson.codec_options import CodecOptions
from bson.timestamp import Timestamp
from pymongo.errors import OperationFailure, PyMongoError

from daemon.clock import Clock
from daemon.compose import documents
from daemon.errors import MongoError
from daemon.log import get_logger, hide
from daemon.metrics import Metrics
from daemon.model import Document
from daemon.mongo import CODEC, Moment, Mongo, problem

# SnapshotTooOld, SnapshotUnavailable, InvalidOptions, CommandNotSupported (the last two: servers before 5.0)
_NO_SNAPSHOT = {239, 246, 72, 115}
_IDS_PER_READ = 1000
_LONGEST_READ_MS = 30_000
_WITHOUT_ZONE = CODEC.with_options(tz_aware=False)
_SECRET_AGE_S = 60.0
_SECRET_WAIT_S = 5.0

log = get_logger("compose")


@dataclass(frozen=True, slots=True)
class Find:
    """A query: what, of it which fields, in which order, how many at most (0: all), and how they are decoded."""

    collection: str
    query: Document
    fields: Collection[str]
    sort: Document | None = None
    limit: int = 0
    codec: CodecOptions[Any] = CODEC

    def command(self, read_concern: Document) -> dict[str, Any]:
        """The arguments of MongoDB's `find`."""
        order: dict[str, Any] = {} if self.sort is None else {"sort": self.sort}
        bounds: dict[str, Any] = {"limit": self.limit} if self.limit else {}
        projection = dict.fromkeys(self.fields, 1)
        return {"filter": self.query, "projection": projection, "batchSize": 1000, "readConcern": read_concern, **order, **bounds}


@dataclass(frozen=True, slots=True)
class Found:
    """Documents, and whether they are exactly those of the moment asked for."""

    documents: Sequence[dict[str, Any]]
    exact: bool


class Lookup:
    """Reads of one database; waits for an unreachable MongoDB, raises `MongoError` where waiting cannot help."""

    def __init__(self, mongo: Mongo, *, clock: Clock, metrics: Metrics) -> None:
        self._mongo = mongo
        self._clock = clock
        self._metrics = metrics
        self.waited_at = clock.monotonic()
        """When MongoDB last could not be read, and was waited for."""
        self.problem: str | None = None
        """Why MongoDB cannot be read at the moment."""
        self._away_since: float | None = None
        self._failures = 0
        self._secret: str | None = None
        self._secret_due = 0.0
        self._secret_lock = asyncio.Lock()

    async def by_ids(
        self, collection: str, ids: Collection[Any], fields: Collection[str], at: Timestamp | None
    ) -> dict[str, dict[str, Any]]:
        """The documents with these ids that exist at `at` (None: now), by id."""
        wanted = list(ids)
        found: dict[str, dict[str, Any]] = {}
        for start in range(0, len(wanted), _IDS_PER_READ):
            query = {"_id": {"$in": wanted[start : start + _IDS_PER_READ]}}
            for document in (await self._find(Find(collection, query, fields), at)).documents:
                found[document["_id"]] = document
        return found

    async def select(self, find: Find, at: Timestamp | None) -> list[dict[str, Any]]:
        """What a query finds, as of `at` where MongoDB can still tell, else as it is now."""
        return list((await self._find(find, at)).documents)

    async def every(self, collection: str, fields: Collection[str], at: Timestamp | None) -> list[dict[str, Any]]:
        """All documents of a small collection."""
        return await self.select(Find(collection, {}, fields), at)

    async def transcript(self, room: str, at: Timestamp | None, cut: datetime) -> list[dict[str, Any]]:
        """The visible messages of a room in order of `ts`, as they were at `at`, or else those up to `cut` as they are now.

        Their dates are in UTC and do not say so: with a zone, dates take longer to decode than all else in a message.
        """
        query = {"rid": room, "_hidden": {"$ne": True}}
        find = Find(documents.MESSAGES, query, documents.MESSAGE_FIELDS, sort={"ts": 1}, codec=_WITHOUT_ZONE)
        found = await self._find(find, at)
        if found.exact:
            return list(found.documents)
        end = cut.astimezone(UTC).replace(tzinfo=None)
        return [message for message in found.documents if not isinstance(message.get("ts"), datetime) or message["ts"] <= end]

    async def server_version(self, at: Timestamp | None) -> str | None:
        """Rocket.Chat's version as its newest statistics tell it; None when there are none."""
        found = await self._find(Find(documents.STATISTICS, {}, ("version",), sort={"createdAt": -1}, limit=1), at)
        version = found.documents[0].get("version") if found.documents else None
        return version if isinstance(version, str) else None

    async def first(self, collection: str, fields: Collection[str]) -> dict[str, Any] | None:
        """The first document of a collection in MongoDB's own order."""
        found = await self._find(Find(collection, {}, fields, limit=1), None)
        return found.documents[0] if found.documents else None

    async def file_secret(self) -> str | None:
        """The secret that signs file links: at most a minute old, or older while MongoDB cannot be reached. Never stored.

        None when it was never read and cannot be read within seconds.
        """
        async with self._secret_lock:  # one read for all who wait
            now = self._clock.monotonic()
            if now < self._secret_due:
                return self._secret
            try:
                async with asyncio.timeout(_SECRET_WAIT_S):
                    self._secret = await self._read_secret()
                self._secret_due = now + _SECRET_AGE_S
            except (TimeoutError, MongoError, PyMongoError):
                self._secret_due = self._clock.monotonic() + _SECRET_WAIT_S
            return self._secret

    async def _read_secret(self) -> str:
        found = await self._find(Find("rocketchat_settings", {"_id": documents.FILE_SECRET}, ("_id", "value")), None)
        secret = str(found.documents[0].get("value") or "") if found.documents else ""
        hide(secret)
        return secret

    async def _find(self, find: Find, at: Timestamp | None) -> Found:
        async for attempt in self._mongo.retrying(self._clock, Moment.READING, self._report):
            with attempt:
                found = await self._find_once(find, at)
                self._reads()
                return found
        raise AssertionError("retrying ends by returning or raising")

    async def _find_once(self, find: Find, at: Timestamp | None) -> Found:
        if at is not None:
            try:
                return Found(await self._run(find, {"level": "snapshot", "atClusterTime": at}), exact=True)
            except OperationFailure as error:
                if error.code not in _NO_SNAPSHOT:
                    raise
        return Found(await self._run(find, {"level": "majority"}), exact=False)

    async def _run(self, find: Find, read_concern: Document) -> list[dict[str, Any]]:
        self._metrics.reads.labels(find.collection).inc()
        database = self._mongo.database()
        async with await database.client.start_session(causal_consistency=False) as session:
            reply = await database.command(
                "find",
                find.collection,
                **find.command(read_concern),
                maxTimeMS=_LONGEST_READ_MS,
                session=session,
                codec_options=find.codec,
            )
            cursor = reply["cursor"]
            result: list[dict[str, Any]] = list(cursor["firstBatch"])
            while cursor["id"]:
                reply = await database.command(
                    "getMore", cursor["id"], collection=find.collection, session=session, codec_options=find.codec
                )
                cursor = reply["cursor"]
                result += cursor["nextBatch"]
            return result

    def _report(self, error: BaseException) -> None:
        self.waited_at = self._clock.monotonic()
        self._failures += 1
        self.problem = problem(error)
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
            log.warning("compose.read_failed", problem=problem(error), next="trying again with back-off")

    def _reads(self) -> None:
        if self._away_since is not None:
            away_s = round(self._clock.monotonic() - self._away_since, 1)
            log.info("compose.reads_again", away_s=away_s, failures=self._failures)
            self.problem, self._away_since, self._failures = None, None, 0
