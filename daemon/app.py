"""Builds the relay from its configuration, runs it, and stops it in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime
from importlib.metadata import version

from bson.timestamp import Timestamp

from daemon import flow
from daemon.capture.stream import ChangeStream
from daemon.clock import Clock, SystemClock, wait_until_set
from daemon.compose.composer import Composer
from daemon.compose.documents import WATCHES
from daemon.compose.intake import offline_event
from daemon.compose.lookup import Lookup
from daemon.compose.match import Endpoints
from daemon.config.endpoint import EndpointSection
from daemon.config.root import Config
from daemon.config.types import redact_url
from daemon.errors import DaemonError, PositionLostError, first_error
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Position
from daemon.mongo import connect, describe
from daemon.outbox.prune import Place, Retention
from daemon.outbox.sqlite import SqliteOutbox
from daemon.relay.lanes import Lanes
from daemon.relay.schedule import RetryPolicy
from daemon.send.client import Sender
from daemon.send.guard import Guard
from daemon.serve.health import Health
from daemon.serve.http import Server
from daemon.serve.intake import Intake
from daemon.service import ServiceManager

_OBSERVE_EVERY_S = 5.0
_PRUNE_EVERY_S = 3600.0
_LOOK_EVERY_S = 30.0  # whether the outbox is crowded
_CLOSE_S = 1.0
_CROWDED = 0.8  # of outbox.max_size
_PRUNE_PAUSE_S = 0.05

log = get_logger("app")


async def _close(close: Callable[[], None]) -> None:
    """Closing waits for a server that is looked for; nothing is lost by not waiting with it."""
    try:
        await asyncio.wait_for(asyncio.to_thread(close), _CLOSE_S)
    except TimeoutError:
        log.debug("relay.mongodb_not_closed")


def _policy(endpoint: EndpointSection) -> RetryPolicy:
    retry = endpoint.retry
    return RetryPolicy(
        tries=retry.tries,
        waits=retry.waits,
        jitter=retry.jitter,
        any_2xx=endpoint.success == "2xx",
        final=frozenset(retry.final),
        honour_retry_after=retry.honour_retry_after,
        max_age=retry.max_age,
        outage=bool(retry.outage_probe),
    )


class App:
    """One relay. Can run inside a test; only the command line knows signals and exit codes."""

    def __init__(self, config: Config, *, clock: Clock | None = None) -> None:
        self._config = config
        self._clock = clock or SystemClock()
        self.metrics = Metrics()
        self.health = Health(self._clock)
        self._stopping = asyncio.Event()
        self._lanes: list[Lanes] = []
        self._manager = ServiceManager()
        self._failure: DaemonError | None = None

    async def run(self, stop: asyncio.Event) -> None:
        """Relay until `stop` is set, then drain within `relay.grace`. Raises `DaemonError` (or a group of it) when it cannot
        go on.
        """
        config = self._config
        connection_string = config.mongodb.connection_string()
        where = describe(connection_string, config.mongodb.database)
        self._say_what_it_does(where)
        async with AsyncExitStack() as stack:
            outbox = SqliteOutbox(config.outbox.path, clock=self._clock, metrics=self.metrics)
            stack.push_async_callback(outbox.close)
            interrupted = await outbox.recover()
            if interrupted:
                log.warning("relay.interrupted_attempts", count=interrupted, note="sent before the last stop, answer unknown")
            client = connect(connection_string)
            stack.push_async_callback(_close, client.close)
            lookup = Lookup(client, config.mongodb.database, where=where, clock=self._clock, metrics=self.metrics)
            await self._add_lanes(stack, outbox, lookup)
            server = Server(config.serve.address, self.health, self.metrics, self._intake(outbox))
            await stack.enter_async_context(server)
            stream = ChangeStream(
                client,
                config.mongodb.database,
                WATCHES,
                where=where,
                clock=self._clock,
                metrics=self.metrics,
                observer=self.health,
            )
            loops: dict[str, Callable[[], Awaitable[None]]] = {
                "capture": lambda: self._capture(stream, lookup, outbox),
                "observe": lambda: self._observe(outbox),
                "prune": lambda: self._prune(outbox),
            }
            loops.update({f"relay {name}": lanes.run for name, lanes in zip(config.endpoints, self._lanes, strict=True)})
            await self._run_loops(loops, stop)
        log.info("relay.stopped")

    async def _run_loops(self, loops: dict[str, Callable[[], Awaitable[None]]], stop: asyncio.Event) -> None:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guard(name, loop, stop), name=name) for name, loop in loops.items()]
            await stop.wait()
            self.health.stopping = True
            self._manager.stopping()
            grace_s = self._config.relay.grace.total_seconds()
            log.info("relay.stopping", grace_s=grace_s)
            self._stopping.set()
            for lanes in self._lanes:
                lanes.stop()
            _, late = await asyncio.wait(tasks, timeout=grace_s)
            for task in late:
                log.warning(
                    "relay.grace_over", loop=task.get_name(), note="what was in flight is sent again after the next start"
                )
                task.cancel()
        if self._failure is not None:
            raise self._failure

    async def _guard(self, name: str, loop: Callable[[], Awaitable[None]], stop: asyncio.Event) -> None:
        """A loop that cannot go on ends the relay, but in order: requests in flight would only be sent again after the next
        start.
        """
        try:
            await loop()
        except DaemonError as error:
            self._fail(error, stop)
        except BaseExceptionGroup as group:
            errors, others = group.split(DaemonError)
            if others is not None or errors is None:
                raise
            self._fail(first_error(errors), stop)
        else:
            if not self._stopping.is_set():
                hint = "this is a defect of the relay: please report it"
                self._fail(DaemonError(f"the loop {name!r} ended by itself", hint=hint), stop)

    def _fail(self, error: DaemonError, stop: asyncio.Event) -> None:
        if self._failure is None:
            log.error("relay.failed", error=str(error), hint=error.hint)
            self._failure = error
        stop.set()

    async def _add_lanes(self, stack: AsyncExitStack, outbox: SqliteOutbox, lookup: Lookup) -> None:
        guard = Guard(self._config.send.allow, self._config.send.deny)
        for name, endpoint in self._config.endpoints.items():
            sender = await stack.enter_async_context(Sender(name, endpoint, clock=self._clock, guard=guard))
            lanes = Lanes(
                name,
                concurrency=endpoint.concurrency,
                policy=_policy(endpoint),
                probe_every=endpoint.retry.outage_probe,
                outbox=outbox,
                post=flow.way_to_endpoint(sender, lookup, self._clock),
                clock=self._clock,
                metrics=self.metrics,
                answer_mode=endpoint.crm_data,
            )
            self._lanes.append(lanes)
            self.health.loops[f"relay {name}"] = lambda lanes=lanes: lanes.turned_at  # type: ignore[misc]
        known = set(self._config.endpoints)
        for backlog in await outbox.backlog():
            if backlog.endpoint not in known and backlog.owed:
                log.warning("relay.orphaned", endpoint=backlog.endpoint, owed=backlog.owed, note="not in the configuration")

    def _wake_relay(self) -> None:
        for lanes in self._lanes:
            lanes.wake()

    async def _capture(self, stream: ChangeStream, lookup: Lookup, outbox: SqliteOutbox) -> None:
        start = self._config.capture.start
        first = Position(Timestamp(int(start.timestamp()), 0)) if isinstance(start, datetime) else None
        position = await flow.until_stopped(self._stopping, flow.start_position(stream, outbox, first))
        while position is not None and not self._stopping.is_set():
            intake = flow.Intake(
                stream=stream,
                composer=self._composer(lookup, outbox),
                outbox=outbox,
                wake_relay=self._wake_relay,
                paused=self.health.capture_paused,
                max_size=self._config.outbox.max_size,
                clock=self._clock,
                metrics=self.metrics,
            )
            try:
                await intake.run(position, self._stopping)
            except* PositionLostError as lost:
                if self._config.capture.on_lost_position == "fail":
                    if position.token is None:  # nothing was ever read from it: another capture.start may be tried
                        await outbox.forget_position()
                    raise
                position, gap = await flow.restart_position(stream, outbox)
                log.error(  # noqa: TRY400 - the operator asked for it: no trace is needed
                    "capture.restarted_from_now",
                    reason=str(lost.exceptions[0]),
                    left_out=None if gap is None else str(gap),
                    note="what happened in between is not delivered; set capture.on_lost_position back to fail",
                )

    def _intake(self, outbox: SqliteOutbox) -> Intake | None:
        if not self._config.intake.enabled:
            return None
        endpoints = Endpoints(self._config.endpoints)

        async def take(content: bytes) -> None:
            event = offline_event(content, endpoints, self._clock.now())
            if not event.endpoints:
                log.warning("intake.unwanted", event_id=event.id, note="no endpoint has LivechatOfflineMessage in its events")
                return
            await outbox.add(event)
            self._wake_relay()

        return Intake(self._config.intake.token(), take)

    def _composer(self, lookup: Lookup, outbox: SqliteOutbox) -> Composer:
        section = self._config.compose
        return Composer(
            store=outbox,
            lookup=lookup,
            endpoints=Endpoints(self._config.endpoints),
            settle=section.settle,
            site_url=None if section.site_url is None else str(section.site_url),
            server_version=None if section.server_version == "auto" else section.server_version,
            imitate=section.imitate,
            clock=self._clock,
            metrics=self.metrics,
        )

    async def _observe(self, outbox: SqliteOutbox) -> None:
        """Keep the figures of the backlog and the service manager's view up to date."""
        while True:
            backlog = {entry.endpoint: entry for entry in await outbox.backlog()}
            now = self._clock.now()
            for name in {*self._config.endpoints, *backlog}:
                entry = backlog.get(name)
                self.metrics.owed.labels(name).set(entry.owed if entry else 0)
                self.metrics.dead.labels(name).set(entry.dead if entry else 0)
                oldest = entry.oldest if entry else None
                self.metrics.oldest.labels(name).set(0 if oldest is None else max(0.0, (now - oldest).total_seconds()))
            reason = self.health.not_ready()
            if reason is None:
                self._manager.ready()
            if not self.health.stuck():
                owed = sum(entry.owed for entry in backlog.values())
                self._manager.status(reason or f"reading the change stream; {owed} events owed")
            if await wait_until_set(self._stopping, _OBSERVE_EVERY_S if self.health.capture else 1.0):
                return

    async def _prune(self, outbox: SqliteOutbox) -> None:
        keep = self._config.outbox
        retention = Retention(
            delivered_s=keep.keep_delivered.total_seconds(),
            dead_s=keep.keep_dead.total_seconds(),
            ids_s=keep.keep_ids.total_seconds(),
            state_s=keep.keep_state.total_seconds(),
        )
        pruned_at = self._clock.monotonic()
        while not await wait_until_set(self._stopping, _LOOK_EVERY_S):
            crowded = await outbox.size() > keep.max_size * _CROWDED
            if not crowded and self._clock.monotonic() - pruned_at < _PRUNE_EVERY_S:
                continue
            pruned_at = self._clock.monotonic()
            place: Place | None = Place()
            while place is not None and not await wait_until_set(self._stopping, _PRUNE_PAUSE_S):
                place = await outbox.prune(replace(retention, delivered_s=0.0) if crowded else retention, place)

    def _say_what_it_does(self, where: str) -> None:
        config = self._config
        log.info(
            "relay.starting",
            version=version("rocketchat-livechat-relay"),
            mongodb=where,
            outbox=str(config.outbox.path),
            serve=config.serve.listen,
            endpoints={name: redact_url(str(endpoint.url)) for name, endpoint in config.endpoints.items()},
        )
