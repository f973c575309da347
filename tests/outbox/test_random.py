"""Whatever is asked of the outbox, in whatever order and with stops in between: the promises hold against a plain model."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.metrics import Metrics
from daemon.model import Dead, Delivered, Delivery, Profile, RetryAt, Verdict
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import FakeClock
from tests.outbox.events import DOWN, LATE, OK, REFUSED, bodies, commit, event, intent, look, settle

ENDPOINTS = {"crm": Profile.GUIDE, "archive": Profile.NATIVE}
EVENTS = 6
SESSIONS = 3
_OWED = ("intent", "pending")
AT_ONCE = 0.0


@dataclass
class Owed:
    """What the model knows of a delivery."""

    number: int
    state: str
    attempts: int = 0
    failures: int = 0


@dataclass
class LaneModel:
    """The lane of a session at an endpoint: its head, when it is due (None: in flight, or without a body)."""

    head: Owed | None = None
    due: float | None = None
    in_flight: Delivery | None = None
    deliveries: dict[int, Owed] = field(default_factory=dict)

    def add(self, number: int, state: str) -> None:
        if number not in self.deliveries:
            self.deliveries[number] = Owed(number, state)
            if self.head is None:
                self._follow()

    def settle(self, owed: Owed, state: str, order: list[int]) -> None:
        owed.state = state
        if owed is self.head:
            self._follow(order)

    def _follow(self, order: list[int] | None = None) -> None:
        owed = [one for one in self.deliveries.values() if one.state in _OWED]
        if order is not None:
            owed.sort(key=lambda one: order.index(one.number))
        self.head = owed[0] if owed else None
        self.due = AT_ONCE if self.head is not None and self.head.state == "pending" else None
        self.in_flight = None


class Run:
    """One sequence of steps against a real file, with the model beside it."""

    def __init__(self, path: Path, seed: int) -> None:
        self.path = path
        self.clock = FakeClock()
        self.random = random.Random(seed)  # noqa: S311 - a test that can be repeated
        self.outbox = SqliteOutbox(path, clock=self.clock, metrics=Metrics())
        self.order: list[int] = []  # numbers of events, by sequence
        self.lanes = {(endpoint, session): LaneModel() for endpoint in ENDPOINTS for session in range(SESSIONS)}
        self.delivered: list[tuple[str, int]] = []

    def now(self) -> float:
        return self.clock.now().timestamp()

    async def append(self) -> None:
        """New events and known ones, for some or all endpoints. Every third event is an intent."""
        events = []
        for number in self.random.choices(range(EVENTS), k=self.random.randint(1, 4)):
            names = self.random.choice((["crm"], ["archive"], ["crm", "archive"]))
            make = intent if number % 3 == 2 else event
            endpoints = {name: ENDPOINTS[name] for name in names}
            events.append(make(str(number), str(number % SESSIONS), endpoints=endpoints))
            if number not in self.order:
                self.order.append(number)
            for name in names:
                self.lanes[name, number % SESSIONS].add(number, "intent" if number % 3 == 2 else "pending")
        await self.outbox.append(commit(*events))

    def open_intents(self) -> list[int]:
        return sorted(
            {owed.number for lane in self.lanes.values() for owed in lane.deliveries.values() if owed.state == "intent"}
        )

    async def compose(self) -> None:
        """Give one open intent its bodies, or skip it."""
        candidates = self.open_intents()
        if not candidates:
            return
        number = self.random.choice(candidates)
        skip = self.random.random() < 0.3
        for (_, session), lane in self.lanes.items():
            owed = lane.deliveries.get(number)
            if session != number % SESSIONS or owed is None or owed.state != "intent":
                continue
            if skip:
                lane.settle(owed, "skipped", self.order)
            else:
                owed.state = "pending"
                if lane.head is owed:
                    lane.due = AT_ONCE
        if skip:
            await self.outbox.skip(str(number), "no visitor")
        else:
            await self.outbox.composed(str(number), bodies(str(number)))

    async def claim(self) -> None:
        endpoint = self.random.choice(list(ENDPOINTS))
        limit, retries = self.random.randint(1, 4), self.random.randint(0, 3)
        lanes = [lane for (name, _), lane in self.lanes.items() if name == endpoint]
        ready = [(lane.head, lane) for lane in lanes if lane.head and lane.due is not None and lane.due <= self.now()]
        again = sum(head.failures > 0 for head, _ in ready)
        claimed, next_due = await self.outbox.claim(endpoint, limit, retries)

        tried_before = sum(delivery.failures > 0 for delivery in claimed)
        assert tried_before == min(again, retries, limit)
        assert len(claimed) - tried_before == min(len(ready) - again, limit - tried_before), "what is due is given"
        first = sorted((head.number for head, _ in ready if not head.failures), key=self.order.index)
        fresh = [int(delivery.event_id) for delivery in claimed if not delivery.failures]
        assert fresh == first[: len(fresh)], "in the order of what happened"
        heads = {str(head.number): (head, lane) for head, lane in ready}
        for delivery in claimed:
            head, lane = heads.pop(delivery.event_id)
            head.attempts += 1
            assert lane.in_flight is None
            assert (delivery.attempt, delivery.failures) == (head.attempts, head.failures)
            assert delivery.body == bodies(delivery.event_id)[ENDPOINTS[endpoint]]
            lane.in_flight, lane.due = delivery, None
        stored = look(
            self.path, "SELECT sequence FROM lanes WHERE started_at IS NOT NULL AND endpoint = ? ORDER BY sequence", endpoint
        )
        assert stored == sorted(lane.in_flight.sequence for lane in lanes if lane.in_flight), "counted, and once per lane"
        waiting = [lane.due for lane in lanes if lane.due is not None]
        assert (next_due.timestamp() if next_due else None) == (min(waiting) if waiting else None)

    async def settle(self, verdict: Verdict | None = None) -> None:
        flying = [(key, lane) for key, lane in self.lanes.items() if lane.in_flight]
        if not flying:
            return
        (endpoint, _), lane = self.random.choice(flying)
        delivery, head = lane.in_flight, lane.head
        assert delivery is not None
        assert head is not None
        if verdict is None:
            due = self.clock.now() + timedelta(seconds=self.random.randint(0, 20))
            verdict = self.random.choice((Delivered(), RetryAt(due), RetryAt(due), Dead("enough")))
        outcome = OK if isinstance(verdict, Delivered) else self.random.choice((REFUSED, LATE, DOWN))
        await settle(self.outbox, delivery, outcome, verdict)
        match verdict:
            case Delivered():
                self.delivered.append((endpoint, head.number))
                lane.settle(head, "delivered", self.order)
            case Dead():
                head.failures += 1
                lane.settle(head, "dead", self.order)
            case RetryAt(due):
                head.failures += 1
                lane.in_flight, lane.due = None, due.timestamp()

    async def wait(self) -> None:
        self.clock.advance(self.random.choice((0.5, 5, 30)))

    async def crash(self) -> None:
        """Stop with requests in flight, and start again."""
        await self.outbox.close()
        self.outbox = SqliteOutbox(self.path, clock=self.clock, metrics=Metrics())
        flying = [lane for lane in self.lanes.values() if lane.in_flight]
        assert await self.outbox.recover() == len(flying)
        for lane in flying:
            lane.in_flight, lane.due = None, AT_ONCE

    async def finish(self) -> None:
        """Deliver what is left: then nothing is owed, and everything was delivered, dead or skipped, in order."""
        for number in self.open_intents():
            await self.outbox.composed(str(number), bodies(str(number)))
        await self.crash()
        for lane in self.lanes.values():
            for owed in lane.deliveries.values():
                owed.state = "pending" if owed.state == "intent" else owed.state
            if lane.head is not None and lane.due is None:
                lane.due = AT_ONCE
        self.clock.advance(100)
        while any(lane.head for lane in self.lanes.values()):
            for _ in range(6):
                await self.claim()
            while any(lane.in_flight for lane in self.lanes.values()):
                await self.settle(Delivered())

    def check(self) -> None:
        stored = look(
            self.path,
            "SELECT d.endpoint, e.id, state, attempts + (started_at IS NOT NULL), failures FROM deliveries d"
            " JOIN events e ON e.sequence = d.sequence LEFT JOIN lanes l ON l.endpoint = d.endpoint AND l.sequence = d.sequence",
        )
        expected = [
            (endpoint, str(owed.number), owed.state, owed.attempts, owed.failures)
            for (endpoint, _), lane in self.lanes.items()
            for owed in lane.deliveries.values()
        ]
        assert sorted(stored) == sorted(expected)
        assert look(self.path, "SELECT id FROM events ORDER BY sequence") == [str(number) for number in self.order]
        assert len(self.delivered) == len(set(self.delivered))


STEPS = ("append", "append", "compose", "compose", "claim", "claim", "claim", "settle", "settle", "settle", "wait", "crash")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(st.sampled_from(STEPS), min_size=5, max_size=60), seed=st.integers(0, 2**32))
def test_nothing_is_lost_doubled_or_passed_by(tmp_path_factory: pytest.TempPathFactory, steps: list[str], seed: int) -> None:
    async def play() -> None:
        run = Run(tmp_path_factory.mktemp("outbox") / "outbox.db", seed)
        try:
            for step in steps:
                await getattr(run, step)()
            run.check()
            await run.finish()
            run.check()
        finally:
            await run.outbox.close()

    asyncio.run(play())
