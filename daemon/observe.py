"""Keeps the figures of the outbox, the service manager's view and the counted log lines up to date, beside the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime

from daemon.clock import Clock, wait_until_set
from daemon.log import say_repeated
from daemon.metrics import OWED, Metrics
from daemon.outbox.figures import Backlog
from daemon.outbox.sqlite import SqliteOutbox
from daemon.serve.health import Health
from daemon.service import ServiceManager

_EVERY_S = 5.0
_STARTING_EVERY_S = 1.0
_LONGEST_S = 60.0  # the service manager's watchdog waits for it
_SHARE = 20  # of the time at most one part in so many is spent counting


async def say_what_repeats(stopping: asyncio.Event) -> None:
    """Write what the log counted instead of written, when it is due; does not wait for the outbox."""
    while not await wait_until_set(stopping, _EVERY_S):
        say_repeated()


class Observation:
    """One loop: count, tell, wait. A large outbox is counted less often."""

    def __init__(
        self,
        outbox: SqliteOutbox,
        endpoints: Collection[str],
        *,
        health: Health,
        manager: ServiceManager,
        clock: Clock,
        metrics: Metrics,
        max_size: int,
    ) -> None:
        self._outbox = outbox
        self._endpoints = endpoints
        self._health = health
        self._manager = manager
        self._clock = clock
        self._metrics = metrics
        metrics.started.set(clock.now().timestamp())
        metrics.outbox_max_size.set(max_size)
        metrics.ready.set_function(lambda: health.not_ready() is None)
        metrics.live.set_function(lambda: not health.stuck())
        metrics.paused.set_function(lambda: health.paused is not None)

    async def run(self, stopping: asyncio.Event) -> None:
        """Observe until told to stop."""
        while True:
            started = self._clock.monotonic()
            backlog = await self._outbox.backlog()
            self._show(backlog)
            self._metrics.outbox_size.set(await self._outbox.size())
            self._metrics.outbox_file.set(await self._outbox.disk_size())
            took_s = self._clock.monotonic() - started
            self._tell(sum(entry.owed for entry in backlog))
            pause_s = _EVERY_S if self._health.capture else _STARTING_EVERY_S
            if await wait_until_set(stopping, min(max(pause_s, took_s * _SHARE), _LONGEST_S)):
                return

    def _show(self, backlog: Collection[Backlog]) -> None:
        metrics = self._metrics
        # An endpoint that is gone from the configuration and the outbox is gone from the metrics too.
        for gauge in (metrics.owed, metrics.oldest, metrics.dead, metrics.lanes, metrics.lanes_retrying):
            gauge.clear()
        nothing = (Backlog(name) for name in self._endpoints)
        for entry in {entry.endpoint: entry for entry in (*nothing, *backlog)}.values():
            metrics.dead.labels(entry.endpoint).set(entry.dead)
            metrics.lanes.labels(entry.endpoint).set(entry.lanes)
            metrics.lanes_retrying.labels(entry.endpoint).set(entry.retrying)
            for state in OWED:
                count, first = entry.states.get(state, (0, None))
                metrics.owed.labels(entry.endpoint, state).set(count)
                age = metrics.oldest.labels(entry.endpoint, state)
                age.set_function(lambda first=first: self._age_s(first))  # type: ignore[misc]
        metrics.counted.set(self._clock.now().timestamp())

    def _age_s(self, since: datetime | None) -> float:
        return 0.0 if since is None else max(0.0, (self._clock.now() - since).total_seconds())

    def _tell(self, owed: int) -> None:
        reason = self._health.not_ready()
        if reason is None:
            self._manager.ready()
        if not self._health.stuck():
            self._manager.status(reason or f"reading the change stream; {owed} events owed")
