"""Delivering to one endpoint: order, concurrency, tries, stopping. The outbox is real, the endpoint is a function."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import structlog

from daemon import ops
from daemon.errors import DaemonError, OutboxError
from daemon.metrics import Metrics
from daemon.model import Answered, Delivery, Outcome, RetryAt, TimedOut, Unreachable
from daemon.outbox.lanes import end_outage
from daemon.outbox.sqlite import Claimed, SqliteOutbox
from daemon.relay import lanes as lanes_module
from daemon.relay.answer import AnswerMode
from daemon.relay.lanes import Lanes, Outbox
from daemon.relay.schedule import RetryPolicy
from tests.clocks import START, FakeClock
from tests.outbox.events import commit, event, look, settle

Script = Callable[[Delivery], Awaitable[Outcome]]


async def always_fine(_: Delivery) -> Outcome:
    return Answered(200, b"", 0.01)


@dataclass
class Endpoint:
    """Records what is posted, and when on the fake clock. `held` requests wait until they are let go."""

    clock: FakeClock
    answer: Script = always_fine
    hold: bool = False
    posted: list[Delivery] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    in_flight: int = 0
    most_in_flight: int = 0
    news: asyncio.Event = field(default_factory=asyncio.Event)
    let_go: asyncio.Event = field(default_factory=asyncio.Event)

    async def post(self, delivery: Delivery) -> Outcome:
        self.posted.append(delivery)
        self.times.append((self.clock.now() - START).total_seconds())
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        self.news.set()
        try:
            if self.hold:
                await self.let_go.wait()
            return await self.answer(delivery)
        finally:
            self.in_flight -= 1

    def ids(self) -> list[str]:
        return [delivery.event_id for delivery in self.posted]

    async def until_posted(self, count: int) -> None:
        async with asyncio.timeout(3):
            while len(self.posted) < count:
                self.news.clear()
                await self.news.wait()


@dataclass
class Relay:
    """What the tests hold in their hands."""

    path: Path
    outbox: SqliteOutbox
    clock: FakeClock
    metrics: Metrics
    endpoint: Endpoint

    def lanes(
        self,
        *,
        concurrency: int = 4,
        policy: RetryPolicy | None = None,
        outbox: Outbox | None = None,
        answer_mode: AnswerMode = "off",
    ) -> Lanes:
        return Lanes(
            "crm",
            concurrency=concurrency,
            policy=policy or RetryPolicy(),
            probe_every=timedelta(seconds=30),
            outbox=outbox or self.outbox,
            post=self.endpoint.post,
            clock=self.clock,
            metrics=self.metrics,
            answer_mode=answer_mode,
        )

    @asynccontextmanager
    async def running(self, lanes: Lanes) -> AsyncIterator[asyncio.Task[None]]:
        task = asyncio.create_task(lanes.run())
        try:
            yield task
        finally:
            self.endpoint.let_go.set()
            lanes.stop()
            async with asyncio.timeout(3):
                await asyncio.wait([task])

    async def settled(self, lanes: Lanes, condition: Callable[[], bool]) -> None:
        """Wait until the writer has nothing to do and `condition` holds; the loop is woken meanwhile."""
        async with asyncio.timeout(3):
            while not condition():
                lanes.wake()
                await self.outbox.position()
                await asyncio.sleep(0)

    def states(self) -> dict[str, str]:
        query = "SELECT e.id, state FROM deliveries d JOIN events e ON e.sequence = d.sequence ORDER BY d.sequence"
        return dict(look(self.path, query))

    def owed(self) -> int:
        return sum(state == "pending" for state in self.states().values())


@pytest_asyncio.fixture
async def relay(tmp_path: Path) -> AsyncIterator[Relay]:
    clock, metrics = FakeClock(), Metrics()
    outbox = SqliteOutbox(tmp_path / "outbox.db", clock=clock, metrics=metrics)
    yield Relay(tmp_path / "outbox.db", outbox, clock, metrics, Endpoint(clock))
    await outbox.close()


def events(*ids: str) -> Any:
    """Events named after their session and a number: `a1` belongs to session `a`."""
    return commit(*(event(event_id, event_id[0]) for event_id in ids))


def answers(status: int) -> Script:
    async def answer(_: Delivery) -> Outcome:
        return Answered(status, b"", 0.01)

    return answer


class TestOrder:
    async def test_a_session_is_posted_in_order_and_one_at_a_time(self, relay: Relay) -> None:
        ids = [f"a{number}" for number in range(25)]
        await relay.outbox.append(events(*ids))
        lanes = relay.lanes()
        async with relay.running(lanes):
            await relay.endpoint.until_posted(25)
        assert relay.endpoint.ids() == ids
        assert relay.endpoint.most_in_flight == 1
        assert set(relay.states().values()) == {"delivered"}

    async def test_sessions_do_not_wait_for_each_other(self, relay: Relay) -> None:
        relay.endpoint.hold = True
        await relay.outbox.append(events("a1", "b1", "c1", "a2"))
        lanes = relay.lanes()
        async with relay.running(lanes):
            await relay.endpoint.until_posted(3)
            assert sorted(relay.endpoint.ids()) == ["a1", "b1", "c1"]
            assert relay.metrics.registry.get_sample_value("livechat_relay_relay_in_flight", {"endpoint": "crm"}) == 3

    async def test_the_gauges_are_those_of_the_lanes_that_run(self, relay: Relay) -> None:
        """A reload makes new lanes before the old ones are drained, and perhaps never runs them."""

        def gauges() -> list[float | None]:
            names = ("livechat_relay_relay_in_flight", "livechat_relay_relay_endpoint_up")
            return [relay.metrics.registry.get_sample_value(name, {"endpoint": "crm"}) for name in names]

        relay.endpoint.hold = True
        await relay.outbox.append(events("a1", "b1"))
        async with relay.running(relay.lanes()):
            await relay.endpoint.until_posted(2)
            following = relay.lanes()
            assert gauges() == [2, 1]
        relay.endpoint.hold = False
        async with relay.running(following):
            await relay.outbox.append(events("a2"))
            following.wake()
            await relay.endpoint.until_posted(3)
            assert gauges() == [following._in_flight, 1]

    @pytest.mark.parametrize("concurrency", [1, 2, 5])
    async def test_no_more_requests_in_flight_than_configured(self, relay: Relay, concurrency: int) -> None:
        relay.endpoint.hold = True
        await relay.outbox.append(commit(*(event(f"m{number}", f"room{number}") for number in range(12))))
        lanes = relay.lanes(concurrency=concurrency)
        async with relay.running(lanes):
            await relay.endpoint.until_posted(concurrency)
            for _ in range(5):
                lanes.wake()
                await relay.outbox.position()
            assert relay.endpoint.in_flight == concurrency
            relay.endpoint.let_go.set()
            await relay.endpoint.until_posted(12)
        assert relay.endpoint.most_in_flight == concurrency

    async def test_a_failing_event_holds_up_its_own_session_only(self, relay: Relay) -> None:
        async def answer(delivery: Delivery) -> Outcome:
            return Answered(500 if delivery.event_id == "a1" else 200, b"", 0.01)

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1", "a2", "b1", "b2", "b3"))
        lanes = relay.lanes()
        async with relay.running(lanes):
            await relay.settled(lanes, lambda: relay.owed() == 2)
        assert Counter(relay.endpoint.ids()) == Counter(["a1", "b1", "b2", "b3"])

    async def test_no_more_requests_unrecorded_than_configured(self, relay: Relay) -> None:
        """However quickly an endpoint answers while the disk is slow: only these can come twice after a kill."""
        await relay.outbox.append(commit(*(event(f"m{number}", f"room{number}") for number in range(12))))
        lanes = relay.lanes(concurrency=2)
        other = sqlite3.connect(relay.path, isolation_level=None)
        async with relay.running(lanes):
            await relay.endpoint.until_posted(2)
            while relay.owed() == 12:
                await relay.outbox.position()
            other.execute("BEGIN IMMEDIATE")  # nothing more can be recorded now
            recorded = 12 - relay.owed()
            for _ in range(100):
                lanes.wake()
                await relay.outbox.position()
            posted = len(relay.endpoint.posted)
            other.close()
            assert posted - recorded <= 2
            await relay.endpoint.until_posted(12)


class TestTries:
    @pytest.mark.parametrize(
        ("status", "requests", "state"),
        [
            pytest.param(200, 1, "delivered", id="200"),
            pytest.param(201, 10, "dead", id="201"),
            pytest.param(400, 10, "dead", id="400"),
            pytest.param(301, 10, "dead", id="301"),
        ],
    )
    async def test_the_guide_s_rule(self, relay: Relay, status: int, requests: int, state: str) -> None:
        """Ten requests, ten seconds apart on the clock, and never an eleventh."""
        relay.endpoint.answer = answers(status)
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes()
        async with relay.running(lanes):
            for request in range(1, requests + 1):
                await relay.settled(lanes, lambda expected=request: len(relay.endpoint.posted) == expected)  # type: ignore[misc]
                await relay.settled(lanes, lambda: not look(relay.path, "SELECT 1 FROM attempts WHERE outcome IS NULL"))
                relay.clock.advance(9.9)
                await self._turns(relay, lanes)
                assert len(relay.endpoint.posted) == request, "not before its time"
                relay.clock.advance(0.1)
            relay.clock.advance(1_000_000)
            await self._turns(relay, lanes)
        assert relay.endpoint.times == [10.0 * number for number in range(requests)]
        assert [delivery.attempt for delivery in relay.endpoint.posted] == list(range(1, requests + 1))
        assert relay.states() == {"a1": state}

    @staticmethod
    async def _turns(relay: Relay, lanes: Lanes) -> None:
        """Let the loop look at the outbox a few times."""
        for _ in range(3):
            before = relay.metrics.commits._value.get()
            await relay.settled(lanes, lambda before=before: relay.metrics.commits._value.get() > before)  # type: ignore[misc]

    async def test_a_post_that_raises_is_one_failed_try_and_others_go_on(self, relay: Relay) -> None:
        async def answer(delivery: Delivery) -> Outcome:
            if delivery.event_id == "a1":
                raise ZeroDivisionError("a defect")
            return Answered(200, b"", 0.01)

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1", "b1"))
        lanes = relay.lanes()
        with structlog.testing.capture_logs() as logs:
            async with relay.running(lanes) as task:
                await relay.settled(lanes, lambda: not look(relay.path, "SELECT 1 FROM attempts WHERE outcome IS NULL"))
                await relay.settled(lanes, lambda: relay.states()["b1"] == "delivered")
                assert not task.done()
        query = "SELECT outcome, error FROM attempts ORDER BY sequence LIMIT 1"
        assert look(relay.path, query) == [("broken", "ZeroDivisionError: a defect")]
        assert look(relay.path, "SELECT failures FROM deliveries ORDER BY sequence") == [1, 0]
        assert any(line["event"] == "relay.attempt_broken" for line in logs)

    async def test_no_answer_can_stop_the_others(self, relay: Relay) -> None:
        async def answer(_: Delivery) -> Outcome:
            return Answered(200, b'{"data":' + b"[" * 300 + b"]" * 300 + b"}", 0.01)

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(answer_mode="object")
        async with relay.running(lanes) as task:
            await relay.endpoint.until_posted(1)
        await task
        assert relay.states() == {"a1": "delivered"}

    async def test_it_can_be_dead_by_its_own_defect_alone(self, relay: Relay) -> None:
        async def answer(_: Delivery) -> Outcome:
            raise ValueError("x" * 10_000)

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(policy=RetryPolicy(tries=1, outage=False))
        with structlog.testing.capture_logs() as logs:
            async with relay.running(lanes):
                await relay.settled(lanes, lambda: relay.states() == {"a1": "dead"})
        (dead,) = [line for line in logs if line["event"] == "delivery.dead"]
        assert dead["log_level"] == "error"
        assert len(dead["reason"]) < 1000

    async def test_its_own_defect_does_not_take_the_endpoint_down(self, relay: Relay) -> None:
        async def answer(_: Delivery) -> Outcome:
            raise ValueError("a defect")

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(policy=RetryPolicy(tries=1))
        async with relay.running(lanes):
            await relay.settled(lanes, lambda: look(relay.path, "SELECT failures FROM deliveries") == [1])
        assert (await relay.outbox.endpoint_state("crm")).down_since is None
        assert relay.states() == {"a1": "dead"}

    async def test_an_error_that_a_person_has_to_mend_ends_the_loop(self, relay: Relay) -> None:
        async def answer(_: Delivery) -> Outcome:
            raise OutboxError("the disk is gone", hint="buy one")

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1"))
        with pytest.raises(BaseExceptionGroup) as group:
            async with asyncio.timeout(3):
                await relay.lanes().run()
        assert group.group_contains(DaemonError)

    @pytest.mark.parametrize(
        ("outcome", "label"),
        [
            (Answered(200, b"", 0.1), "delivered"),
            (Answered(500, b"", 0.1), "status"),
            (TimedOut(0.1), "timeout"),
            (Unreachable("no", 0.1), "unreachable"),
        ],
        ids=["delivered", "status", "timeout", "unreachable"],
    )
    async def test_attempts_are_counted_by_outcome(self, relay: Relay, outcome: Outcome, label: str) -> None:
        async def answer(_: Delivery) -> Outcome:
            return outcome

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(policy=RetryPolicy(tries=1))
        async with relay.running(lanes):
            await relay.endpoint.until_posted(1)
        assert relay.metrics.attempts.labels("crm", label)._value.get() == 1
        assert relay.metrics.registry.get_sample_value("livechat_relay_relay_in_flight", {"endpoint": "crm"}) == 0

    async def test_the_log_has_one_line_per_attempt_and_no_payload(self, relay: Relay) -> None:
        statuses = iter((500, 200))

        async def answer(_: Delivery) -> Outcome:
            return Answered(next(statuses), b"answer of the crm", 0.01)

        relay.endpoint.answer = answer
        await relay.outbox.append(commit(event("a1", "a", content=b"what the visitor wrote")))
        lanes = relay.lanes()
        with structlog.testing.capture_logs() as logs:
            async with relay.running(lanes):
                await relay.settled(lanes, lambda: look(relay.path, "SELECT failures FROM deliveries") == [1])
                relay.clock.advance(10)
                await relay.settled(lanes, lambda: relay.states() == {"a1": "delivered"})
        lines = [line for line in logs if line["event"].startswith("delivery.")]
        assert [(line["attempt"], line["verdict"], line["log_level"]) for line in lines] == [
            (1, "retry", "debug"),
            (2, "delivered", "debug"),
        ]
        assert "visitor wrote" not in str(logs)


class TestOutageRule:
    async def test_switched_off_it_ends_what_an_earlier_configuration_left(self, relay: Relay) -> None:
        relay.endpoint.answer = answers(500)
        await relay.outbox.append(events("a1"))
        async with relay.running(relay.lanes(policy=RetryPolicy(tries=1))):
            await relay.endpoint.until_posted(1)
            await relay.settled(relay.lanes(), lambda: relay.states() == {"a1": "suspended"})
        lanes = relay.lanes(policy=RetryPolicy(outage=False))
        async with relay.running(lanes):
            await relay.settled(lanes, lambda: look(relay.path, "SELECT down_since FROM endpoints") == [None])

    async def test_an_outage_that_an_operator_ends_is_over_at_the_next_wake(self, relay: Relay) -> None:
        relay.endpoint.answer = answers(500)
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(policy=RetryPolicy(tries=1))
        async with relay.running(lanes):
            await relay.settled(lanes, lambda: lanes.down_since is not None and relay.states() == {"a1": "suspended"})
            relay.endpoint.answer = always_fine
            with ops.opened(relay.path, writing=True) as connection:
                end_outage(connection, "crm")
            await relay.settled(lanes, lambda: relay.states() == {"a1": "delivered"})


class TestFairness:
    async def test_retries_take_a_quarter_while_fresh_events_wait(self, relay: Relay) -> None:
        relay.endpoint.answer = answers(500)
        failing = [f"f{number}" for number in range(40)]
        await relay.outbox.append(commit(*(event(event_id, event_id) for event_id in failing)))
        first = relay.lanes(concurrency=40)
        async with relay.running(first):
            await relay.settled(first, lambda: look(relay.path, "SELECT sum(failures) FROM deliveries") == [40])
        relay.clock.advance(60)

        relay.endpoint.hold = True
        relay.endpoint.let_go.clear()
        relay.endpoint.posted.clear()
        await relay.outbox.append(commit(*(event(f"n{number}", f"n{number}") for number in range(40))))
        second = relay.lanes(concurrency=8)
        async with relay.running(second):
            await relay.endpoint.until_posted(8)
            assert sum(delivery.failures > 0 for delivery in relay.endpoint.posted) == 2

    async def test_retries_get_their_turn_under_a_stream_of_fresh_events(self, relay: Relay) -> None:
        relay.endpoint.answer = answers(500)
        await relay.outbox.append(commit(event("failed", "failed")))
        first = relay.lanes()
        async with relay.running(first):
            await relay.settled(first, lambda: look(relay.path, "SELECT failures FROM deliveries") == [1])
        relay.clock.advance(10)
        relay.endpoint.answer = always_fine
        await relay.outbox.append(commit(*(event(f"n{number}", f"n{number}") for number in range(50))))
        relay.endpoint.posted.clear()
        second = relay.lanes(concurrency=4)
        async with relay.running(second):
            await relay.endpoint.until_posted(51)
        assert relay.endpoint.ids().index("failed") < 4

    async def test_retries_do_not_starve_fresh_events_where_there_is_one_slot(self, relay: Relay) -> None:
        """Three dead sessions whose time-outs together are longer than the wait, and one healthy one."""

        async def answer(delivery: Delivery) -> Outcome:
            if delivery.event_id.startswith("dead"):
                relay.clock.advance(20)
                return TimedOut(20)
            return Answered(200, b"", 0.01)

        relay.endpoint.answer = answer
        await relay.outbox.append(commit(*(event(f"dead{number}", f"dead{number}") for number in range(3))))
        lanes = relay.lanes(concurrency=1)
        async with relay.running(lanes):
            await relay.endpoint.until_posted(3)
            await relay.outbox.append(commit(event("fresh", "fresh")))
            await relay.endpoint.until_posted(12)
        assert "fresh" in relay.endpoint.ids()[:12]


class TestWaking:
    async def test_a_wake_finds_new_events_at_once(self, relay: Relay) -> None:
        lanes = relay.lanes()
        async with relay.running(lanes):
            await self._idle(relay)
            await relay.outbox.append(events("a1"))
            lanes.wake()
            await relay.endpoint.until_posted(1)

    async def test_without_a_wake_the_next_poll_finds_them(self, relay: Relay, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(lanes_module, "_LONGEST_POLL_S", 0.05)
        lanes = relay.lanes()
        async with relay.running(lanes):
            await self._idle(relay)
            await relay.outbox.append(events("a1"))
            await relay.endpoint.until_posted(1)

    async def test_a_due_retry_needs_no_wake(self, relay: Relay) -> None:
        statuses = iter((500, 200))

        async def answer(_: Delivery) -> Outcome:
            return Answered(next(statuses), b"", 0.01)

        relay.endpoint.answer = answer
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(policy=RetryPolicy(waits=(timedelta(milliseconds=50),)))
        async with relay.running(lanes):
            await relay.endpoint.until_posted(1)
            before = 1  # the append; then come a claim, a settling, and the claim that finds nothing due
            while relay.metrics.commits._value.get() < before + 3:
                await relay.outbox.position()
            for _ in range(3):
                await relay.outbox.position()
            relay.clock.advance(0.05)
            await relay.endpoint.until_posted(2)

    @pytest.mark.parametrize("down", [False, True], ids=["a retry", "a probe"])
    async def test_a_clock_that_is_set_back_keeps_nothing_waiting(self, relay: Relay, down: bool) -> None:
        """A year fast, corrected: what failed meanwhile is tried again as if it were due."""
        relay.endpoint.answer = answers(500)
        relay.clock.step(365 * 86400)
        await relay.outbox.append(events("a1"))
        lanes = relay.lanes(policy=RetryPolicy(tries=1 if down else 10))
        async with relay.running(lanes):
            await relay.settled(lanes, lambda: look(relay.path, "SELECT failures FROM deliveries") == [1])
            assert ((await relay.outbox.endpoint_state("crm")).down_since is not None) is down
            relay.endpoint.answer = always_fine
            relay.clock.step(-365 * 86400)
            relay.clock.advance(5)
            await relay.settled(lanes, lambda: relay.states() == {"a1": "delivered"})

    async def test_a_retry_that_becomes_due_while_the_outbox_is_asked_is_not_forgotten(self, relay: Relay) -> None:
        class SlowDisk:
            """The outbox, whose commits take a while."""

            settle, expire, mend_times = relay.outbox.settle, relay.outbox.expire, relay.outbox.mend_times
            claim_probe, endpoint_state = relay.outbox.claim_probe, relay.outbox.endpoint_state
            end_outage = relay.outbox.end_outage

            def claim(self, endpoint: str, limit: int, retries: int, *, fresh_first: bool = False) -> asyncio.Future[Claimed]:
                claimed = relay.outbox.claim(endpoint, limit, retries, fresh_first=fresh_first)
                claimed.add_done_callback(lambda _: relay.clock.advance(1))
                return claimed

        await relay.outbox.append(events("a1"))
        (delivery,), _ = await relay.outbox.claim("crm", 1, 1)
        await settle(relay.outbox, delivery, TimedOut(1), RetryAt(START + timedelta(seconds=0.5)))
        lanes = relay.lanes(outbox=SlowDisk())
        async with relay.running(lanes):
            async with asyncio.timeout(0.5):
                await relay.endpoint.until_posted(1)

    async def test_wakes_without_reason_do_no_harm(self, relay: Relay) -> None:
        await relay.outbox.append(events("a1", "a2", "b1"))
        lanes = relay.lanes()
        async with relay.running(lanes):
            for _ in range(50):
                lanes.wake()
                await asyncio.sleep(0)
            await relay.endpoint.until_posted(3)
        assert Counter(relay.endpoint.ids()) == Counter(["a1", "a2", "b1"])

    @staticmethod
    async def _idle(relay: Relay) -> None:
        """Until the loop has looked once and waits."""
        while relay.metrics.commits._value.get() == 0:
            await relay.outbox.position()
        for _ in range(5):
            await relay.outbox.position()


class TestStopping:
    async def test_stop_lets_what_is_in_flight_finish_and_claims_nothing_more(self, relay: Relay) -> None:
        relay.endpoint.hold = True
        await relay.outbox.append(events("a1", "a2", "b1"))
        lanes = relay.lanes()
        task = asyncio.create_task(lanes.run())
        await relay.endpoint.until_posted(2)
        lanes.stop()
        for _ in range(5):
            await relay.outbox.position()
        assert not task.done(), "it waits for the requests in flight"
        relay.endpoint.let_go.set()
        async with asyncio.timeout(3):
            await task
        assert relay.states() == {"a1": "delivered", "a2": "pending", "b1": "delivered"}
        assert sorted(relay.endpoint.ids()) == ["a1", "b1"]

    async def test_stopping_an_idle_relay_is_immediate(self, relay: Relay) -> None:
        lanes = relay.lanes()
        task = asyncio.create_task(lanes.run())
        await TestWaking._idle(relay)
        lanes.stop()
        async with asyncio.timeout(1):
            await task

    async def test_cancelling_leaves_the_attempts_to_recover(self, relay: Relay) -> None:
        relay.endpoint.hold = True
        await relay.outbox.append(events("a1", "b1"))
        task = asyncio.create_task(relay.lanes().run())
        await relay.endpoint.until_posted(2)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert look(relay.path, "SELECT count(*) FROM lanes WHERE started_at IS NOT NULL") == [2]
        assert await relay.outbox.recover() == 2

        relay.endpoint.hold = False
        relay.endpoint.posted.clear()
        again = relay.lanes()
        async with relay.running(again):
            await relay.endpoint.until_posted(2)
        assert sorted((delivery.event_id, delivery.attempt, delivery.failures) for delivery in relay.endpoint.posted) == [
            ("a1", 2, 0),
            ("b1", 2, 0),
        ]
        assert set(relay.states().values()) == {"delivered"}

    async def test_an_answer_that_came_is_recorded_although_the_stop_came_in_between(self, relay: Relay) -> None:
        settling = asyncio.Event()

        class Slow:
            """The outbox, slow to tell that it has settled."""

            claim, expire, mend_times = relay.outbox.claim, relay.outbox.expire, relay.outbox.mend_times
            claim_probe, endpoint_state = relay.outbox.claim_probe, relay.outbox.endpoint_state
            end_outage = relay.outbox.end_outage

            def settle(self, *what: Any) -> asyncio.Future[None]:
                settling.set()
                relay.outbox.settle(*what)
                return asyncio.get_running_loop().create_future()

        await relay.outbox.append(events("a1"))
        task = asyncio.create_task(relay.lanes(outbox=Slow()).run())
        async with asyncio.timeout(3):
            await settling.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await relay.outbox.end_outage("crm")  # comes after what was asked for before
        assert relay.states() == {"a1": "delivered"}

    async def test_an_outbox_that_cannot_settle_ends_the_loop(self, relay: Relay) -> None:
        class Broken:
            """The outbox, on a full disk."""

            claim, expire, mend_times = relay.outbox.claim, relay.outbox.expire, relay.outbox.mend_times
            claim_probe, endpoint_state = relay.outbox.claim_probe, relay.outbox.endpoint_state
            end_outage = relay.outbox.end_outage

            async def settle(self, *what: Any) -> None:
                raise OutboxError("cannot be written", hint="make room")

        await relay.outbox.append(events("a1", "b1"))
        with pytest.raises(BaseExceptionGroup) as group:
            async with asyncio.timeout(3):
                await relay.lanes(outbox=Broken()).run()
        assert group.group_contains(OutboxError)
