"""Everything that is built from one configuration, from the change stream to the senders. A reload puts another in its place."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from datetime import datetime

from bson.timestamp import Timestamp

from daemon import flow
from daemon.capture.oplog import Oplog, OplogWatch
from daemon.capture.stream import ChangeStream
from daemon.clock import Clock, wait_until_set
from daemon.compose.composer import Composer
from daemon.compose.documents import WATCHES
from daemon.compose.intake import offline_event
from daemon.compose.lookup import Lookup
from daemon.compose.match import Endpoints
from daemon.compose.recovery import Recovery
from daemon.compose.traces import WITHOUT_TRACE
from daemon.config.endpoint import EndpointSection
from daemon.config.root import Config
from daemon.errors import PositionLostError, first_error
from daemon.log import get_logger
from daemon.loops import Loop, Loops
from daemon.metrics import Metrics
from daemon.model import Position
from daemon.mongo import Mongo
from daemon.outbox.sqlite import SqliteOutbox
from daemon.relay.lanes import Lanes
from daemon.relay.schedule import RetryPolicy
from daemon.send.client import Sender
from daemon.send.guard import Guard
from daemon.serve.health import Health
from daemon.serve.intake import Intake

_CLOSE_S = 1.0
_OPLOG_FIRST_S = 5.0
_OPLOG_AGAIN_S = 30.0  # while MongoDB cannot tell
_OPLOG_EVERY_S = 300.0

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


class Engine:
    """Built whole before it runs: what is wrong with the configuration is raised by the constructor, as `ConfigurationError`.

    The outbox belongs to somebody else; one engine at a time works with it.
    """

    def __init__(
        self,
        config: Config,
        *,
        outbox: SqliteOutbox,
        health: Health,
        clock: Clock,
        metrics: Metrics,
        on_open: Callable[[], None],
    ) -> None:
        self.config = config
        self.opened = False
        self._outbox = outbox
        self._health = health
        self._clock = clock
        self._metrics = metrics
        self._on_open = on_open
        self._reader: flow.Intake | None = None
        self._mongo = Mongo(config.mongodb.connection_string(), config.mongodb.database)
        self.where = self._mongo.where
        self._lookup = Lookup(self._mongo, clock=clock, metrics=metrics)
        self._stream = ChangeStream(self._mongo, WATCHES, clock=clock, metrics=metrics, observer=self)
        self._oplog = OplogWatch(Oplog(self._mongo.database), outbox.position, metrics)
        self._turned_at = clock.monotonic()
        guard = Guard(config.send.allow, config.send.deny)
        self._senders = {name: Sender(name, endpoint, clock=clock, guard=guard) for name, endpoint in config.endpoints.items()}
        self._lanes = {name: self._build_lanes(name, endpoint) for name, endpoint in config.endpoints.items()}
        self.intake = self._build_intake()
        self.api_token = config.serve.token()

    async def run(self, stop: asyncio.Event, stopping: Callable[[], None]) -> None:
        """Relay until `stop` is set, then drain within `relay.grace`; `stopping` is called when that begins.

        Raises `DaemonError` when it cannot go on. Afterwards another engine may take over: what is in flight then was cancelled,
        and is sent again.
        """
        async with AsyncExitStack() as stack:
            stack.push_async_callback(_close, self._mongo.close)
            interrupted = await flow.until_stopped(stop, self._outbox.recover())
            if interrupted is None:  # told to stop while another process held the outbox
                return
            if interrupted:
                log.warning(
                    "relay.interrupted_attempts",
                    count=interrupted,
                    note="whether they were sent is unknown",
                )
            for sender in self._senders.values():
                await stack.enter_async_context(sender)
            self._tell_health()
            loops: dict[str, Loop] = {"capture": lambda: self._capture(stop), "oplog": lambda: self._watch_oplog(stop)}
            loops.update({f"relay {name}": lanes.run for name, lanes in self._lanes.items()})

            def drain() -> None:
                self._leave_health()
                stopping()
                for lanes in self._lanes.values():
                    lanes.stop()

            await Loops(loops, stop, grace_s=self.config.relay.grace.total_seconds()).run(drain)

    def wake(self) -> None:
        """There may be something to deliver."""
        for lanes in self._lanes.values():
            lanes.wake()

    def capture_open(self, is_open: bool, problem: str | None = None) -> None:
        """Told by the change stream: it was opened, or broke. Both are turns of capture."""
        self._turned_at = self._clock.monotonic()
        self._health.capture_open(is_open, problem)
        if is_open and not self.opened:
            self.opened = True
            self._on_open()

    def _tell_health(self) -> None:
        health = self._health
        self._turned_at = self._clock.monotonic()
        health.capture_open(False, "opening")
        health.capture_paused(None)
        health.reads_fail = lambda: self._lookup.problem
        health.loops["capture"] = lambda: self._reads_at(lambda reader: reader.read_at)
        health.loops["compose"] = lambda: self._reads_at(lambda reader: reader.composed_at)
        health.endpoints.clear()
        for name, lanes in self._lanes.items():
            health.loops[f"relay {name}"] = lambda lanes=lanes: lanes.turned_at  # type: ignore[misc]
            health.endpoints[name] = lambda lanes=lanes: lanes.down_since  # type: ignore[misc]

    def _leave_health(self) -> None:
        """What drains does not turn any more."""
        for name in ("capture", "compose", *(f"relay {name}" for name in self._lanes)):
            self._health.loops.pop(name, None)

    def _reads_at(self, turned_at: Callable[[flow.Intake], float]) -> float:
        """When a loop last turned that may wait for MongoDB: each try to reach it is a turn."""
        waited_at = max(self._turned_at, self._lookup.waited_at)
        return waited_at if self._reader is None else max(waited_at, turned_at(self._reader))

    def _build_lanes(self, name: str, endpoint: EndpointSection) -> Lanes:
        return Lanes(
            name,
            concurrency=endpoint.concurrency,
            policy=_policy(endpoint),
            probe_every=endpoint.retry.outage_probe,
            outbox=self._outbox,
            post=flow.way_to_endpoint(self._senders[name], self._lookup, self._clock),
            clock=self._clock,
            metrics=self._metrics,
            answer_mode=endpoint.crm_data,
        )

    async def _capture(self, stop: asyncio.Event) -> None:
        stream, outbox = self._stream, self._outbox
        start = self.config.capture.start
        first = Position(Timestamp(int(start.timestamp()), 0)) if isinstance(start, datetime) else None
        position = await flow.until_stopped(stop, flow.start_position(stream, outbox, first))
        while position is not None and not stop.is_set():
            self._reader = flow.Intake(
                stream=stream,
                composer=self._composer(),
                outbox=outbox,
                wake_relay=self.wake,
                observer=self._health,
                oplog_left=self._oplog.look,
                max_size=self.config.outbox.max_size,
                clock=self._clock,
                metrics=self._metrics,
            )
            try:
                await self._reader.run(position, stop)
            except* PositionLostError as lost:
                if self.config.capture.on_lost_position == "fail":
                    if position.token is None:  # nothing was ever read from it: another capture.start may be tried
                        await outbox.forget_position()
                    raise
                position = await flow.until_stopped(stop, self._go_on_after(first_error(lost)))

    async def _go_on_after(self, lost: PositionLostError) -> Position:
        """Leave out what can no longer be read, or make it from stored data, as the operator chose."""
        if self.config.capture.on_lost_position == "heal":
            log.warning("capture.healing", reason=str(lost), note="what is missing is made from stored rooms and messages")
            self._health.capture_open(False, "the position was lost; what is missing is being made from stored data")
            recovery = self._recovery()
            position, gap = await flow.heal_position(self._stream, recovery, self._outbox, self._healed_some)
            log.error(
                "capture.healed",
                since=gap.since.isoformat(),
                until=gap.until.isoformat(),
                recovered=gap.recovered,
                not_recoverable=WITHOUT_TRACE,
            )
            return position
        position, gap = await flow.restart_position(self._stream, self._outbox)
        log.error(
            "capture.restarted_from_now",
            reason=str(lost),
            since=gap.since.isoformat(),
            until=gap.until.isoformat(),
            left_out=str(gap.until - gap.since),
            note="what happened in between is not delivered; `livechat-relay backfill` can make most of it from stored data",
        )
        return position

    async def _watch_oplog(self, stop: asyncio.Event) -> None:
        """Keep the figures of the oplog up to date; while reading is paused capture itself looks, more often."""
        wait_s = _OPLOG_FIRST_S
        while not await wait_until_set(stop, wait_s):
            if self._health.paused is None:
                left = await flow.until_stopped(stop, self._oplog.look())
                wait_s = _OPLOG_AGAIN_S if left is None else _OPLOG_EVERY_S

    def _composer(self) -> Composer:
        section = self.config.compose
        return Composer(
            store=self._outbox,
            lookup=self._lookup,
            endpoints=Endpoints(self.config.endpoints),
            settle=section.settle,
            site_url=section.address,
            server_version=section.version,
            imitate=section.imitate,
            clock=self._clock,
            metrics=self._metrics,
        )

    def _healed_some(self) -> None:
        self._turned_at = self._clock.monotonic()
        self.wake()

    def _recovery(self) -> Recovery:
        section = self.config.compose
        endpoints = Endpoints(self.config.endpoints)
        return Recovery(self._lookup, endpoints, self._metrics, site_url=section.address, server_version=section.version)

    def _build_intake(self) -> Intake | None:
        if not self.config.intake.enabled:
            return None
        endpoints = Endpoints(self.config.endpoints)

        async def take(content: bytes) -> None:
            event = offline_event(content, endpoints, self._clock.now())
            if not event.endpoints:
                log.warning("intake.unwanted", event_id=event.id, note="no endpoint has LivechatOfflineMessage in its events")
                return
            await self._outbox.add([event])
            self.wake()

        return Intake(self.config.intake.token(), take)
