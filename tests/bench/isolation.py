"""Who suffers when something is broken: poisoned sessions, a dead endpoint, a receiver that is away. Ratios are medians of
interleaved pairs.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

from daemon.demo.child import free_port
from tests.bench.figures import Figure
from tests.bench.ground import CONCURRENCY, Ground, Place, median, percentile
from tests.bench.processes import Relay, Sink, sink
from tests.bench.traffic import Traffic

_PAIRS = 5
_RATE = 100.0
_SESSIONS = 200
_QUICK = {"wait": "20ms", "outage_probe": "100ms"}
_PATIENCE_S = 60.0


async def measure(ground: Ground) -> list[Figure]:
    """All figures of this family."""
    return [
        await _poison(ground),
        *await _dead_endpoint(ground),
        *await _away(ground),
        await _quiet_night(ground),
    ]


async def _poison(ground: Ground) -> Figure:
    """One session of a hundred is always answered 500; what do the others feel?"""
    seconds, ratios, details = ground.seconds(6.0), [], []
    rooms = tuple(f"r{number}" for number in range(_SESSIONS))
    poisoned = frozenset(f"r{number}" for number in range(0, _SESSIONS, 100))
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database, _SESSIONS)
        await traffic.prepare()
        endpoint = {"retry": {"wait": "1s"}}
        for _ in range(_PAIRS):
            both = []
            for poison in ("", "r0-|r100-"):
                await receiver.get(f"set?poison={poison}")
                async with Relay(place.config(receiver.url, endpoint=endpoint, log={"level": "error"})) as relay:
                    await _warm(traffic, receiver)
                    ids = await traffic.steady(_RATE, seconds, rooms=rooms)
                    healthy = [event for event in ids if _room(event) not in poisoned]
                    both.append(percentile(await _latencies(traffic, receiver, healthy), 0.99))
                    await relay.child.stop(5.0)
                _forget_outbox(place)
            ratios.append(both[1] / both[0])
            details.append(f"{both[1] * 1e3:.0f}/{both[0] * 1e3:.0f}")
    return Figure(
        "poison", "1 % poisoned sessions: p99 of the others", median(ratios), "x without", 1.3, detail=f"ms: {', '.join(details)}"
    )


async def _dead_endpoint(ground: Ground) -> list[Figure]:
    """A second endpoint refuses or hangs; what does the healthy one feel?"""
    modes = ("alone", "refuses", "hangs")
    rates: dict[str, list[float]] = {mode: [] for mode in modes}
    medians: dict[str, list[float]] = {mode: [] for mode in modes}
    messages, seconds = ground.count(2000, 300), ground.seconds(4.0)
    async with ground.place() as place, sink(place.folder) as receiver, sink(place.folder) as silent:
        await silent.get("set?hang=1")
        dead = {"refuses": f"http://127.0.0.1:{free_port()}/", "hangs": silent.url}
        traffic = Traffic(place.database, _SESSIONS)
        await traffic.prepare()
        for _ in range(_PAIRS):
            for mode in modes:
                config = place.config(receiver.url, log={"level": "error"}, endpoints=_endpoints(receiver.url, dead.get(mode)))
                async with Relay(config) as relay:
                    await _warm(traffic, receiver)
                    ids = await traffic.steady(_RATE, seconds)
                    medians[mode].append(median(await _latencies(traffic, receiver, ids)))
                    await receiver.get("reset")
                    began = time.monotonic()
                    await traffic.messages(messages)
                    await receiver.arrived(messages)
                    rates[mode].append(messages / (time.monotonic() - began))
                    await relay.child.stop(1.0)
                _forget_outbox(place)
    figures = []
    for mode in modes[1:]:
        slower = median([alone / beside for alone, beside in zip(rates["alone"], rates[mode], strict=True)])
        later = median([beside / alone for alone, beside in zip(medians["alone"], medians[mode], strict=True)])
        said = f"{median(rates[mode]):.0f}/s; alone {median(rates['alone']):.0f}/s"
        what = f"another endpoint {mode}"
        figures.append(Figure(f"dead_{mode}_throughput", f"{what}: the healthy one is slower", slower, "x", 1.2, detail=said))
        said = f"{median(medians[mode]) * 1e3:.1f} ms; alone {median(medians['alone']) * 1e3:.1f} ms"
        figures.append(Figure(f"dead_{mode}_latency", f"{what}: the healthy one's latency", later, "x alone", 1.2, detail=said))
    return figures


async def _away(ground: Ground) -> list[Figure]:
    """The receiver is away for what is an hour at the usual waits (20 ms stand for 10 s); messages go on meanwhile."""
    seconds = ground.seconds(7.2, 3.0)
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database, _SESSIONS)
        await traffic.prepare()
        async with Relay(place.config(receiver.url, endpoint={"retry": _QUICK}, log={"level": "error"})) as relay:
            await receiver.get("set?status=503")
            ids = [f"Message:{_room_of(traffic, n)}-{n:07}" for n in range(ground.count(3000))]
            began = time.monotonic()
            while traffic.count < len(ids):
                await traffic.messages(min(250, len(ids) - traffic.count))
                await asyncio.sleep(seconds / len(ids) * 250)
            await asyncio.sleep(max(0.0, seconds - (time.monotonic() - began)))
            tries = (await receiver.get("count"))["count"]
            await receiver.get("set?status=200")
            await receiver.arrived(len(ids), accepted=True)
            await asyncio.sleep(0.5)
            arrivals = [event for event, _ in await receiver.arrivals()]
            left = relay.query("SELECT count(*) FROM deliveries WHERE state <> 'delivered'")[0][0]
    missing, twice = len(set(ids) - set(arrivals)), len(arrivals) - len(set(arrivals))
    said = f"{len(ids)} messages in {_SESSIONS} sessions, {tries} refused tries, {twice} twice, {left} not settled"
    return [
        Figure("away_lost", "receiver away for an hour: messages lost", missing + left, "", 0.0, detail=said),
        Figure("away_disorder", "the same: messages out of order", _disorder(arrivals), "", 0.0),
    ]


async def _quiet_night(ground: Ground) -> Figure:
    """One poisoned session, nothing else for long: its endpoint is down. How long does the next message of another wait?"""
    async with ground.place() as place, sink(place.folder) as receiver:
        traffic = Traffic(place.database, _SESSIONS)
        await traffic.prepare()
        await receiver.get("set?poison=r7-")
        retry = {"wait": "20ms", "outage_probe": "30s"}
        async with Relay(place.config(receiver.url, endpoint={"retry": retry}, log={"level": "error"})) as relay:
            await traffic.steady(_RATE, 0.02, rooms=("r7",))
            async with asyncio.timeout(_PATIENCE_S):
                while await relay.metric("livechat_relay_relay_endpoint_up") == 1:  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(0.05)
            await receiver.get("set?poison=r7-")
            ids = await traffic.steady(_RATE, 0.02, rooms=("r8",))
            waited = max(await _latencies(traffic, receiver, ids))
            await asyncio.sleep(0.2)
            up = await relay.metric("livechat_relay_relay_endpoint_up") == 1
    said = f"the endpoint is {'up' if up else 'still down'} afterwards; probes come every 30 s"
    value = waited if up else float("inf")
    return Figure("quiet_night", "one poisoned session on a quiet night: the next one waits", value, "s", 2.0, detail=said)


def _endpoints(healthy: str, dead: str | None) -> dict[str, Any]:
    common = {"events": ["Message"], "concurrency": CONCURRENCY}
    found: dict[str, Any] = {"healthy": {**common, "url": healthy}}
    return found if dead is None else {**found, "dead": {**common, "url": dead}}


def _room(event: str) -> str:
    return re.sub(r"^Message:|-\d+$", "", event)


def _room_of(traffic: Traffic, number: int) -> str:
    return f"r{number % traffic.sessions}"


def _disorder(arrivals: list[str]) -> int:
    """How many messages came after a later one of their session; of what came twice the first time counts."""
    latest: dict[str, str] = {}
    late = 0
    for event in dict.fromkeys(arrivals):
        late += event < latest.get(_room(event), "")
        latest[_room(event)] = max(event, latest.get(_room(event), ""))
    return late


def _forget_outbox(place: Place) -> None:
    for path in place.folder.glob("outbox.db*"):
        path.unlink()


async def _warm(traffic: Traffic, receiver: Sink) -> None:
    """Every session once, so that caches are warm."""
    ids = await traffic.steady(200.0, _SESSIONS / 200.0)
    healthy = [event for event in ids if _room(event) not in ("r0", "r100")]
    await _latencies(traffic, receiver, healthy)


async def _latencies(traffic: Traffic, receiver: Sink, ids: list[str]) -> list[float]:
    """From the acknowledged write to the request, of each, once all of them were taken."""
    wanted = set(ids)
    async with asyncio.timeout(_PATIENCE_S):
        while True:
            found: dict[str, float] = {}
            for event, at in await receiver.arrivals():
                found.setdefault(event, at)
            if wanted <= found.keys():
                return [found[event] - traffic.written[event] for event in ids]
            await asyncio.sleep(0.1)
