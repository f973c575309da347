"""Keeps the figures of the backlog and the service manager's view up to date."""

from __future__ import annotations

import asyncio
from typing import Protocol

from daemon.clock import Clock, wait_until_set
from daemon.metrics import Metrics
from daemon.outbox.figures import Backlog
from daemon.serve.health import Health
from daemon.service import ServiceManager

_EVERY_S = 5.0
_WHILE_NOT_READY_S = 1.0


class Outbox(Protocol):
    """Where the figures come from."""

    async def backlog(self) -> list[Backlog]:
        """What is owed and dead, by endpoint."""


class Observer:
    """Feeds the watchdog as long as every loop turns."""

    def __init__(self, outbox: Outbox, *, health: Health, metrics: Metrics, manager: ServiceManager, clock: Clock) -> None:
        self._outbox = outbox
        self._health = health
        self._metrics = metrics
        self._manager = manager
        self._clock = clock
        self.turned_at = clock.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Look every few seconds until told to stop."""
        while True:
            self.turned_at = self._clock.monotonic()
            backlog = {entry.endpoint: entry for entry in await self._outbox.backlog()}
            self._measure(backlog)
            not_ready = self._health.not_ready()
            if not_ready is None:
                self._manager.ready()
            if not self._health.stuck():
                self._manager.status(describe(self._health, backlog))
            if await wait_until_set(stopping, _WHILE_NOT_READY_S if not_ready else _EVERY_S):
                return

    def _measure(self, backlog: dict[str, Backlog]) -> None:
        now = self._clock.now()
        for name in {*self._health.endpoints, *backlog}:
            entry = backlog.get(name)
            self._metrics.owed.labels(name).set(entry.owed if entry else 0)
            self._metrics.dead.labels(name).set(entry.dead if entry else 0)
            oldest = entry.oldest if entry else None
            self._metrics.oldest.labels(name).set(0 if oldest is None else max(0.0, (now - oldest).total_seconds()))


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
