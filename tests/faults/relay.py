"""The relay under a supervisor that starts it again whenever it ends, as systemd would."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import aiohttp
import orjson

from tests.faults.evidence import Ending
from tests.faults.launcher import HIT

_ROOT = Path(__file__).parents[2]
_READY_S = 90.0
_STOP_S = 60.0


class SupervisedRelay:
    """The relay with the configuration `config`, on `address`. `ended` is called after each end, before the next start.

    Its output goes through a pipe to relay.log: a limit on the size of its files must not hit its log.
    """

    def __init__(self, config: Path, address: str, ended: Callable[[Ending], None]) -> None:
        self._config = config
        self._address = address
        self._ended = ended
        self.log = config.with_name("relay.log")
        self.clock = config.with_name("clock")
        self.clock.write_text("0", encoding="ascii")
        self.endings: list[Ending] = []
        self.unexpected: list[str] = []
        self.hits: list[str] = []
        self.crashed = asyncio.Event()  # since it was armed last
        self.pause_s = 0.0
        self._file_limit: int | None = None
        self._short_of_space: int | None = None  # the process that may fail for that
        self._wanted = True
        self._cause: str | None = None
        self._armed: str | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    async def start(self) -> None:
        """Supervise; returns when it is ready."""
        self._wanted = True
        self._task = asyncio.create_task(self._supervise())
        await self.ready()

    async def stop(self) -> None:
        """End it in order, for good."""
        self._wanted = False
        self.terminate()
        if self._task is not None:
            await asyncio.wait_for(self._task, _STOP_S)

    async def close(self) -> None:
        """It is gone when this returns."""
        self._wanted = False
        if self._process is not None and self._process.returncode is None:
            self._cause = "killed at the end of the run"
            with suppress(ProcessLookupError):
                self._process.kill()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def ready(self) -> None:
        """Wait until it says so."""
        async with asyncio.timeout(_READY_S), aiohttp.ClientSession() as http:
            while True:
                with suppress(aiohttp.ClientError):
                    async with http.get(f"http://{self._address}/readyz") as response:
                        if response.status == 200:
                            return
                if self._task is not None and self._task.done():
                    raise AssertionError(f"the relay is not supervised any more: {self.log.read_text(encoding='utf-8')[-2000:]}")
                await asyncio.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL."""
        self._signal(signal.SIGKILL, "killed")

    def terminate(self) -> None:
        """SIGTERM."""
        self._signal(signal.SIGTERM, "terminated")

    def freeze(self) -> None:
        """SIGSTOP."""
        self._signal(signal.SIGSTOP, None)

    def thaw(self) -> None:
        """SIGCONT."""
        self._signal(signal.SIGCONT, None)

    def arm(self, point: str, passages: int) -> None:
        """The next process crashes at this point; end the present one for that."""
        self._armed = f"{point}:{passages}"
        self.crashed = asyncio.Event()

    @property
    def armed(self) -> bool:
        """Whether the process that is to crash was not started yet."""
        return self._armed is not None

    def set_clock(self, seconds: float) -> None:
        """Its wall clock is off by so much."""
        fresh = self.clock.with_name("clock.new")
        fresh.write_text(str(seconds), encoding="ascii")
        fresh.replace(self.clock)

    def limit_files(self, size: int | None) -> None:
        """No file of the running process, nor of those that follow it, may grow beyond `size`; None lifts the limit."""
        self._file_limit = size
        self._apply_file_limit()

    def _apply_file_limit(self) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        self._short_of_space = process.pid
        with suppress(ProcessLookupError):
            most = resource.RLIM_INFINITY
            size = most if self._file_limit is None else self._file_limit
            resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, most))

    def _signal(self, number: signal.Signals, cause: str | None) -> None:
        process = self._process
        if process is not None and process.returncode is None:
            if cause is not None and self._cause is None:
                self._cause = cause
            with suppress(ProcessLookupError):
                process.send_signal(number)

    async def _supervise(self) -> None:
        while self._wanted:
            armed, self._armed = self._armed, None
            environment = {**os.environ, "PYTHONPATH": str(_ROOT), "FAULTS_CLOCK": str(self.clock)}
            if armed is not None:
                environment["FAULTS_CRASH"] = armed
            command = (sys.executable, "-m", "tests.faults.launcher", "run", "-c", str(self._config))
            self._process = process = await asyncio.create_subprocess_exec(
                *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT, env=environment, cwd=_ROOT
            )
            if self._file_limit is not None:
                self._apply_file_limit()
            hits = len(self.hits)
            await self._copy_log(process)
            await process.wait()
            self._note_end(process, crashed=len(self.hits) > hits)
            if self._wanted:
                await asyncio.sleep(self.pause_s or 0.02)

    async def _copy_log(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with self.log.open("ab", buffering=0) as log:
            async for line in process.stdout:
                log.write(line)
                if HIT.encode() in line:
                    self.hits.append(orjson.loads(line)["point"])
                    self.crashed.set()

    def _note_end(self, process: asyncio.subprocess.Process, *, crashed: bool) -> None:
        cause, self._cause = self._cause, None
        code = process.returncode
        at = time.time()
        if crashed:
            ending = Ending(at, f"crashed at {self.hits[-1]}", cuts_off=True)
        elif code == -signal.SIGKILL and cause is not None:
            ending = Ending(at, cause, cuts_off=True)
        elif code == 0 and cause == "terminated":
            ending = Ending(at, cause, cuts_off=False)
        elif code == -signal.SIGTERM and cause == "terminated":
            ending = Ending(at, "terminated before it had begun", cuts_off=False)
        elif code == 1 and process.pid == self._short_of_space:
            ending = Ending(at, "ended by the full disk", cuts_off=True)
        else:
            ending = Ending(at, f"ended by itself with {code}", cuts_off=True)
            self.unexpected.append(f"{ending.how}, asked for: {cause or 'nothing'}")
        self.endings.append(ending)
        self._ended(ending)
