"""The relay in a test: in this process, or as a process of its own that can be killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Any

import aiohttp
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from daemon.app import App
from daemon.compose.payload.schemas import payload_schema
from daemon.config.file import load
from daemon.config.root import Config
from daemon.demo.child import free_port
from daemon.demo.receiver import Exchange, Receiver
from daemon.model import EventType, Profile

TOKEN = "s3cret"
_PATIENCE_S = 20.0


def write_config(
    folder: Path, *, uri: str, database: str, url: str, endpoint: dict[str, Any] | None = None, **sections: Any
) -> Path:
    """A configuration file with one endpoint `crm`, shape `native`, and waits of 50 ms."""
    content = {
        "mongodb": {"uri": uri, "database": database},
        "outbox": {"url": f"sqlite:///{folder / 'outbox.db'}"},
        "endpoints": {
            "crm": {
                "url": url,
                "secret_token": TOKEN,
                "profile": "native",
                "retry": {"wait": "50ms"},
                **(endpoint or {}),
            }
        },
        "serve": {"listen": f"127.0.0.1:{free_port()}"},
        **sections,
    }
    path = folder / "config.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML().dump(content, file)
    return path


@asynccontextmanager
async def running(config: Config | Path) -> AsyncIterator[App]:
    """The relay in this process, ready; stopped and drained at the end."""
    app = App(load(config), read_config=lambda: load(config)) if isinstance(config, Path) else App(config)
    stop = asyncio.Event()
    task = asyncio.create_task(app.run(stop))
    try:
        await eventually(lambda: task.done() or app.health.not_ready() is None)
        if task.done():
            await task
        yield app
    finally:
        stop.set()
        await task


class RelayProcess:
    """The relay as a user runs it."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self._listen = load(config).serve.listen
        self._process: asyncio.subprocess.Process | None = None
        self.log = config.with_name("relay.log")

    async def __aenter__(self) -> RelayProcess:
        await self.start()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.kill()

    async def start(self, *, ready: bool = True) -> None:
        with self.log.open("ab") as log:
            command = (sys.executable, "-m", "daemon", "run", "-c", str(self._config))
            environment = {**os.environ, "PYTHONWARNINGS": "default"}
            self._process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment)
        if ready:
            await self.ready()

    async def ready(self) -> None:
        process = self.process
        async with aiohttp.ClientSession() as http:
            while process.returncode is None:
                try:
                    async with http.get(f"http://{self._listen}/readyz") as response:
                        if response.status == 200:
                            return
                except aiohttp.ClientError:
                    pass
                await asyncio.sleep(0.02)
        raise AssertionError(f"the relay ended with {process.returncode}: {self.log.read_text()}")

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(self.process.wait(), _PATIENCE_S)


async def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait until `condition` holds; fail when it takes too long."""
    try:
        async with asyncio.timeout(_PATIENCE_S):
            while not condition():  # noqa: ASYNC110 - what is awaited is often in another process
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"waited {_PATIENCE_S} s for {what or condition}") from None


def accepted(receiver: Receiver) -> list[Exchange]:
    """What the receiver took, once per event id, in order."""
    once: dict[str, Exchange] = {}
    for exchange in receiver.exchanges:
        if exchange.accepted:
            once.setdefault(exchange.event_id, exchange)
    return list(once.values())


def payloads(receiver: Receiver) -> list[dict[str, Any]]:
    """What the receiver took, each checked against the schema of the profile `native`."""
    found: list[dict[str, Any]] = [exchange.received.payload for exchange in accepted(receiver)]
    for payload in found:
        _validator(EventType(payload["type"])).validate(payload)
    return found


@cache
def _validator(event_type: EventType) -> Draft202012Validator:
    schema = payload_schema(event_type, Profile.NATIVE)
    return Draft202012Validator(schema, format_checker=Draft202012Validator.FORMAT_CHECKER)


def query(folder: Path, statement: str) -> list[tuple[Any, ...]]:
    """Read the outbox beside the relay."""
    with sqlite3.connect(folder / "outbox.db") as connection:
        found = connection.execute(statement).fetchall()
    connection.close()
    return found
