"""A large backlog: the start with a million pending events, and what it takes in memory."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from daemon.outbox.writer import connect
from tests.bench.figures import Figure
from tests.bench.ground import Ground
from tests.bench.processes import Relay, sink
from tests.bench.traffic import Traffic

_DRAIN_S = 8.0
# A file as the relay leaves it when it is stopped with this much to do; sessions take turns.
_FILL = """
    CREATE TEMP TABLE numbers AS WITH RECURSIVE up(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM up WHERE n < :events)
        SELECT n, 'session-' || (n % :lanes) AS session FROM up;
    INSERT INTO events (id, type, session, happened_at, recorded_at)
        SELECT 'Message:message-' || printf('%08d', n), 'Message', session, :now, :now FROM numbers ORDER BY n;
    INSERT INTO bodies SELECT n, 'guide', CAST(:body AS BLOB), '[[], null]' FROM numbers ORDER BY n;
    INSERT INTO deliveries (endpoint, sequence, session, profile, state)
        SELECT 'crm', n, session, 'guide', 'pending' FROM numbers ORDER BY n;
    INSERT INTO lanes (endpoint, session, sequence, due) SELECT 'crm', session, min(n), 0.0 FROM numbers GROUP BY session;
    DROP TABLE numbers;
"""


async def measure(ground: Ground) -> list[Figure]:
    """All figures of this family."""
    return [*await _start(ground, ground.count(1_000_000)), await _retries(ground)]


async def _start(ground: Ground, events: int) -> list[Figure]:
    async with ground.place() as place, sink(place.folder) as receiver:
        await Traffic(place.database).prepare()
        lanes = max(1, events // 5)
        await asyncio.to_thread(fill, place.folder / "outbox.db", events, lanes)
        relay = Relay(place.config(receiver.url))
        began = time.monotonic()
        await relay.start()
        try:
            await receiver.arrived(1)
            first = (await receiver.arrivals())[0][1] - began
            await asyncio.sleep(ground.seconds(_DRAIN_S) / 2)
            middle = relay.memory_mb()
            await asyncio.sleep(ground.seconds(_DRAIN_S) / 2)
            delivered = (await receiver.get("count"))["count"]
            peak = relay.memory_mb()
        finally:
            await relay.stop()
    size_mb = sum(path.stat().st_size for path in place.folder.glob("outbox.db*")) / 1e6
    said = f"{events} events in {lanes} sessions, {size_mb:.0f} MB"
    return [
        Figure("start_backlog", "start with a backlog to the first delivery", first, "s", 3.0, detail=said),
        Figure(
            "memory_backlog",
            "memory with a backlog, peak",
            peak,
            "MB",
            200.0,
            detail=f"{middle:.0f} MB half-way; {delivered} delivered",
        ),
    ]


async def _retries(ground: Ground) -> Figure:
    """Every lane fails once and waits for its retry."""
    lanes = ground.count(10_000)
    async with ground.place() as place, sink(place.folder) as receiver:
        await Traffic(place.database).prepare()
        await asyncio.to_thread(fill, place.folder / "outbox.db", 2 * lanes, lanes)
        await receiver.get("set?status=500")
        endpoint = {"retry": {"wait": "1h"}}
        async with Relay(place.config(receiver.url, endpoint=endpoint, log={"level": "warning"})) as relay:
            await receiver.arrived(lanes // 2)
            middle = relay.memory_mb()
            await receiver.arrived(lanes)
            await asyncio.sleep(2.0)
            peak = relay.memory_mb()
            (waiting,) = relay.query("SELECT count(*) FROM lanes WHERE retry = 1 AND due IS NOT NULL")[0]
    detail = f"{middle:.0f} MB half-way; {waiting} lanes wait"
    return Figure("memory_retries", "memory with lanes that wait for a retry, peak", peak, "MB", 200.0, detail=detail)


def fill(path: Path, events: int, lanes: int) -> None:
    """A backlog for the endpoint `crm`, as fast as the disk takes it."""
    body = b'{"_id":"session","type":"Message","messages":[{"username":"guest","msg":"%s"}]}' % (b"x" * 780)
    connection = connect(path)
    connection.execute("PRAGMA journal_mode = OFF")
    connection.execute("PRAGMA synchronous = OFF")
    connection.execute("PRAGMA cache_size = -400000")
    values = {"events": events, "lanes": lanes, "now": time.time(), "body": body}
    for statement in _FILL.split(";\n"):
        if statement.strip():
            connection.execute(statement, values)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.close()
