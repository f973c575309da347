"""What is due: claiming the heads of lanes, settling, and what a restart finds."""

from __future__ import annotations

import asyncio
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from daemon.metrics import Metrics
from daemon.model import Answered, Broken, Dead, Delivered, Delivery, Outcome, RetryAt, Suspended, Verdict
from daemon.outbox.figures import Backlog
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import START, FakeClock
from tests.outbox.events import DOWN, LATE, OK, REFUSED, TWO, bodies, commit, event, intent, look, settle

AT_ONCE = datetime(1970, 1, 1, tzinfo=UTC)


async def claim(outbox: SqliteOutbox, limit: int = 100, retries: int = 100) -> list[Delivery]:
    claimed, _ = await outbox.claim("crm", limit, retries)
    return claimed


async def claim_one(outbox: SqliteOutbox) -> Delivery:
    (delivery,) = await claim(outbox)
    return delivery


def ids(deliveries: list[Delivery]) -> list[str]:
    return [delivery.event_id for delivery in deliveries]


async def fail(outbox: SqliteOutbox, delivery: Delivery, clock: FakeClock, wait_s: float = 10) -> None:
    await settle(outbox, delivery, REFUSED, RetryAt(clock.now() + timedelta(seconds=wait_s)))


class TestClaim:
    async def test_one_of_a_session_at_a_time(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("a1", "a"), event("a2", "a"), event("b1", "b")))
        first = await claim(outbox)
        assert ids(first) == ["a1", "b1"]
        assert await claim(outbox) == []
        await settle(outbox, first[0], OK, Delivered())
        assert ids(await claim(outbox)) == ["a2"]

    async def test_claims_at_the_same_time_never_share_a_delivery(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(*(event(f"m{number}", f"room{number % 7}") for number in range(30))))
        claims = await asyncio.gather(*(claim(outbox, 3) for _ in range(10)))
        claimed = [delivery for some in claims for delivery in some]
        assert sorted(delivery.session for delivery in claimed) == [f"room{number}" for number in range(7)]

    async def test_endpoints_do_not_wait_for_each_other(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1", endpoints=TWO), event("m2", endpoints=TWO)))
        await claim_one(outbox)
        (archived,), _ = await outbox.claim("archive", 10, 10)
        await settle(outbox, archived, OK, Delivered())
        (archived,), _ = await outbox.claim("archive", 10, 10)
        assert archived.event_id == "m2"
        assert await claim(outbox) == []

    async def test_the_attempt_is_on_disk_before_the_delivery_is_given(
        self, outbox: SqliteOutbox, path: Path, clock: FakeClock
    ) -> None:
        await outbox.append(commit(event("m1")))
        for attempt in (1, 2, 3):
            delivery = await claim_one(outbox)
            assert delivery.attempt == attempt
            assert look(
                path, "SELECT d.attempts + 1, l.started_at FROM lanes l JOIN deliveries d USING (endpoint, sequence)"
            ) == [(attempt, clock.now().timestamp())]
            await fail(outbox, delivery, clock)
            clock.advance(10)

    @pytest.mark.parametrize(("limit", "expected"), [(0, 0), (1, 1), (3, 3), (100, 6)])
    async def test_no_more_than_asked_for(self, outbox: SqliteOutbox, limit: int, expected: int) -> None:
        await outbox.append(commit(*(event(f"m{number}", f"room{number}") for number in range(6))))
        assert ids(await claim(outbox, limit)) == [f"m{number}" for number in range(expected)]

    @pytest.mark.parametrize(
        ("limit", "retries", "failed", "fresh"),
        [
            pytest.param(10, 10, 4, 4, id="room for all"),
            pytest.param(10, 1, 1, 4, id="one retry"),
            pytest.param(10, 0, 0, 4, id="no retry"),
            pytest.param(3, 1, 1, 2, id="both share the limit"),
            pytest.param(2, 5, 2, 0, id="retries within the limit"),
        ],
    )
    async def test_retries_are_limited(
        self, outbox: SqliteOutbox, clock: FakeClock, *, limit: int, retries: int, failed: int, fresh: int
    ) -> None:
        await outbox.append(commit(*(event(f"failed{number}", f"room{number}") for number in range(4))))
        for delivery in await claim(outbox):
            await fail(outbox, delivery, clock)
        clock.advance(10)
        await outbox.append(commit(*(event(f"fresh{number}", f"another{number}") for number in range(4))))
        claimed = ids(await claim(outbox, limit, retries))
        assert sum(one.startswith("failed") for one in claimed) == failed
        assert sum(one.startswith("fresh") for one in claimed) == fresh

    async def test_a_retry_is_due_at_its_time_and_not_before(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1"), event("m2")))
        await fail(outbox, await claim_one(outbox), clock, wait_s=10)
        clock.advance(9.999)
        assert await claim(outbox) == []
        clock.advance(0.001)
        assert ids(await claim(outbox)) == ["m1"], "the next of the session waits for the one that failed"

    @pytest.mark.parametrize(("back_s", "pulled"), [(0, 0), (20, 0), (21, 1), (10**9, 1)])
    async def test_what_waits_longer_than_anything_may_is_pulled_in(
        self, outbox: SqliteOutbox, clock: FakeClock, back_s: int, pulled: int
    ) -> None:
        await outbox.append(commit(event("m1"), event("fresh", "b"), intent("s1", "c")))
        first, _ = await claim(outbox)
        await fail(outbox, first, clock, wait_s=10)
        clock.step(-back_s)
        assert await outbox.mend_times("archive", 30, 30) == 0
        assert await outbox.mend_times("crm", 30, 30) == pulled
        assert ids(await claim(outbox)) == ["m1"] * pulled

    async def test_the_longest_due_goes_first(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(*(event(f"m{number}", f"room{number}") for number in range(3))))
        for delivery, wait_s in zip(await claim(outbox), (30, 10, 20), strict=True):
            await fail(outbox, delivery, clock, wait_s)
        clock.advance(60)
        assert [ids(await claim(outbox, 1)) for _ in range(3)] == [["m1"], ["m2"], ["m0"]]

    async def test_first_tries_go_in_the_order_of_what_happened(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        """However long a lane had to wait for its turn, and whatever the clock does meanwhile."""
        await outbox.append(commit(event("a1", "a"), event("b1", "b"), event("a2", "a"), event("b2", "b")))
        a1, b1 = await claim(outbox)
        clock.step(-60)
        await outbox.append(commit(event("c1", "c")))
        await settle(outbox, b1, OK, Delivered())
        clock.advance(5)
        await settle(outbox, a1, OK, Delivered())
        assert [ids(await claim(outbox, 1)) for _ in range(3)] == [["a2"], ["b2"], ["c1"]]

    async def test_tells_when_the_next_is_due(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        assert await outbox.claim("crm", 10, 10) == ([], None)
        await outbox.append(commit(event("m1", "a"), event("m2", "b"), intent("s1", "c")))
        one, due = await outbox.claim("crm", 1, 1)
        assert due == AT_ONCE, "one more is due already"
        two, due = await outbox.claim("crm", 1, 1)
        assert due is None, "what is in flight or waits for a body has no time"
        await settle(outbox, one[0], REFUSED, RetryAt(START + timedelta(seconds=20)))
        await settle(outbox, two[0], REFUSED, RetryAt(START + timedelta(seconds=10)))
        assert await outbox.claim("crm", 10, 10) == ([], START + timedelta(seconds=10))
        assert await outbox.claim("archive", 10, 10) == ([], None)

    async def test_a_wall_clock_set_back_does_not_hold_up_fresh_events(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1")))
        clock.step(-3600)
        assert ids(await claim(outbox)) == ["m1"]

    async def test_nor_what_waits_for_a_retry_for_longer_than_any_wait(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1", "a"), event("m2", "b")))
        one, two = await claim(outbox)
        await fail(outbox, one, clock, 10)
        await settle(outbox, two, DOWN, Suspended("no answer"))
        assert await outbox.mend_times("crm", 10.0, 30.0) == 0
        clock.step(-3600)
        assert await outbox.mend_times("archive", 10.0, 30.0) == 0
        assert await outbox.mend_times("crm", 10.0, 30.0) == 2
        assert (await outbox.claim_probe("crm"))[0] != [], "the probe does not wait for an hour either"
        clock.advance(1)
        assert ids(await claim(outbox)) != []

    async def test_a_probe_that_could_not_be_made_waits_for_its_time(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1")))
        (first,) = await claim(outbox)
        await settle(outbox, first, DOWN, Suspended("no answer"))
        clock.advance(30)
        ((probe,), _) = await outbox.claim_probe("crm")
        await settle(outbox, probe, Broken("no secret", 0.0, counts=False), RetryAt(clock.now() + timedelta(seconds=10)))
        assert await outbox.claim_probe("crm") == ([], clock.now() + timedelta(seconds=10))


class TestSettle:
    @pytest.mark.parametrize(
        ("outcome", "verdict", "state", "attempt"),
        [
            pytest.param(OK, Delivered(), "delivered", (0.25, "answered", 200, None, b"fine"), id="delivered"),
            pytest.param(REFUSED, Dead("refused"), "dead", (0.5, "answered", 400, None, b"no"), id="dead"),
            pytest.param(REFUSED, RetryAt(START), "pending", (0.5, "answered", 400, None, b"no"), id="retry after an answer"),
            pytest.param(
                LATE, RetryAt(START), "pending", (20.0, "timeout", None, "no answer in time", None), id="retry after a time-out"
            ),
            pytest.param(
                DOWN,
                RetryAt(START),
                "pending",
                (0.01, "unreachable", None, "ClientConnectorError: refused", None),
                id="retry without connection",
            ),
        ],
    )
    async def test_every_verdict_is_recorded_with_its_outcome(
        self, outbox: SqliteOutbox, path: Path, *, outcome: Outcome, verdict: Verdict, state: str, attempt: tuple[object, ...]
    ) -> None:
        await outbox.append(commit(event("m1")))
        await settle(outbox, await claim_one(outbox), outcome, verdict)
        assert look(path, "SELECT state FROM deliveries") == [state]
        assert look(path, "SELECT duration, outcome, status, error, answer FROM attempts") == [attempt]
        failures = 0 if isinstance(verdict, Delivered) else 1
        assert look(path, "SELECT failures FROM deliveries") == [failures]

    async def test_of_a_long_answer_the_record_keeps_the_beginning(self, outbox: SqliteOutbox, path: Path) -> None:
        await outbox.append(commit(event("m1")))
        await settle(outbox, await claim_one(outbox), Answered(400, b"a" * 65536, 0.1), Dead("no"))
        assert look(path, "SELECT answer FROM attempts") == [b"a" * 1024]

    async def test_failures_count_failing_outcomes(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1"), event("m2")))
        for failures in range(4):
            delivery = await claim_one(outbox)
            assert (delivery.attempt, delivery.failures) == (failures + 1, failures)
            await fail(outbox, delivery, clock)
            clock.advance(10)
        await settle(outbox, await claim_one(outbox), OK, Delivered())
        following = await claim_one(outbox)
        assert (following.event_id, following.attempt, following.failures) == ("m2", 1, 0)

    async def test_the_next_of_a_session_is_fresh_after_one_that_failed(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1"), event("m2")))
        await fail(outbox, await claim_one(outbox), clock)
        clock.advance(10)
        await settle(outbox, await claim_one(outbox), REFUSED, Dead("enough"))
        assert ids(await claim(outbox, 10, 0)) == ["m2"]

    async def test_a_dead_letter_keeps_body_and_attempts_and_lets_its_lane_go_on(
        self, outbox: SqliteOutbox, path: Path, clock: FakeClock
    ) -> None:
        await outbox.append(commit(event("m1"), event("m2")))
        await fail(outbox, await claim_one(outbox), clock)
        clock.advance(10)
        await settle(outbox, await claim_one(outbox), Answered(500, b"oops", 1.5), Dead("2 tries failed"))
        query = "SELECT state, attempts, failures, settled_at, reason FROM deliveries ORDER BY sequence LIMIT 1"
        assert look(path, query) == [("dead", 2, 2, clock.now().timestamp(), "2 tries failed")]
        assert look(path, "SELECT content FROM bodies ORDER BY sequence")[0] == b"m1 guide"
        assert look(path, "SELECT number, status FROM attempts") == [(1, 400), (2, 500)]
        assert ids(await claim(outbox)) == ["m2"]

    async def test_after_the_last_one_nothing_is_left_to_claim(self, outbox: SqliteOutbox, path: Path) -> None:
        await outbox.append(commit(event("m1")))
        await settle(outbox, await claim_one(outbox), OK, Delivered())
        assert await outbox.claim("crm", 10, 10) == ([], None)
        assert look(path, "SELECT count(*) FROM lanes") == [0]
        await outbox.append(commit(event("m2")))
        assert ids(await claim(outbox)) == ["m2"], "a session can go on later"

    async def test_events_of_a_session_that_come_late_are_not_lost(self, outbox: SqliteOutbox) -> None:
        archive = {"archive": TWO["archive"]}
        await outbox.append(commit(event("m1", endpoints=archive), event("m2"), event("m3")))
        second = await claim_one(outbox)
        await outbox.append(commit(event("m1", endpoints=TWO)))
        assert await claim(outbox) == []
        await settle(outbox, second, OK, Delivered())
        rest = []
        for _ in range(2):
            delivery = await claim_one(outbox)
            rest.append(delivery.event_id)
            await settle(outbox, delivery, OK, Delivered())
        assert rest == ["m1", "m3"]


class TestRecover:
    async def test_interrupted_attempts_are_marked_counted_and_due_at_once(
        self, path: Path, clock: FakeClock, metrics: Metrics
    ) -> None:
        first = SqliteOutbox(path, clock=clock, metrics=metrics)
        await first.append(commit(event("m1", "a"), event("m2", "b"), event("m3", "c")))
        delivered, failed, _ = await claim(first)
        await settle(first, delivered, OK, Delivered())
        await fail(first, failed, clock)
        await first.close()

        second = SqliteOutbox(path, clock=clock, metrics=metrics)
        try:
            assert await second.recover() == 1
            assert look(path, "SELECT outcome FROM attempts ORDER BY sequence") == ["answered", "answered", "interrupted"]
            again = await claim_one(second)
            assert (again.event_id, again.attempt, again.failures) == ("m3", 2, 0)
            clock.advance(10)
            waited = await claim_one(second)
            assert (waited.event_id, waited.attempt, waited.failures) == ("m2", 2, 1)
        finally:
            await second.close()

    async def test_nothing_to_recover(self, outbox: SqliteOutbox) -> None:
        assert await outbox.recover() == 0
        await outbox.append(commit(event("m1"), intent("s1", "b")))
        assert await outbox.recover() == 0
        assert ids(await claim(outbox)) == ["m1"], "an intent is not made due"

    async def test_a_hundred_interruptions_never_count_as_a_failure(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1")))
        await fail(outbox, await claim_one(outbox), clock)
        clock.advance(10)
        for interruption in range(100):
            delivery = await claim_one(outbox)
            assert (delivery.attempt, delivery.failures) == (interruption + 2, 1)
            assert await outbox.recover() == 1

    async def test_a_lane_whose_intent_was_composed_before_the_stop_goes_on(
        self, path: Path, clock: FakeClock, metrics: Metrics
    ) -> None:
        first = SqliteOutbox(path, clock=clock, metrics=metrics)
        await first.append(commit(intent("s1"), event("m1")))
        await first.composed("s1", bodies("s1"))
        await first.close()
        second = SqliteOutbox(path, clock=clock, metrics=metrics)
        try:
            assert await second.recover() == 0
            assert ids(await claim(second)) == ["s1"]
        finally:
            await second.close()

    async def test_what_a_power_cut_leaves_on_disk_is_everything_that_was_promised(
        self, outbox: SqliteOutbox, path: Path, tmp_path: Path, clock: FakeClock, metrics: Metrics
    ) -> None:
        await outbox.append(commit(event("m1", "a"), event("m2", "b"), intent("s1", "c")))
        delivered, in_flight = await claim(outbox)
        await settle(outbox, delivered, OK, Delivered())
        after = tmp_path / "after"
        after.mkdir()
        for file in path.parent.glob("outbox.db*"):
            if file.suffix != ".db-shm":  # shared memory does not survive a power cut
                shutil.copy(file, after)
        survivor = SqliteOutbox(after / "outbox.db", clock=clock, metrics=metrics)
        try:
            assert await survivor.recover() == 1
            again = await claim_one(survivor)
            assert (again.event_id, again.attempt) == (in_flight.event_id, 2)
            assert [waiting.event_id for waiting in await survivor.waiting_intents()] == ["s1"]
        finally:
            await survivor.close()


class TestBacklog:
    async def test_counts_what_is_owed_and_dead_by_endpoint(self, outbox: SqliteOutbox) -> None:
        assert await outbox.backlog() == []
        late = START - timedelta(minutes=3)
        await outbox.append(
            commit(
                event("m1", "a", endpoints=TWO, happened_at=late),
                event("m2", "a"),
                intent("s1", "b"),
                event("only", "c", endpoints={"archive": TWO["archive"]}),
            )
        )
        owed = sorted(await outbox.backlog(), key=lambda entry: entry.endpoint)
        nothing = (0, None)
        assert owed == [
            Backlog("archive", {"intent": nothing, "pending": (2, late), "suspended": nothing}, lanes=2),
            Backlog("crm", {"intent": (1, START), "pending": (2, late), "suspended": nothing}, lanes=2),
        ]
        assert [(entry.owed, entry.oldest) for entry in owed] == [(2, late), (3, late)]
        for endpoint, verdict in (("crm", Dead("no")), ("archive", Delivered())):
            for delivery in (await outbox.claim(endpoint, 10, 10))[0]:
                await settle(outbox, delivery, REFUSED, verdict)
        assert await outbox.backlog() == [
            Backlog("crm", {"intent": (1, START), "pending": (1, START), "suspended": nothing}, dead=1, lanes=2)
        ]

    async def test_dead_letters_alone_are_shown_too(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1")))
        await settle(outbox, await claim_one(outbox), REFUSED, Dead("no"))
        (entry,) = await outbox.backlog()
        assert (entry, entry.owed, entry.oldest) == (Backlog("crm", dead=1), 0, None)

    async def test_lanes_that_wait_for_another_try_and_suspended_ones(self, outbox: SqliteOutbox, clock: FakeClock) -> None:
        await outbox.append(commit(event("m1", "a"), event("m2", "b"), event("m3", "b"), event("m4", "c")))
        first, second, _ = await claim(outbox)
        await settle(outbox, first, DOWN, RetryAt(clock.now() + timedelta(seconds=10)))
        await settle(outbox, second, DOWN, Suspended("down"))
        (entry,) = await outbox.backlog()
        assert {state: count for state, (count, _) in entry.states.items()} == {"intent": 0, "pending": 3, "suspended": 1}
        assert (entry.lanes, entry.retrying) == (3, 2)
