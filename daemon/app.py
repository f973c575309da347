"""Builds the relay from its configuration, runs it, gives it another configuration, and stops it in order."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from daemon import flow
from daemon.check.findings import Finding
from daemon.check.run import run_checks
from daemon.clock import Clock, SystemClock, wait_until_set
from daemon.config.difference import difference, keep_fixed, snapshot
from daemon.config.root import Config
from daemon.config.secrets import secrets_of
from daemon.config.types import redact_url
from daemon.engine import Engine
from daemon.errors import ConfigurationError, DaemonError, MongoError, PositionLostError
from daemon.log import configure, get_logger, hide, say_repeated
from daemon.loops import Loops, tell
from daemon.metrics import Metrics
from daemon.observe import Observer, say_what_repeats
from daemon.outbox.prune import Place, Retention
from daemon.outbox.sqlite import SqliteOutbox
from daemon.serve.api import Api
from daemon.serve.health import Health
from daemon.serve.http import Server
from daemon.service import ServiceManager

_PRUNE_EVERY_S = 3600.0
_LOOK_EVERY_S = 30.0  # whether the outbox is crowded
_CROWDED = 0.8  # of outbox.max_size
_PRUNE_PAUSE_S = 0.05

log = get_logger("app")


class App:
    """One relay. Can run inside a test; only the command line knows signals and exit codes.

    `read_config` gives the configuration for a reload, or raises `ConfigurationError`; `path` is where it comes from.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        read_config: Callable[[], Config] | None = None,
        path: Path | None = None,
    ) -> None:
        self._path = path
        self._config = config
        self._snapshot = snapshot(config)
        self._read_config = read_config or (lambda: config)
        self._clock = clock or SystemClock()
        self.metrics = Metrics()
        self.health = Health(self._clock)
        self._manager = ServiceManager(self._clock)
        self._reload = asyncio.Event()
        self._following: Engine | None = None
        self._halted_at: float | None = None
        self._pruning_at = self._clock.monotonic()

    def reload(self) -> None:
        """Read the configuration again and put it to work. A faulty one changes nothing."""
        self._reload.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, then drain within `relay.grace`. Raises `DaemonError` when it cannot go on."""
        try:
            await self._run(stop)
        except DaemonError as error:
            tell(error)
            raise

    async def _run(self, stop: asyncio.Event) -> None:
        config = self._config
        async with AsyncExitStack() as stack:
            stack.callback(say_repeated, everything=True)
            outbox = SqliteOutbox(config.outbox.path, clock=self._clock, metrics=self.metrics)
            stack.push_async_callback(outbox.close)
            self.health.outbox_waiting = lambda: outbox.waiting
            engine = self._build(config, outbox)
            self.health.endpoints.update({name: lambda: None for name in config.endpoints})
            api = Api(
                config.outbox.path, self.health, listen=config.serve.address, version=_version(), check=self._check_everything
            )
            server = Server(config.serve.address, self.health, self.metrics, api=api)
            await stack.enter_async_context(server)
            observer = Observer(outbox, health=self.health, metrics=self.metrics, manager=self._manager, clock=self._clock)
            self.metrics.outbox_max_size.set_function(lambda: self._config.outbox.max_size)
            self.health.loops["observe"] = lambda: observer.turned_at
            self.health.loops["prune"] = lambda: self._pruning_at
            self._say_what_it_does(engine)
            loops = Loops(
                {
                    "relay": lambda: self._run_engines(engine, outbox, server, api, stop),
                    "observe": lambda: observer.run(stop),
                    "prune": lambda: self._prune(outbox, stop),
                    "log": lambda: say_what_repeats(stop),
                },
                stop,
            )
            await loops.run(self._say_stopping)
        log.info("relay.stopped")

    async def _check_everything(self) -> list[Finding]:
        return await run_checks(self._config, self._path, self._clock)

    def _build(self, config: Config, outbox: SqliteOutbox) -> Engine:
        return Engine(config, outbox=outbox, health=self.health, clock=self._clock, metrics=self.metrics, on_open=self._opened)

    # -- one engine after the other

    async def _run_engines(self, engine: Engine, outbox: SqliteOutbox, server: Server, api: Api, stop: asyncio.Event) -> None:
        """Run `engine` until stopped, or until a reload puts another in its place."""
        former: Config | None = None
        while True:
            server.intake, api.wake, api.token = engine.intake, engine.wake, engine.api_token
            halt = asyncio.Event()
            watching = asyncio.ensure_future(self._await_halt(outbox, stop, halt))
            try:
                await engine.run(halt, self._say_halting)
            except (MongoError, PositionLostError, ConfigurationError) as error:
                if former is None or engine.opened or stop.is_set():
                    raise
                log.error(  # noqa: TRY400 - the operator's mistake: no trace is needed
                    "relay.reload_failed", error=str(error), hint=error.hint, next="the configuration from before is back"
                )
                self.health.note = "the new configuration does not work, see the log; the one from before is back"
                if self._following is None:
                    self._following = self._build(former, outbox)
                    await self._adopt(former)
            finally:
                watching.cancel()
                await asyncio.wait([watching])
            if not watching.cancelled():
                watching.result()
            following, self._following = self._following, None
            if stop.is_set() or following is None:
                return
            former = None if following.config is former else engine.config
            for name in set(engine.config.endpoints) - set(following.config.endpoints):
                self.metrics.forget_endpoint(name)
            engine = following
            self._manager.reloaded(self.health.note)

    async def _await_halt(self, outbox: SqliteOutbox, stop: asyncio.Event, halt: asyncio.Event) -> None:
        """Set `halt` when stopped, or when there is an engine to follow."""
        try:
            while self._following is None:
                await _first_of(stop, self._reload)
                if stop.is_set():
                    return
                self._reload.clear()
                self._manager.reloading()
                self._following = await self._read_again(outbox)
                if self._following is None:
                    self._manager.reloaded(self.health.note)
        finally:
            halt.set()

    async def _read_again(self, outbox: SqliteOutbox) -> Engine | None:
        """The engine of the configuration as it is now; None, and why, when it cannot be used."""
        try:
            wanted = await asyncio.to_thread(self._read_config)
            config, kept = keep_fixed(wanted, self._config)
            engine = await asyncio.to_thread(self._build, config, outbox)  # it may ask for names of hosts
        except ConfigurationError as error:
            log.error("relay.reload_refused", error=str(error), hint=error.hint, next="nothing was changed")  # noqa: TRY400
            count = max(1, str(error).count("\n"))
            self.health.note = f"the configuration was not reloaded: {count} fault{'s' * (count > 1)}, see the log"
            return None
        if kept:
            log.warning("relay.restart_needed", keys=kept, note="these keep their value until the relay is started again")
        self.health.note = f"restart needed for {', '.join(kept)}" if kept else None
        await self._adopt(config)
        return engine

    async def _adopt(self, config: Config) -> None:
        before, self._snapshot = self._snapshot, await asyncio.to_thread(snapshot, config)
        log.info("relay.reloading", **difference(before, self._snapshot))
        if config.log != self._config.log:
            configure(config.log.level, config.log.format, secrets_of(self._config))
        hide(*secrets_of(config))
        self._config = config

    def _opened(self) -> None:
        """The change stream of an engine is open for the first time."""
        if self._halted_at is not None:
            log.info("relay.reloaded", pause_s=round(self._clock.monotonic() - self._halted_at, 3))
            self._halted_at = None

    def _say_halting(self) -> None:
        """An engine begins to drain: for another one, or for good."""
        self._halted_at = self._clock.monotonic()
        self.health.capture_open(False, "stopping" if self._following is None else "the configuration is being reloaded")

    def _say_stopping(self) -> None:
        self.health.stopping = True
        self._manager.stopping()
        log.info("relay.stopping", grace_s=self._config.relay.grace.total_seconds())

    # -- keeping house

    async def _prune(self, outbox: SqliteOutbox, stop: asyncio.Event) -> None:
        pruned_at = self._clock.monotonic()
        while not await wait_until_set(stop, _LOOK_EVERY_S):
            self._pruning_at = self._clock.monotonic()
            keep = self._config.outbox
            crowded = await outbox.size() > keep.max_size * _CROWDED
            if not crowded and self._clock.monotonic() - pruned_at < _PRUNE_EVERY_S:
                continue
            pruned_at = self._clock.monotonic()
            retention = Retention(
                delivered_s=keep.keep_delivered.total_seconds(),
                dead_s=keep.keep_dead.total_seconds(),
                ids_s=keep.keep_ids.total_seconds(),
                state_s=keep.keep_state.total_seconds(),
            )
            place: Place | None = Place()
            while place is not None and not await wait_until_set(stop, _PRUNE_PAUSE_S):
                self._pruning_at = self._clock.monotonic()
                pruning = outbox.prune(replace(retention, delivered_s=0.0) if crowded else retention, place)
                place = await flow.until_stopped(stop, pruning)
            if place is None and not stop.is_set():
                self.metrics.pruned.set(self._clock.now().timestamp())

    def _say_what_it_does(self, engine: Engine) -> None:
        config = self._config
        log.info(
            "relay.starting",
            version=_version(),
            mongodb=engine.where,
            outbox=str(config.outbox.path),
            serve=config.serve.listen,
            endpoints={name: redact_url(str(endpoint.url)) for name, endpoint in config.endpoints.items()},
        )


def _version() -> str:
    return version("rocketchat-livechat-relay")


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of them is set."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
