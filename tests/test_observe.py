"""What the service manager hears of the relay's state."""

from __future__ import annotations

import asyncio

import pytest

from daemon.metrics import Metrics
from daemon.observe import Observer, describe
from daemon.outbox.figures import Backlog
from daemon.outbox.refusals import Refusal
from daemon.serve.health import Health
from daemon.service import ServiceManager
from tests.clocks import START, FakeClock


def healthy() -> Health:
    health = Health(FakeClock())
    health.capture_open(True)
    health.endpoints["crm"] = lambda: None
    return health


def backlog(*entries: Backlog) -> dict[str, Backlog]:
    return {entry.endpoint: entry for entry in entries}


def test_all_is_well() -> None:
    assert describe(healthy(), {}) == "reading, 0.0 s behind; 0 owed"


def test_everything_at_once() -> None:
    health = healthy()
    health.capture_lag(lambda: 12.34)
    health.endpoints["archive"] = lambda: START
    health.note = "restart needed for serve.listen"
    found = backlog(
        Backlog("crm", {"pending": (3, START)}, 1),
        Backlog("archive", {"pending": (4, START)}, 1),
        Backlog("old", {"pending": (5, START)}, 0),
    )
    assert describe(health, found) == (
        "reading, 12.3 s behind; 7 owed; 2 dead; 5 owed to endpoints that are not configured; down: archive;"
        " restart needed for serve.listen"
    )


def test_not_ready_says_why_and_what_is_owed() -> None:
    health = healthy()
    health.capture_open(False, "no primary")
    expected = "not ready: the change stream is not open: no primary; 2 owed"
    assert describe(health, backlog(Backlog("crm", {"pending": (2, START)}, 0))) == expected


class Figures:
    """An outbox that owes nothing."""

    async def backlog(self) -> list[Backlog]:
        return []

    async def size(self) -> int:
        return 0

    async def disk_size(self) -> int:
        return 0

    async def refusals(self) -> list[Refusal]:
        return []


class Manager(ServiceManager):
    """Notes what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.said: list[str] = []

    def ready(self) -> None:
        self.said.append("ready")

    def status(self, text: str) -> None:
        self.said.append("fed")


@pytest.mark.parametrize(
    ("ready", "stuck", "said"),
    [(True, False, ["ready", "fed"]), (False, False, ["fed"]), (True, True, [])],
    ids=["ready", "waiting for MongoDB", "stuck"],
)
async def test_the_watchdog_is_fed_while_the_loops_turn(ready: bool, stuck: bool, said: list[str]) -> None:
    clock = FakeClock()
    health, manager, stopping = Health(clock), Manager(), asyncio.Event()
    health.capture_open(ready, None if ready else "no primary")
    turned_at = clock.monotonic()
    health.loops["relay crm"] = lambda: turned_at
    if stuck:
        clock.advance(1000)
    stopping.set()
    await Observer(Figures(), health=health, metrics=Metrics(), manager=manager, clock=clock).run(stopping)
    assert manager.said == said
