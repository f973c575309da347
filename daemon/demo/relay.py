"""The relay itself as a process of its own, run as a customer would run it."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from types import TracebackType

import aiohttp

import daemon
from daemon.clock import Clock
from daemon.demo.child import Child, free_port, tail
from daemon.errors import DaemonError

RETRY_WAIT_S = 1
_RUN = ("-m", "daemon", "run")
_READY_S = 40.0
_STOP_S = 30.0
_POLL_S = 0.1


class RelayProcess:
    """`livechat-relay run` with a configuration, outbox and log in `folder`.

    On entering the context it is ready, unless `stop` was set meanwhile; on leaving it is gone, asked first and killed if it
    does not listen.
    """

    def __init__(
        self, folder: Path, *, mongodb_uri: str, database: str, receiver_url: str, token: str, clock: Clock, stop: asyncio.Event
    ) -> None:
        self.config = folder / "config.yaml"
        self.outbox = folder / "outbox.db"
        self.log = folder / "relay.log"
        self._address = f"127.0.0.1:{free_port()}"
        self._clock = clock
        self._stop = stop
        self._child: Child | None = None
        self._yaml = _config(
            mongodb_uri=mongodb_uri,
            database=database,
            outbox=self.outbox.absolute(),
            url=receiver_url,
            token=token,
            listen=self._address,
        )

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self._child.exit_code if self._child else None

    async def stop(self) -> int:
        """Ask it to end, as systemd would; its exit code."""
        return await self._child.stop(_STOP_S) if self._child else 0

    async def __aenter__(self) -> RelayProcess:
        _write_private(self.config, self._yaml)
        # The code that runs here must be the code that runs there, and no setting of this shell may reach it.
        environment = {key: value for key, value in os.environ.items() if not key.startswith("LIVECHAT_RELAY_")}
        environment["PYTHONPATH"] = str(Path(str(daemon.__file__)).parent.parent)
        command = [sys.executable, *_RUN, "-c", str(self.config.absolute())]
        self._child = await Child.start(command, log=self.log, folder=self.config.parent, environment=environment)
        try:
            await self._wait_until_ready()
        except BaseException:
            await self._child.stop(_STOP_S)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.stop()

    async def _wait_until_ready(self) -> None:
        end = self._clock.monotonic() + _READY_S
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=2.0)) as http:
            while not self._stop.is_set() and not await self._is_ready(http):
                if self.exit_code is not None:
                    raise DaemonError(f"the relay ended with exit code {self.exit_code}:\n{tail(self.log)}", hint=_HINT)
                if self._clock.monotonic() > end:
                    raise DaemonError(f"the relay was not ready within {_READY_S:.0f} s:\n{tail(self.log)}", hint=_HINT)
                await self._clock.sleep(_POLL_S)

    async def _is_ready(self, http: aiohttp.ClientSession) -> bool:
        try:
            async with http.get(f"http://{self._address}/readyz") as response:
                return response.status == 200
        except (aiohttp.ClientError, TimeoutError):
            return False


_HINT = "run the demo again with --keep DIR and look at relay.log and config.yaml there"


def _write_private(path: Path, text: str) -> None:
    """Write a file that only we can read: the URI in it may have a password."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:
        file.write(text)


def _config(*, mongodb_uri: str, database: str, outbox: Path, url: str, token: str, listen: str) -> str:
    """The configuration; a JSON string is a YAML string, so no value can break out."""
    return f"""\
# Written by `livechat-relay demo`. A real one: `livechat-relay config example`.
mongodb:
  uri: {json.dumps(mongodb_uri)}
  database: {json.dumps(database)}
outbox:
  url: {json.dumps(f"sqlite:///{outbox}")}
endpoints:
  demo:
    url: {json.dumps(url)}
    secret_token: {json.dumps(token)}
    profile: guide
    retry: {{tries: 10, wait: {RETRY_WAIT_S}s}}  # the default wait is 10s
serve:
  listen: {json.dumps(listen)}
log:
  format: json
"""
