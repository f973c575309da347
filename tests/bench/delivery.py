"""What a delivery costs at full speed: processor time, deliveries per second, bytes written."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import Any

from tests.bench.figures import Figure
from tests.bench.ground import CONCURRENCY, Ground, Place
from tests.bench.processes import Relay, Sink, floor, sink
from tests.bench.traffic import Traffic

_SETTLED_S = 0.2  # from the last request to its record


@dataclass(frozen=True, slots=True)
class Drain:
    """A backlog that was delivered."""

    deliveries: int
    cpu_s: float
    per_s: float
    written_bytes: int
    body_bytes: float
    reads: float


async def measure(ground: Ground) -> list[Figure]:
    """All figures of this family."""
    messages = ground.count(8000, 300)
    async with ground.place() as place, sink(place.folder) as receiver:
        one = await drain(place, receiver, messages)
        post = await _post(place, receiver, one)
        naive_per_s = await _naive(place, receiver, messages // 3)
    async with ground.place() as place, sink(place.folder) as receiver:
        three = await drain(place, receiver, messages // 2, endpoints=3)
    post_per_s = post["count"] / post["wall_s"]
    return [
        *_cost(one, post),
        Figure(
            "drain",
            "deliveries/s of a backlog",
            one.per_s / post_per_s,
            "of post",
            0.5,
            "higher",
            f"{one.per_s:.0f}/s; post {post_per_s:.0f}/s",
        ),
        Figure(
            "drain_naive",
            "the same, compared with naive",
            one.per_s / naive_per_s,
            "x naive",
            1.0,
            "higher",
            f"{one.per_s:.0f}/s; naive {naive_per_s:.0f}/s",
        ),
        Figure(
            "drain_three",
            "the same with three endpoints",
            three.per_s / post_per_s,
            "of post",
            0.5,
            "higher",
            f"{three.per_s:.0f}/s in total, {three.cpu_s / three.deliveries * 1e6:.0f} µs CPU each",
        ),
    ]


async def cost(ground: Ground, messages: int) -> list[Figure]:
    """What can be told on a busy machine too: processor time, bytes and reads, no seconds."""
    async with ground.place() as place, sink(place.folder) as receiver:
        one = await drain(place, receiver, messages)
        return _cost(one, await _post(place, receiver, one))


def _cost(one: Drain, post: dict[str, Any]) -> list[Figure]:
    cpu_us, post_us = one.cpu_s / one.deliveries * 1e6, post["cpu_s"] / post["count"] * 1e6
    said = f"{cpu_us:.0f} µs; post {post_us:.0f} µs; {one.body_bytes:.0f} bytes a body"
    written = one.written_bytes / one.deliveries
    return [
        Figure("cpu_per_message", "relay CPU per delivered Message", cpu_us / post_us, "x post", 2.5, detail=said),
        Figure(
            "disk_full_speed",
            "disk written per delivery at full speed",
            written / one.body_bytes,
            "x body",
            8.0,
            detail=f"{written:.0f} bytes",
        ),
        Figure(
            "reads_backlog",
            "reads of MongoDB per Message of a backlog, caches cold",
            one.reads / one.deliveries,
            "",
            0.05,
            detail=f"{one.reads:.0f} reads",
        ),
    ]


async def _post(place: Place, receiver: Sink, one: Drain) -> dict[str, Any]:
    """The floor for the same bodies; the sum of two runs, since one of them is short and told by what else the machine does."""
    size, count = int(one.body_bytes), max(3000, one.deliveries)
    runs = [
        await floor("post", place.folder, url=receiver.url, count=count, size=size, concurrency=CONCURRENCY) for _ in range(2)
    ]
    return {name: sum(run[name] for run in runs) for name in ("count", "cpu_s", "wall_s")}


async def drain(place: Place, receiver: Sink, messages: int, endpoints: int = 1) -> Drain:
    """Write messages, then start the relay and let it deliver them all."""
    traffic = Traffic(place.database)
    await traffic.prepare()
    start = await traffic.next_second()
    await traffic.messages(messages)
    more = {}
    if endpoints > 1:
        common = {"url": receiver.url, "events": ["Message"], "concurrency": CONCURRENCY}
        more = {"endpoints": {f"crm{number}": common for number in range(endpoints)}}
    async with Relay(place.config(receiver.url, start=start, **more)) as relay:
        used, written, began = relay.cpu_s(), relay.written_bytes(), time.monotonic()
        deliveries = messages * endpoints
        await receiver.arrived(deliveries)
        await asyncio.sleep(_SETTLED_S)
        cpu_s, written_bytes = relay.cpu_s() - used, relay.written_bytes() - written
        reads = await relay.metric("livechat_relay_compose_reads_total")
        count = await receiver.get("count")
        times = [at for _, at in await receiver.arrivals()]
        per_s = deliveries / (times[-1] - min(times[0], began))
    return Drain(deliveries, cpu_s, per_s, written_bytes, count["bytes"] / count["count"], reads)


async def _naive(place: Place, receiver: Sink, messages: int) -> float:
    traffic = Traffic(place.database)
    traffic.number_from(10_000_000)
    start = await traffic.next_second()
    await traffic.messages(messages)
    found = await floor(
        "naive", place.folder, uri=place.uri, database=place.name, url=receiver.url, count=messages, start=[start.time, start.inc]
    )
    return float(found["count"] / found["wall_s"])
