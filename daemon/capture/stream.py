"""The change stream: open, drain, resume.

The cursor is driven with `aggregate` and `getMore` commands. Motor's own change stream object goes to a thread and back for every
single change; a command brings a whole batch, its post-batch resume token included, for one such hop.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any, Protocol

from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClientSession
from pymongo.errors import PyMongoError
from tenacity import AsyncRetrying

from daemon.capture.filter import pipeline
from daemon.clock import Clock
from daemon.errors import MongoError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Batch, Change, Document, Position, Watch
from daemon.mongo import CODEC, REPLICA_SET_HINT, Database, Moment, Mongo, classify, problem, tls_hint

_BATCH_SIZE = 1000
_AWAIT_MS = 1000
_OPERATIONS = ("insert", "update", "replace", "delete")

log = get_logger("capture")


class Observer(Protocol):
    """Who wants to know whether capture can read."""

    def capture_open(self, is_open: bool, problem: str | None = None) -> None:
        """Called when the stream was opened or broke, with the reason."""


class ChangeStream:
    """Reads the changes of one database."""

    def __init__(
        self,
        mongo: Mongo,
        watches: Sequence[Watch],
        *,
        clock: Clock,
        metrics: Metrics,
        observer: Observer,
    ) -> None:
        self._mongo = mongo
        self._stages = pipeline(watches)
        self._clock = clock
        self._metrics = metrics
        self._observer = observer
        self._reported: str | None = None
        self._away_since: float | None = None
        self._failures = 0
        self._ever_open = False

    async def current_position(self) -> Position:
        """The position after everything that is majority-committed now. Waits for MongoDB as long as it takes; raises
        `MongoError` where waiting cannot help.
        """
        async for attempt in self._retrying():
            with attempt:
                hello = await self._mongo.database().client.admin.command("hello")
                if "setName" not in hello:
                    raise MongoError(f"{self._mongo.where} is not a replica set", hint=REPLICA_SET_HINT)
                await self._check_collections()
                last: Timestamp = hello["lastWrite"]["majorityOpTime"]["ts"]
                return Position(Timestamp(last.time, last.inc + 1))
        raise AssertionError("retrying ends by returning or raising")

    async def batches(self, position: Position) -> AsyncGenerator[Batch, None]:
        """Every change after `position`, for ever; reconnects by itself, from the last batch given.

        Raises `PositionLostError` or `MongoError` where trying again cannot help.
        """
        while True:
            opened = False
            read = 0
            try:
                async with aclosing(self._read(position)) as batches:
                    async for batch in batches:
                        opened = True
                        read += 1
                        position = batch.position
                        yield batch
            except PyMongoError as error:
                fatal = classify(error, Moment.READING if opened else Moment.OPENING, self._mongo.where)
                if fatal is not None:
                    raise fatal from error
                self._broken(error)
                if read < 2:  # the first batch comes with the opening
                    await self._clock.sleep(1)

    async def _read(self, position: Position) -> AsyncGenerator[Batch, None]:
        """One cursor, from opening to its end."""
        database, session, reply = await self._open(position)
        async with session:
            self._opened()
            while True:
                cursor = reply["cursor"]
                events = cursor["firstBatch"] if "firstBatch" in cursor else cursor["nextBatch"]
                self._metrics.changes.inc(len(events))
                batch = _batch(events, reply, position)
                yield batch
                position = batch.position
                if not cursor["id"]:
                    break
                reply = await database.command(
                    "getMore",
                    cursor["id"],
                    collection="$cmd.aggregate",
                    batchSize=_BATCH_SIZE,
                    maxTimeMS=_AWAIT_MS,
                    session=session,
                    codec_options=CODEC,
                )
        # MongoDB closes the cursor after an `invalidate` (the database was dropped); opening again goes on after it.

    async def _open(self, position: Position) -> tuple[Database, AsyncIOMotorClientSession, Document]:
        """A cursor's first reply, with the database and the session that it belongs to."""
        start: dict[str, Any] = (
            {"startAtOperationTime": position.cluster_time} if position.token is None else {"startAfter": position.token}
        )
        async for attempt in self._retrying():
            with attempt:
                if not self._ever_open:  # later it may be dropped and restored under the running relay
                    await self._check_collections()
                database = self._mongo.database()
                session = await database.client.start_session(causal_consistency=False)
                try:
                    reply: Document = await database.command(
                        "aggregate",
                        1,
                        pipeline=[{"$changeStream": start}, *self._stages],
                        cursor={"batchSize": _BATCH_SIZE},
                        session=session,
                        codec_options=CODEC,
                    )
                except BaseException:
                    await session.end_session()
                    raise
                return database, session, reply
        raise AssertionError("retrying ends by returning or raising")

    async def _check_collections(self) -> None:
        names = await self._mongo.database().list_collection_names(authorizedCollections=True, nameOnly=True)
        if "rocketchat_settings" not in names or "rocketchat_room" not in names:
            raise MongoError(
                f"{self._mongo.where} has no collections of Rocket.Chat (rocketchat_settings, rocketchat_room)",
                hint="set mongodb.database to the path of Rocket.Chat's MONGO_URL; often rocketchat, meteor or parties",
            )

    def _retrying(self) -> AsyncRetrying:
        return self._mongo.retrying(self._clock, Moment.OPENING, self._broken)

    def _opened(self) -> None:
        outage: dict[str, Any] = {}
        if self._away_since is not None:
            outage = {"away_s": round(self._clock.monotonic() - self._away_since, 1), "failures": self._failures}
        log.info("capture.resumed" if self._ever_open else "capture.opened", mongodb=self._mongo.where, **outage)
        self._ever_open, self._reported, self._away_since, self._failures = True, None, None, 0
        self._metrics.capture_open.set(1)
        self._observer.capture_open(True)

    def _broken(self, error: BaseException) -> None:
        text = problem(error)
        self._failures += 1
        if self._away_since is None:
            self._away_since = self._clock.monotonic()
        if self._reported != type(error).__name__:
            hint = tls_hint(error)
            more = {} if hint is None else {"hint": hint}
            log.warning("capture.unreachable", mongodb=self._mongo.where, problem=text, next="trying again with back-off", **more)
            self._reported = type(error).__name__
        self._metrics.reconnects.inc()
        self._metrics.capture_open.set(0)
        self._observer.capture_open(False, text)


def _batch(events: Sequence[Document], reply: Document, before: Position) -> Batch:
    cursor = reply["cursor"]
    changes = tuple(_change(event) for event in events if event["operationType"] in _OPERATIONS)
    idle = "nextBatch" in cursor and not events
    return Batch(changes, _position(cursor, before), idle=idle, server_time=reply.get("operationTime"))


def _position(cursor: Document, before: Position) -> Position:
    token = cursor.get("postBatchResumeToken")
    return before if token is None else Position(_cluster_time(token), token)


def _cluster_time(token: Document) -> Timestamp:
    """The cluster time that a resume token begins with: MongoDB's KeyString has one type byte, then seconds and increment."""
    data = token["_data"]
    return Timestamp(int(data[2:10], 16), int(data[10:18], 16))


def _change(event: Document) -> Change:
    cluster_time: Timestamp = event["clusterTime"]
    # MongoDB before 6.0 gives no wall time: the end of the second, so that what came before in it is not taken for later.
    wall_time = event.get("wallTime") or datetime.fromtimestamp(cluster_time.time + 0.999, UTC)
    # By place: names cost a third of all that is done here.
    told = (event["ns"]["coll"], event["operationType"], event["documentKey"]["_id"], cluster_time, wall_time)
    document, description = event.get("fullDocument"), event.get("updateDescription")
    if not description:
        return Change(*told, document, updated_at=event.get("updatedAt"))
    return Change(
        *told,
        document,
        description.get("updatedFields") or {},
        description.get("removedFields") or (),
        description.get("truncatedArrays") or (),
        event.get("updatedAt"),
    )
