"""Figures of the relay on this machine: `make bench`.

A real mongod, the relay and a receiver as processes of their own. A message is written as Rocket.Chat writes it: its insert,
then an update of its room. Prints events per second of a backlog, latency at a steady rate, and memory.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from rich.console import Console
from rich.table import Table

from daemon.demo.child import free_port
from daemon.demo.mongod import EmbeddedMongod
from tests.flow.harness import RelayProcess, query, write_config

Database = AsyncIOMotorDatabase[dict[str, Any]]
_ROOMS = 100


class Chats:
    """Open rooms and messages in them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.written: dict[str, float] = {}

    async def open(self) -> None:
        """The collections, and rooms that are served."""
        now = datetime.now(UTC)
        await self._database["rocketchat_settings"].insert_one({"_id": "Site_Url", "value": "https://chat.example.org"})
        await self._database["users"].insert_one(
            {"_id": "agent", "username": "maria", "name": "Maria", "emails": [{"address": "maria@example.org"}]}
        )
        await self._database["rocketchat_livechat_visitor"].insert_many(
            [{"_id": f"v{n}", "username": f"guest-{n}", "token": f"t{n}", "name": f"Guest {n}"} for n in range(_ROOMS)]
        )
        await self._database["rocketchat_room"].insert_many(
            [
                {
                    "_id": f"r{n}",
                    "t": "l",
                    "ts": now,
                    "lm": now,
                    "fname": f"Guest {n}",
                    "open": True,
                    "v": {"_id": f"v{n}", "username": f"guest-{n}", "token": f"t{n}"},
                    "servedBy": {"_id": "agent", "username": "maria", "ts": now},
                }
                for n in range(_ROOMS)
            ]
        )

    async def message(self, number: int) -> None:
        """One message of a visitor, and what it changes in its room."""
        room, now = number % _ROOMS, datetime.now(UTC)
        message = {
            "_id": f"m{number}",
            "rid": f"r{room}",
            "msg": "It was billed twice, could you please have a look at it? " * 3,
            "token": f"t{room}",
            "ts": now,
            "u": {"_id": f"v{room}", "username": f"guest-{room}", "name": f"Guest {room}"},
            "_updatedAt": now,
        }
        await self._database["rocketchat_message"].insert_one(message)
        self.written[f"Message:m{number}"] = time.time()
        update = {"$set": {"lm": now, "lastMessage": message, "v.lastMessageTs": now}, "$inc": {"msgs": 1}}
        await self._database["rocketchat_room"].update_one({"_id": f"r{room}"}, update)


async def measure(messages: int, rate: float, seconds: float) -> Table:
    """All figures as a table."""
    table = Table("figure", "value", title="livechat-relay on this machine")
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        log = folder / "sink.txt"
        async with EmbeddedMongod() as mongod:
            with log.open("w") as output:
                sink = await asyncio.create_subprocess_exec(sys.executable, "-um", "tests.bench.sink", str(port), stdout=output)
            client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongod.uri, tz_aware=True)
            chats = Chats(client["rocketchat"])
            await chats.open()
            config = write_config(folder, uri=mongod.uri, database="rocketchat", url=f"http://127.0.0.1:{port}/")
            async with RelayProcess(config) as relay:
                await _steady(chats, rate, seconds)
                latencies = sorted(at - chats.written[event] for event, at in await _arrivals(log, len(chats.written)))
                table.add_row(f"latency at {rate:g} events/s, median", f"{statistics.median(latencies) * 1000:.1f} ms")
                table.add_row(
                    f"latency at {rate:g} events/s, 99th percentile", f"{latencies[int(len(latencies) * 0.99)] * 1000:.1f} ms"
                )
                await relay.stop()
                done = len(chats.written)
                await asyncio.gather(*(_burst(chats, done + start, done + messages, 16) for start in range(16)))
                began = time.monotonic()
                await relay.start()
                up = time.monotonic() - began
                await _arrivals(log, done + messages)
                spent = time.monotonic() - began
                table.add_row(f"{messages} messages written before the start: start to ready", f"{up:.2f} s")
                table.add_row("the same: start to last delivery", f"{spent:.2f} s")
                table.add_row("events per second from MongoDB to the receiver", f"{messages / (spent - up):.0f}")
                table.add_row("memory of the relay, peak", f"{_peak_memory_mb(relay.process.pid):.0f} MB")
                await relay.stop()
            owed = query(folder, "SELECT count(*) FROM deliveries WHERE state <> 'delivered'")[0][0]
            table.add_row("not delivered", str(owed))
            client.close()
            sink.terminate()
            await sink.wait()
    return table


async def _steady(chats: Chats, rate: float, seconds: float) -> None:
    began = time.monotonic()
    async with asyncio.TaskGroup() as tasks:
        for number in range(int(rate * seconds)):
            due = began + number / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            tasks.create_task(chats.message(number))


async def _burst(chats: Chats, first: int, last: int, step: int) -> None:
    for number in range(first, last, step):
        await chats.message(number)


def _peak_memory_mb(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))) / 1024


async def _arrivals(log: Path, count: int) -> list[tuple[str, float]]:
    """When each event arrived, as soon as `count` of them did."""
    async with asyncio.timeout(300):
        while True:
            lines = await asyncio.to_thread(_lines, log)
            if len(lines) >= count:
                return [(event, float(at)) for event, at in (line.split() for line in lines)]
            await asyncio.sleep(0.05)


def _lines(log: Path) -> list[str]:
    return log.read_text(encoding="utf-8").splitlines()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=10_000, help="size of the backlog")
    parser.add_argument("--rate", type=float, default=100.0, help="events per second of the steady run")
    parser.add_argument("--seconds", type=float, default=20.0, help="length of the steady run")
    arguments = parser.parse_args()
    Console().print(asyncio.run(measure(arguments.messages, arguments.rate, arguments.seconds)))


if __name__ == "__main__":
    main()
