"""Keeps the figures of the outbox, the service manager's view and the counted log lines up to date, beside the flow."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime
from typing import Protocol

from daemon.clock import Clock, wait_until_set
from daemon.log import get_logger, say_repeated
from daemon.metrics import OWED, Metrics
from daemon.outbox.figures import Backlog
from daemon.outbox.refusals import Refusal, report_refusals
from daemon.serve.health import Health
from daemon.service import ServiceManager

_EVERY_S = 5.0
_WHILE_NOT_READY_S = 1.0
_REFUSALS_EVERY_S = 600.0
_LONGEST_S = 60.0  # the service manager's watchdog waits for it
_SHARE = 20  # of the time at most one part in so many is spent counting


async def say_what_repeats(stopping: asyncio.Event) -> None:
    """Write what the log counted instead of written, when it is due; does not wait for the outbox."""
    while not await wait_until_set(stopping, _EVERY_S):
        say_repeated()


log = get_logger("app")


class Outbox(Protocol):
    """Where the figures come from."""

    async def backlog(self) -> list[Backlog]:
        """What is owed and dead, by endpoint."""

    async def size(self) -> int:
        """How many bytes of the file are in use."""

    async def disk_size(self) -> int:
        """How many bytes the file takes on disk."""

    async def refusals(self) -> list[Refusal]:
        """Which endpoints refuse every event of a type."""


class Observer:
    """One loop: count, tell, wait. A large outbox is counted less often. Feeds the watchdog as long as every loop turns."""

    def __init__(self, outbox: Outbox, *, health: Health, metrics: Metrics, manager: ServiceManager, clock: Clock) -> None:
        self._outbox = outbox
        self._health = health
        self._manager = manager
        self._clock = clock
        self._metrics = metrics
        self.turned_at = self._refusals_at = clock.monotonic()
        self._refusals: set[tuple[str, str, int]] = set()
        self._orphaned: set[str] = set()
        metrics.started.set(clock.now().timestamp())
        metrics.ready.set_function(lambda: health.not_ready() is None)
        metrics.live.set_function(lambda: not health.stuck())
        metrics.paused.set_function(lambda: health.paused is not None)

    async def run(self, stopping: asyncio.Event) -> None:
        """Observe until told to stop."""
        while True:
            self.turned_at = started = self._clock.monotonic()
            backlog = await self._outbox.backlog()
            self._show(backlog)
            self._metrics.outbox_size.set(await self._outbox.size())
            self._metrics.outbox_file.set(await self._outbox.disk_size())
            took_s = self._clock.monotonic() - started
            self._say_what_is_orphaned(backlog)
            await self._look_at_refusals()
            not_ready = self._tell(backlog)
            pause_s = _WHILE_NOT_READY_S if not_ready else _EVERY_S
            if await wait_until_set(stopping, min(max(pause_s, took_s * _SHARE), _LONGEST_S)):
                return

    def _say_what_is_orphaned(self, backlog: Collection[Backlog]) -> None:
        known = self._health.endpoints
        if not known:  # nothing was built of the configuration yet
            return
        orphaned = {entry.endpoint: entry.owed for entry in backlog if entry.owed and entry.endpoint not in known}
        for name in orphaned.keys() - self._orphaned:
            log.warning("relay.orphaned", endpoint=name, owed=orphaned[name], note="not in the configuration")
        self._orphaned = set(orphaned)

    async def _look_at_refusals(self) -> None:
        now = self._clock.monotonic()
        if now - self._refusals_at >= _REFUSALS_EVERY_S:
            self._refusals_at = now
            self._refusals = report_refusals(await self._outbox.refusals(), self._refusals)

    def _show(self, backlog: Collection[Backlog]) -> None:
        metrics = self._metrics
        # An endpoint that is gone from the configuration and the outbox is gone from the metrics too.
        for gauge in (metrics.owed, metrics.oldest, metrics.dead, metrics.lanes, metrics.lanes_retrying):
            gauge.clear()
        nothing = (Backlog(name) for name in self._health.endpoints)
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

    def _tell(self, backlog: Collection[Backlog]) -> str | None:
        not_ready = self._health.not_ready()
        if not_ready is None:
            self._manager.ready()
        if not self._health.stuck():
            self._manager.status(describe(self._health, {entry.endpoint: entry for entry in backlog}))
        return not_ready


def describe(health: Health, backlog: dict[str, Backlog]) -> str:
    """The relay's state on one line: whether it reads and how far behind, what is owed, dead and orphaned, who is down."""
    not_ready = health.not_ready()
    down = sorted(health.down())
    known = health.endpoints
    orphaned = sum(entry.owed for name, entry in backlog.items() if name not in known)
    dead = sum(entry.dead for entry in backlog.values())
    pieces = [
        f"not ready: {not_ready}" if not_ready else f"reading, {health.lag_s or 0:.1f} s behind",
        f"{sum(entry.owed for name, entry in backlog.items() if name in known)} owed",
        f"{dead} dead" if dead else "",
        f"{orphaned} owed to endpoints that are not configured" if orphaned else "",
        f"down: {', '.join(down)}" if down else "",
        health.note or "",
    ]
    return "; ".join(piece for piece in pieces if piece)
