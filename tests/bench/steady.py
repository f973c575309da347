"""A steady rate of messages beside ten times as many other changes: latency, reads of MongoDB, bytes written, memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.bench.figures import Figure
from tests.bench.ground import Ground, Place, median, percentile
from tests.bench.processes import Relay, Sink, floor_running, sink, slow_fsync
from tests.bench.traffic import Traffic

RATE = 100.0
_WARM_S = 2.0
_SETTLED_S = 0.3


@dataclass(slots=True)
class Steady:
    """What a run of the relay gave."""

    latencies: list[float] = field(default_factory=list)
    messages: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    reads: float = 0.0
    written_bytes: int = 0
    body_bytes: float = 0.0
    memory_mb: float = 0.0

    def add(self, other: Steady) -> None:
        """Take another run of the same in."""
        self.latencies += other.latencies
        self.messages += other.messages
        self.seconds += other.seconds
        self.cpu_s += other.cpu_s
        self.reads += other.reads
        self.written_bytes += other.written_bytes
        self.body_bytes = other.body_bytes
        self.memory_mb = max(self.memory_mb, other.memory_mb)


async def measure(ground: Ground) -> list[Figure]:
    """All figures of this family. Relay and naive take turns, so that what else the machine does hits both."""
    seconds = ground.seconds(8.0)
    relay, naive, slow = Steady(), list[float](), None
    library = slow_fsync(ground.folder)
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database)
        await traffic.prepare()
        for _ in range(2):
            relay.add(await run(place, receiver, traffic, seconds))
            naive += await _naive(place, receiver, traffic, seconds)
        if library is not None:
            slow = await run(place, receiver, traffic, seconds, {"LD_PRELOAD": str(library)})
    return [
        *_latency("latency", f"latency at {RATE:g} messages/s", relay.latencies, naive, targets=True),
        *([] if slow is None else _latency("latency_slow", "the same, every fsync 5 ms slower", slow.latencies, naive)),
        Figure(
            "reads",
            "reads of MongoDB per Message, caches warm",
            relay.reads / relay.messages,
            "",
            0.05,
            detail=f"{relay.reads:.0f} reads, {relay.messages} messages",
        ),
        Figure(
            "disk_steady",
            f"disk written per delivery at {RATE:g} messages/s",
            relay.written_bytes / relay.messages / relay.body_bytes,
            "x body",
            detail=f"{relay.written_bytes / relay.messages:.0f} bytes for a body of {relay.body_bytes:.0f}",
        ),
        Figure("cpu_steady", f"CPU at {RATE:g} messages/s", relay.cpu_s / relay.seconds * 100, "% of a core"),
        Figure("memory_steady", "memory, steady run, peak", relay.memory_mb, "MB", 120.0),
    ]


async def run(
    place: Place,
    receiver: Sink,
    traffic: Traffic,
    seconds: float,
    environment: dict[str, str] | None = None,
    *,
    rate: float = RATE,
) -> Steady:
    """The relay at a steady rate; what is read and written is counted after a while that warms its caches."""
    async with Relay(place.config(receiver.url), environment) as relay:
        await receiver.get("reset")
        await _written(receiver, await traffic.steady(rate, _WARM_S))
        reads = await relay.metric("livechat_relay_compose_reads_total")
        used, written = relay.cpu_s(), relay.written_bytes()
        ids = await traffic.steady(rate, seconds)
        arrivals = await _written(receiver, ids)
        await asyncio.sleep(_SETTLED_S)
        count = await receiver.get("count")
        return Steady(
            latencies=[arrivals[event] - traffic.written[event] for event in ids],
            messages=len(ids),
            seconds=seconds,
            cpu_s=relay.cpu_s() - used,
            reads=await relay.metric("livechat_relay_compose_reads_total") - reads,
            written_bytes=relay.written_bytes() - written,
            body_bytes=count["bytes"] / count["count"],
            memory_mb=relay.memory_mb(),
        )


async def _naive(place: Place, receiver: Sink, traffic: Traffic, seconds: float) -> list[float]:
    arguments = {"uri": place.uri, "database": place.name, "url": receiver.url, "count": -1}
    async with floor_running("naive", place.folder, **arguments) as (_, log):
        async with asyncio.timeout(20):
            while "open" not in log.read_text(encoding="utf-8"):  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.02)
        await receiver.get("reset")
        await _written(receiver, await traffic.steady(RATE, _WARM_S))
        ids = await traffic.steady(RATE, seconds)
        arrivals = await _written(receiver, ids)
        return [arrivals[event] - traffic.written[event] for event in ids]


async def _written(receiver: Sink, ids: Sequence[str]) -> dict[str, float]:
    """When these events came, once all of them did."""
    wanted = set(ids)
    async with asyncio.timeout(120):
        while True:
            found: dict[str, float] = {}
            for event, at in await receiver.arrivals():
                found.setdefault(event, at)
            if wanted <= found.keys():
                return found
            await asyncio.sleep(0.1)


def _latency(name: str, what: str, values: list[float], naive: list[float], *, targets: bool = False) -> list[Figure]:
    figures = []
    for suffix, share, target in (("median", 0.5, 2.0), ("p99", 0.99, 3.0)):
        own = median(values) if share == 0.5 else percentile(values, share)
        bare = median(naive) if share == 0.5 else percentile(naive, share)
        detail = f"{own * 1e3:.1f} ms; naive {bare * 1e3:.1f} ms; {len(values)} messages"
        figures.append(
            Figure(f"{name}_{suffix}", f"{what}, {suffix}", own / bare, "x naive", target if targets else None, detail=detail)
        )
    return figures
