"""What reading costs: catching up, changes that do not matter, sessions that are open and quiet, the close of a long one."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from typing import Any

from bson.timestamp import Timestamp

from tests.bench.figures import Figure
from tests.bench.ground import Ground, Place
from tests.bench.processes import Relay, floor, sink
from tests.bench.traffic import Traffic, message_document, room_document

_WARM_S = 1.0


async def measure(ground: Ground) -> list[Figure]:
    """All figures of this family."""
    return [await _catch_up(ground), await noise(ground, ground.count(60_000, 5000)), await _idle(ground), await _close(ground)]


async def _catch_up(ground: Ground) -> Figure:
    """Changes of which a tenth is of livechat (each message is four of them); delivering goes on meanwhile."""
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database)
        await traffic.prepare()
        start = await traffic.next_second()
        changes = ground.count(200_000, 5000)
        await traffic.mixed(changes)
        end = await traffic.last()
        bare = await _read(place, start, end)
        async with Relay(place.config(receiver.url, start=start)) as relay:
            began, used = time.monotonic(), relay.cpu_s()
            await relay.committed(end)
            wall_s, cpu_s = time.monotonic() - began, relay.cpu_s() - used
    per_s, bare_per_s = changes / wall_s, changes / bare["wall_s"]
    detail = f"{per_s:.0f} changes/s, {cpu_s / changes * 1e6:.0f} µs CPU each with its deliveries; read {bare_per_s:.0f}/s"
    return Figure("catch_up", "catching up, a tenth of livechat", per_s / bare_per_s, "of read", 0.5, "higher", detail)


async def noise(ground: Ground, changes: int) -> Figure:
    """Only changes of other rooms."""
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database)
        await traffic.prepare()
        start = await traffic.next_second()
        await traffic.noise(changes)
        end = await traffic.last()
        bare = await _read(place, start, end)
        async with Relay(place.config(receiver.url, start=start)) as relay:
            used = relay.cpu_s()
            await relay.committed(end)
            cpu_s = relay.cpu_s() - used
    detail = f"{cpu_s / changes * 1e6:.1f} µs; read {bare['cpu_s'] / changes * 1e6:.1f} µs; {bare['count']} passed the filter"
    return Figure("noise", "CPU per change that does not matter", cpu_s / bare["cpu_s"], "x read", 1.5, detail=detail)


async def _read(place: Place, start: Timestamp, end: tuple[int, int]) -> dict[str, Any]:
    found = None
    for _ in range(2):  # the first one warms MongoDB's cache
        found = await floor("read", place.folder, uri=place.uri, database=place.name, start=[start.time, start.inc], end=end)
    assert found is not None
    return found


async def _idle(ground: Ground) -> Figure:
    sessions, seconds = ground.count(1000), ground.seconds(15.0, 5.0)
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database)
        await traffic.prepare()
        async with Relay(place.config(receiver.url, endpoint={"events": ["LivechatSessionStart"]})) as relay:
            now = datetime.now(UTC)
            rooms = [f"new{number}" for number in range(sessions)]
            visitors = [{"_id": f"v-{room}", "token": f"t-{room}", "username": f"guest-{room}", "name": room} for room in rooms]
            await place.database["rocketchat_livechat_visitor"].insert_many(visitors)
            await place.database["rocketchat_room"].insert_many([room_document(room, now) for room in rooms])
            await receiver.arrived(sessions)
            await asyncio.sleep(_WARM_S)
            used = relay.cpu_s()
            await asyncio.sleep(seconds)
            share = (relay.cpu_s() - used) / seconds * 100
    return Figure("idle", f"CPU with {sessions} open sessions that are quiet", share, "% of a core", 1.0)


async def _close(ground: Ground) -> Figure:
    closes, messages = max(3, int(10 * ground.scale)), 1000
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database, sessions=closes + 1)
        await traffic.prepare()
        rooms = [f"r{number}" for number in range(closes + 1)]
        for room in rooms:
            found = [message_document(room, number, datetime.now(UTC)) for number in range(messages)]
            await place.database["rocketchat_message"].insert_many(found)
        async with Relay(place.config(receiver.url, endpoint={"events": ["LivechatSession"]})) as relay:
            await _close_session(place, rooms[-1])  # the first one warms caches on both sides
            await receiver.arrived(1)
            await asyncio.sleep(_WARM_S)
            used = relay.cpu_s()
            for number, room in enumerate(rooms[:-1]):
                await _close_session(place, room)
                await receiver.arrived(number + 2)
            await asyncio.sleep(0.2)
            cpu_s = relay.cpu_s() - used
            body = (await receiver.get("count"))["bytes"] / (closes + 1)
        bare = await floor("dump", place.folder, uri=place.uri, database=place.name, rooms=rooms[:-1])
    detail = (
        f"{cpu_s / closes * 1e3:.0f} ms CPU; find and dump {bare['cpu_s'] / closes * 1e3:.0f} ms; {body / 1000:.0f} kB a body"
    )
    return Figure(
        "close", f"a session of {messages} messages is closed", cpu_s / bare["cpu_s"], "x find and dump", 2.0, detail=detail
    )


async def _close_session(place: Place, room: str) -> None:
    now = datetime.now(UTC)
    closed = {"closedAt": now, "closer": "user", "closedBy": {"_id": "u0", "username": "user-0"}, "_updatedAt": now}
    await place.database["rocketchat_room"].update_one({"_id": room}, {"$set": closed, "$unset": {"open": 1}})
    message = {"_id": f"close-{room}", "rid": room, "t": "livechat-close", "msg": "Solved.", "ts": now, "u": {"_id": "u0"}}
    await place.database["rocketchat_message"].insert_one(message)
