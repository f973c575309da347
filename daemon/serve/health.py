"""What the relay knows about its own state: live means that its loops turn, ready means that it reads and nothing is in its
way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from daemon.clock import Clock

_LOOP_STUCK_S = 120.0


@dataclass(slots=True)
class Health:
    """Written by the app, read by /livez, /readyz and the service manager."""

    clock: Clock
    capture: bool = False
    problem: str | None = "starting"
    paused: str | None = None
    stopping: bool = False
    loops: dict[str, Callable[[], float]] = field(default_factory=dict)

    def capture_open(self, is_open: bool, problem: str | None = None) -> None:
        """The change stream was opened, or broke."""
        self.capture, self.problem = is_open, problem

    def capture_paused(self, reason: str | None) -> None:
        """Reading waits for a reason, or goes on."""
        self.paused = reason

    def stuck(self) -> list[str]:
        """The loops that should have turned by now."""
        now = self.clock.monotonic()
        return [name for name, turned_at in self.loops.items() if now - turned_at() > _LOOP_STUCK_S]

    def not_ready(self) -> str | None:
        """Why the relay is not ready; None when it is."""
        if self.stopping:
            return "stopping"
        if not self.capture:
            return f"the change stream is not open: {self.problem}"
        return self.paused
