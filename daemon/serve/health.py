"""What the relay knows about its own state: live means that its loops turn, ready means that it reads and nothing is in its
way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from daemon.clock import Clock

_LOOP_STUCK_S = 120.0


@dataclass(frozen=True, slots=True)
class Part:
    """Whether a part of the relay does its work; `reason` says why not."""

    ok: bool
    reason: str | None = None


@dataclass(slots=True)
class Health:
    """Written by the app, read by /livez, /readyz, the API and the service manager."""

    clock: Clock
    capture: bool = False
    problem: str | None = "starting"
    paused: str | None = None
    reads_fail: Callable[[], str | None] = lambda: None
    """Why what an event needs besides the change stream cannot be read at the moment."""
    lag: Callable[[], float] | None = None
    """Everything that MongoDB committed longer ago than this, in seconds, is read and kept; None before capture begins."""
    stopping: bool = False
    note: str | None = None
    """What the operator has to know besides, such as a configuration that was refused."""
    loops: dict[str, Callable[[], float]] = field(default_factory=dict)
    """When each loop last turned. Waiting for MongoDB is a turn at each of its tries."""
    endpoints: dict[str, Callable[[], datetime | None]] = field(default_factory=dict)
    """Since when each endpoint is down; None: it is up."""
    outbox_waiting: Callable[[], bool] = lambda: False
    """Another process holds the outbox: whoever waits for it is not stuck."""
    _outbox_waited_at: float = float("-inf")

    def capture_open(self, is_open: bool, problem: str | None = None) -> None:
        """The change stream was opened, or broke."""
        self.capture, self.problem = is_open, problem

    def capture_paused(self, reason: str | None) -> None:
        """Reading waits for a reason, or goes on."""
        self.paused = reason

    def capture_lag(self, lag_s: Callable[[], float]) -> None:
        """What tells how far behind reading is."""
        self.lag = lag_s

    @property
    def lag_s(self) -> float | None:
        """See `lag`."""
        return None if self.lag is None else round(self.lag(), 3)

    def stuck(self) -> list[str]:
        """The loops that should have turned by now."""
        now = self.clock.monotonic()
        if self.outbox_waiting():
            self._outbox_waited_at = now
        since = self._outbox_waited_at
        return [name for name, turned_at in self.loops.items() if now - max(turned_at(), since) > _LOOP_STUCK_S]

    def parts(self) -> dict[str, Part]:
        """What has to be well for the relay to be ready. An endpoint that is down is not among it: its events wait."""
        relay = [name for name in self.stuck() if name.startswith("relay ")]
        return {
            "capture": Part(self._capture_reason() is None, self._capture_reason()),
            "outbox": Part(self.paused is None and not self.outbox_waiting(), self._outbox_reason()),
            "relay": Part(not relay and not self.stopping, self._relay_reason(relay)),
        }

    def _capture_reason(self) -> str | None:
        if self.stopping:
            return "stopping"
        if not self.capture:
            return f"the change stream is not open: {self.problem}"
        if self.paused is not None:
            return f"paused: {self.paused}"
        problem = self.reads_fail()
        return None if problem is None else f"MongoDB cannot be read: {problem}"

    def _outbox_reason(self) -> str | None:
        return "another process is writing to it" if self.outbox_waiting() else self.paused

    def _relay_reason(self, stuck: list[str]) -> str | None:
        if self.stopping:
            return "stopping"
        return f"stuck: {', '.join(stuck)}" if stuck else None

    def not_ready(self) -> str | None:
        """Why the relay is not ready; None when it is."""
        return next((part.reason for part in self.parts().values() if not part.ok), None)

    def down(self) -> dict[str, datetime]:
        """The endpoints that are down, and since when."""
        found = {name: down_since() for name, down_since in self.endpoints.items()}
        return {name: since for name, since in found.items() if since is not None}

    def readiness(self) -> dict[str, Any]:
        """The answer of /readyz."""
        parts = self.parts()
        down = self.down()
        return {
            "ready": all(part.ok for part in parts.values()),
            "parts": {name: {"ok": part.ok, "reason": part.reason} for name, part in parts.items()},
            "endpoints": {
                name: {"up": name not in down, "down_since": down[name].isoformat() if name in down else None}
                for name in self.endpoints
            },
        }
