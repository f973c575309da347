"""The floors: the least that any relay has to do, as processes of their own: `python -m tests.bench.floors NAME ARGUMENTS`.

Each prints, as JSON on its last line, its processor time, its duration and how much it did.
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import orjson
from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase

from daemon.capture.filter import pipeline
from daemon.compose.documents import MESSAGE_FIELDS, WATCHES
from daemon.mongo import CODEC

Database = AsyncIOMotorDatabase[dict[str, Any]]
_EVENT_ID = "X-Livechat-Relay-Event-Id"


class Cost:
    """Processor time and duration of this process since it was made."""

    def __init__(self) -> None:
        self._began, self._used = time.monotonic(), _used_s()

    def tell(self, count: int) -> dict[str, float]:
        """So far."""
        return {"cpu_s": _used_s() - self._used, "wall_s": time.monotonic() - self._began, "count": count}


def _used_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


async def read(uri: str, database: str, start: list[int], end: list[int]) -> dict[str, float]:
    """Drain the change stream, filtered as the relay filters it, and do nothing with it."""
    found: Database = AsyncIOMotorClient(uri)[database]
    opening = {"$changeStream": {"startAtOperationTime": Timestamp(*start)}}
    stages = [opening, *pipeline(WATCHES)]
    cost, count = Cost(), 0
    reply = await found.command("aggregate", 1, pipeline=stages, cursor={"batchSize": 1000}, codec_options=CODEC)
    while True:
        cursor = reply["cursor"]
        count += len(cursor.get("firstBatch") or cursor.get("nextBatch") or ())
        token = cursor["postBatchResumeToken"]["_data"]
        if [int(token[2:10], 16), int(token[10:18], 16)] >= end:
            return cost.tell(count)
        more: dict[str, Any] = {"collection": "$cmd.aggregate", "batchSize": 1000, "maxTimeMS": 1000}
        reply = await found.command("getMore", cursor["id"], **more, codec_options=CODEC)


async def post(url: str, count: int, size: int, concurrency: int) -> dict[str, float]:
    """Post bodies of this size."""
    body, left = b"x" * size, iter(range(count))
    headers = {"Content-Type": "application/json"}

    async def work(http: aiohttp.ClientSession) -> None:
        for _ in left:
            async with http.post(url, data=body, headers=headers) as response:
                await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency)) as http:
        await asyncio.gather(*(work(http) for _ in range(concurrency)))  # connections are open, code is warm
        left = iter(range(count))
        cost = Cost()
        await asyncio.gather(*(work(http) for _ in range(concurrency)))
        return cost.tell(count)


async def naive(uri: str, database: str, url: str, count: int, start: list[int] | None = None) -> dict[str, float]:
    """What one writes first: a change stream, two look-ups for each message, a post in a task; nothing survives a restart."""
    found: Database = AsyncIOMotorClient(uri, tz_aware=True)[database]
    at: dict[str, Any] = {} if start is None else {"start_at_operation_time": Timestamp(*start)}
    # Messages of visitors only: with those of all other rooms it would hardly keep up, and be no floor.
    visitors = {"ns.coll": "rocketchat_message", "operationType": "insert", "fullDocument.token": {"$exists": True}}
    only = [{"$match": visitors}]
    tasks: set[asyncio.Task[None]] = set()

    async def send(http: aiohttp.ClientSession, message: dict[str, Any], payload: dict[str, Any]) -> None:
        headers = {"Content-Type": "application/json", _EVENT_ID: f"Message:{message['_id']}"}
        async with http.post(url, data=orjson.dumps(payload), headers=headers) as response:
            await response.read()

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=32)) as http, found.watch(only, **at) as stream:
        print("open", flush=True)  # noqa: T201 - what it is started for
        cost, done = Cost(), 0
        async for change in stream:
            message = change["fullDocument"]
            room = await found["rocketchat_room"].find_one({"_id": message["rid"]})
            if room is None or room["t"] != "l":
                continue
            visitor = await found["rocketchat_livechat_visitor"].find_one({"_id": room["v"]["_id"]})
            entry = {name: message[name] for name in ("_id", "rid", "msg", "ts", "u")}
            payload = {"_id": room["_id"], "type": "Message", "visitor": visitor, "agent": room["servedBy"], "messages": [entry]}
            task = asyncio.create_task(send(http, message, payload))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            done += 1
            if done == count:
                break
        await asyncio.gather(*tasks)
        return cost.tell(done)


async def dump(uri: str, database: str, rooms: list[str]) -> dict[str, float]:
    """Find the messages of each room, the same fields, and write them as JSON."""
    found: Database = AsyncIOMotorClient(uri)[database]
    projection = dict.fromkeys(MESSAGE_FIELDS, 1)
    await found["rocketchat_message"].find_one({})
    cost = Cost()
    for room in rooms:
        query = {"rid": room, "_hidden": {"$ne": True}}
        messages = await found["rocketchat_message"].find(query, projection, batch_size=1000).sort("ts", 1).to_list(None)
        orjson.dumps(messages, default=str)
    return cost.tell(len(rooms))


FLOORS: dict[str, Callable[..., Coroutine[Any, Any, dict[str, float]]]] = {
    "read": read,
    "post": post,
    "naive": naive,
    "dump": dump,
}

if __name__ == "__main__":
    work = FLOORS[sys.argv[1]](**json.loads(sys.argv[2]))
    print(json.dumps(asyncio.run(work)))  # noqa: T201 - what it is started for
