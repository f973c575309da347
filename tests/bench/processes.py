"""The processes of the bench: the relay, the receiver, the floors; and what the kernel says they cost."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp

from daemon.config.file import load
from daemon.demo.child import Child, free_port, tail

_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE_S = 180.0
_SLOW_FSYNC = """
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>
static int slow(const char *name, int file) {
    usleep(5000);
    return ((int (*)(int)) dlsym(RTLD_NEXT, name))(file);
}
int fsync(int file) { return slow("fsync", file); }
int fdatasync(int file) { return slow("fdatasync", file); }
"""


def cpu_s(pid: int) -> float:
    """Processor time a process has used, all threads, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


class Relay:
    """`livechat-relay run` as a process of its own."""

    def __init__(self, config: Path, environment: Mapping[str, str] | None = None) -> None:
        self._config = config
        self._listen = load(config).serve.listen
        self._outbox = load(config).outbox.path
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LIVECHAT_RELAY_")}
        self._environment = {**kept, **(environment or {})}
        self._log = config.with_name("relay.log")
        self._child: Child | None = None

    async def __aenter__(self) -> Relay:
        await self.start()
        await self.ready()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def start(self) -> None:
        """Begin; it is not ready yet."""
        command = (sys.executable, "-m", "daemon", "run", "-c", str(self._config))
        self._child = await Child.start(command, log=self._log, environment=self._environment)

    async def ready(self) -> None:
        """Wait until it reads."""
        async with asyncio.timeout(_PATIENCE_S), aiohttp.ClientSession() as http:
            while self.child.exit_code is None:
                try:
                    async with http.get(f"http://{self._listen}/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)
        raise RuntimeError(f"the relay ended with {self.child.exit_code}: {tail(self._log)}")

    async def stop(self) -> None:
        """Ask it to end."""
        await self.child.stop(30.0)

    @property
    def child(self) -> Child:
        """The process."""
        if self._child is None:
            raise RuntimeError("not started")
        return self._child

    def cpu_s(self) -> float:
        """See `cpu_s`."""
        return cpu_s(self.child.pid)

    def memory_mb(self, name: str = "VmHWM") -> float:
        """Its resident memory at the peak."""
        status = Path(f"/proc/{self.child.pid}/status").read_text(encoding="utf-8")
        return int(next(line.split()[1] for line in status.splitlines() if line.startswith(f"{name}:"))) / 1024

    def written_bytes(self) -> int:
        """What it gave the disk to write."""
        counts = Path(f"/proc/{self.child.pid}/io").read_text(encoding="ascii").splitlines()
        return int(next(line.split()[1] for line in counts if line.startswith("write_bytes:")))

    async def metric(self, name: str) -> float:
        """The sum of a metric over its labels."""
        async with aiohttp.ClientSession() as http, http.get(f"http://{self._listen}/metrics") as response:
            lines = (await response.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    async def committed(self, at: tuple[int, int]) -> None:
        """Wait until its position is at this cluster time or later."""
        connection = sqlite3.connect(f"file:{self._outbox}?mode=ro", uri=True, isolation_level=None)
        try:
            async with asyncio.timeout(_PATIENCE_S):
                query = "SELECT seconds, increment FROM position"
                while tuple(connection.execute(query).fetchone() or ()) < at:  # noqa: ASYNC110 - it is in another process
                    await asyncio.sleep(0.02)
        finally:
            connection.close()

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        """Read its outbox."""
        connection = sqlite3.connect(f"file:{self._outbox}?mode=ro", uri=True, isolation_level=None)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()


class Sink:
    """The receiver process, see `tests.bench.sink`."""

    def __init__(self, port: int, http: aiohttp.ClientSession) -> None:
        self.url = f"http://127.0.0.1:{port}/"
        self._http = http

    async def get(self, target: str) -> Any:
        """Ask it."""
        async with self._http.get(f"{self.url}{target}") as response:
            return await response.json()

    async def arrived(self, count: int, *, accepted: bool = False, patience_s: float = _PATIENCE_S) -> None:
        """Wait until `count` requests came."""
        async with asyncio.timeout(patience_s):
            while (await self.get("count"))["accepted" if accepted else "count"] < count:  # noqa: ASYNC110 - it is in another process
                await asyncio.sleep(0.02)

    async def arrivals(self) -> list[tuple[str, float]]:
        """Event id and time (monotonic, of this machine) of what it accepted, in order."""
        return [(event, at) for event, at, accepted in await self.get("arrivals") if accepted]


@asynccontextmanager
async def sink(folder: Path) -> AsyncIterator[Sink]:
    """A receiver that is up."""
    port = free_port()
    child = await Child.start((sys.executable, "-m", "tests.bench.sink", str(port)), log=folder / "sink.log")
    try:
        async with aiohttp.ClientSession() as http:
            found = Sink(port, http)
            async with asyncio.timeout(20):
                while True:
                    try:
                        await found.get("reset")
                        break
                    except aiohttp.ClientError:
                        await asyncio.sleep(0.02)
            yield found
    finally:
        child.kill()
        await child.wait()


async def floor(name: str, folder: Path, **arguments: Any) -> dict[str, Any]:
    """Run a floor to its end; gives what it measured of itself."""
    async with floor_running(name, folder, **arguments) as (child, log):
        async with asyncio.timeout(_PATIENCE_S):
            code = await child.wait()
        if code:
            raise RuntimeError(f"the floor {name} ended with {code}: {tail(log)}")
        found: dict[str, Any] = json.loads(log.read_text(encoding="utf-8").splitlines()[-1])
        return found


@asynccontextmanager
async def floor_running(name: str, folder: Path, **arguments: Any) -> AsyncIterator[tuple[Child, Path]]:
    """A floor that runs; killed at the end."""
    log = folder / f"floor-{name}.log"
    log.unlink(missing_ok=True)
    child = await Child.start((sys.executable, "-m", "tests.bench.floors", name, json.dumps(arguments)), log=log)
    try:
        yield child, log
    finally:
        child.kill()
        await child.wait()


@cache
def slow_fsync(folder: Path) -> Path | None:
    """A library that makes every fsync of a process take 5 ms longer, for LD_PRELOAD; None without a C compiler."""
    compiler = shutil.which("cc")
    if compiler is None:
        return None
    source, library = folder / "slow_fsync.c", folder / "slow_fsync.so"
    source.write_text(_SLOW_FSYNC, encoding="utf-8")
    built = subprocess.run(  # noqa: S603 - our own source
        [compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], capture_output=True, check=False
    )
    return library if built.returncode == 0 else None
