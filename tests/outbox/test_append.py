"""What compose adds: events once per endpoint, intents, folded state and position, all or nothing."""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import bson
import pytest
from bson.timestamp import Timestamp
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.errors import DaemonError, OutboxError
from daemon.metrics import Metrics
from daemon.model import Body, Delivered, IntentUpdate, Position, Profile, RetryAt, StateRow
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import START, FakeClock
from tests.outbox.events import OK, POSITION, REFUSED, TWO, bodies, commit, event, intent, look, settle, skipped


async def claim_ids(outbox: SqliteOutbox, endpoint: str = "crm", limit: int = 100) -> list[str]:
    claimed, _ = await outbox.claim(endpoint, limit, limit)
    return [delivery.event_id for delivery in claimed]


async def drain(outbox: SqliteOutbox, endpoint: str = "crm") -> list[str]:
    """Deliver everything that can be, and give the ids in the order of delivery."""
    ids: list[str] = []
    while True:
        claimed, _ = await outbox.claim(endpoint, 100, 100)
        if not claimed:
            return ids
        for delivery in claimed:
            ids.append(delivery.event_id)
            await settle(outbox, delivery, OK, Delivered())


@asynccontextmanager
async def busy_writer(outbox: SqliteOutbox) -> AsyncIterator[None]:
    """While inside, the writer is busy: what is asked for goes into one commit together, afterwards."""
    started, go_on = threading.Event(), threading.Event()

    def work(_: sqlite3.Connection) -> None:
        started.set()
        go_on.wait(5)

    busy = asyncio.ensure_future(outbox._writer.run(work))
    await asyncio.to_thread(started.wait, 5)
    try:
        yield
    finally:
        go_on.set()
        await busy


async def ask(*work: Any) -> list[asyncio.Future[Any]]:
    """Begin all of `work`, so that it waits for the writer."""
    asked = [asyncio.ensure_future(item) for item in work]
    await asyncio.sleep(0)
    return asked


class TestOneCommit:
    async def test_events_states_and_position_are_on_disk_when_append_returns(self, outbox: SqliteOutbox, path: Path) -> None:
        position = Position(Timestamp(1_700_000_007, 3), {"_data": "82AB"})
        await outbox.append(commit(event("m1"), states=[StateRow("room", "r", {"a": 1})], position=position))
        assert look(path, "SELECT id FROM events") == ["m1"]
        assert look(path, "SELECT content FROM bodies") == [b"m1 guide"]
        assert look(path, "SELECT kind, id FROM states") == [("room", "r")]
        assert look(path, "SELECT seconds, increment FROM position") == [(1_700_000_007, 3)]

    async def test_a_commit_that_fails_keeps_nothing_of_itself(self, outbox: SqliteOutbox, path: Path) -> None:
        await outbox.append(commit(event("before")))
        unstorable = StateRow("room", "r", {"a": 2**70})
        with pytest.raises(Exception):  # noqa: B017, PT011 - which error it is, is told by another test
            await outbox.append(
                commit(event("m1"), states=[StateRow("room", "q", {}), unstorable], position=Position(Timestamp(9, 9)))
            )
        assert await outbox.position() == POSITION
        assert look(path, "SELECT id FROM events") == ["before"]
        assert look(path, "SELECT count(*) FROM states") == [0]

    async def test_what_is_asked_for_while_a_commit_runs_shares_the_next_one(
        self, outbox: SqliteOutbox, metrics: Metrics
    ) -> None:
        async with busy_writer(outbox):
            before = metrics.commits._value.get()
            asked = await ask(*(outbox.append(commit(event(f"m{number}"))) for number in range(20)))
        await asyncio.gather(*asked)
        assert metrics.commits._value.get() == before + 2
        assert await drain(outbox) == [f"m{number}" for number in range(20)]

    async def test_a_failing_commit_fails_for_everybody_in_it_and_keeps_nothing(self, outbox: SqliteOutbox, path: Path) -> None:
        def fail(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT INTO nowhere VALUES (1)")

        async with busy_writer(outbox):
            asked = await ask(outbox.append(commit(event("m1"))), outbox._writer.run(fail), outbox.append(commit(event("m2"))))
        results = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(result) for result in results] == [OutboxError] * 3
        assert look(path, "SELECT count(*) FROM events") == [0]

        await outbox.append(commit(event("m1"), event("m2")))
        assert await drain(outbox) == ["m1", "m2"], "the writer goes on after a failed commit"

    async def test_a_defect_in_one_job_does_not_reach_the_others(self, outbox: SqliteOutbox, path: Path) -> None:
        """What cannot be stored at all is the fault of the one who asked; of it nothing is kept, of the others everything."""
        unstorable = commit(event("m2"), states=[StateRow("room", "r", {"a": object()})], position=Position(Timestamp(9, 9)))
        async with busy_writer(outbox):
            asked = await ask(outbox.append(commit(event("m1"))), outbox.append(unstorable), outbox.append(commit(event("m3"))))
        first, broken, last = await asyncio.gather(*asked, return_exceptions=True)
        assert (first, last) == (None, None)
        assert isinstance(broken, bson.errors.InvalidDocument)
        assert look(path, "SELECT id FROM events ORDER BY sequence") == ["m1", "m3"]
        assert await outbox.position() == POSITION
        assert await drain(outbox) == ["m1", "m3"]

    async def test_a_full_disk_is_an_outbox_error_with_a_hint_and_loses_nothing_committed(
        self, outbox: SqliteOutbox, path: Path
    ) -> None:
        await outbox.append(commit(event("m1")))
        (pages,) = look(path, "PRAGMA page_count")
        await outbox._writer.run(lambda connection: connection.execute(f"PRAGMA max_page_count = {pages + 2}").fetchall())
        with pytest.raises(OutboxError) as error:
            await outbox.append(commit(event("m2", content=b"x" * 100_000)))
        assert "disk" in error.value.hint
        await outbox._writer.run(lambda connection: connection.execute("PRAGMA max_page_count = 1000000").fetchall())
        await outbox.append(commit(event("m2", content=b"x" * 100_000)))
        assert await drain(outbox) == ["m1", "m2"]

    async def test_a_damaged_file_is_an_outbox_error_for_readers_too(self, outbox: SqliteOutbox, path: Path) -> None:
        look(path, "DROP TABLE position")
        with pytest.raises(OutboxError):
            await outbox.position()

    async def test_a_closed_outbox_refuses_instead_of_waiting_for_ever(self, tmp_path: Path, metrics: Metrics) -> None:
        closed = SqliteOutbox(tmp_path / "closed.db", clock=FakeClock(), metrics=metrics)
        await closed.close()
        with pytest.raises(DaemonError):
            async with asyncio.timeout(0.3):
                await closed.append(commit())


class TestIdentity:
    numbers = itertools.count()

    async def test_an_event_is_kept_once_per_endpoint(self, outbox: SqliteOutbox, path: Path) -> None:
        for _ in range(3):
            await outbox.append(commit(event("m1", endpoints=TWO), event("m1", endpoints=TWO)))
        assert look(path, "SELECT count(*) FROM events") == [1]
        assert await drain(outbox, "crm") == ["m1"]
        assert await drain(outbox, "archive") == ["m1"]

    async def test_a_known_event_is_left_as_it_is(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1", content=b"first")))
        await outbox.append(commit(event("m1", content=b"second")))
        (delivery,), _ = await outbox.claim("crm", 10, 10)
        assert delivery.body.content == b"first"

    async def test_a_delivered_event_is_not_delivered_again_when_read_again(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1")))
        await drain(outbox)
        await outbox.append(commit(event("m1")))
        assert await drain(outbox) == []

    async def test_a_new_endpoint_of_a_known_event_gets_its_own_delivery(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1")))
        await drain(outbox)
        await outbox.append(commit(event("m1", endpoints=TWO)))
        assert await drain(outbox, "crm") == []
        (delivery,), _ = await outbox.claim("archive", 10, 10)
        assert (delivery.event_id, delivery.attempt, delivery.body.content) == ("m1", 1, b"m1 native")

    async def test_a_new_endpoint_waits_for_the_intent_and_leaves_the_others_alone(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(intent("s1", completed=Timestamp(5, 1))))
        await outbox.composed("s1", bodies("s1"))
        assert await drain(outbox, "crm") == ["s1"]
        await outbox.append(commit(intent("s1", endpoints=TWO, completed=Timestamp(5, 1))))
        assert await claim_ids(outbox, "archive") == []
        await outbox.composed("s1", bodies("s1"))
        assert await drain(outbox, "archive") == ["s1"]
        assert await drain(outbox, "crm") == []

    async def test_composing_for_a_new_endpoint_does_not_send_twice_what_is_in_flight(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(intent("s1", completed=Timestamp(5, 1))))
        await outbox.composed("s1", bodies("s1"))
        assert await claim_ids(outbox, "crm") == ["s1"]
        await outbox.append(commit(intent("s1", endpoints=TWO, completed=Timestamp(5, 1))))
        await outbox.composed("s1", bodies("s1"))
        assert await claim_ids(outbox, "crm") == []

    async def test_composing_for_a_new_endpoint_leaves_a_retry_at_its_time(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(intent("s1", completed=Timestamp(5, 1))))
        await outbox.composed("s1", bodies("s1"))
        (delivery,), _ = await outbox.claim("crm", 1, 1)
        await settle(outbox, delivery, REFUSED, RetryAt(START + timedelta(seconds=10)))
        await outbox.append(commit(intent("s1", endpoints=TWO, completed=Timestamp(5, 1))))
        await outbox.composed("s1", bodies("s1"))
        assert await claim_ids(outbox, "crm") == []
        assert await claim_ids(outbox, "archive") == ["s1"]

    async def test_each_endpoint_gets_the_body_of_its_profile_byte_by_byte(self, outbox: SqliteOutbox) -> None:
        text = bytes(range(256)) * 300
        files = ((10, "room", "user", "file"), (20, "room", "user", 'f"ile'))
        await outbox.append(commit(event("m1", content=text, files=files)))
        (delivery,), _ = await outbox.claim("crm", 1, 1)
        assert delivery.body == Body(text, files)

    @settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        event_id=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30),
        seconds=st.floats(0, 7e9).map(lambda value: round(value, 6)),
    )
    async def test_ids_and_times_come_back_as_they_were(self, outbox: SqliteOutbox, event_id: str, seconds: float) -> None:
        happened_at = datetime.fromtimestamp(seconds, UTC)
        event_id = f"{event_id}{next(self.numbers)}"
        await outbox.append(commit(event(event_id, event_id, happened_at=happened_at)))
        (delivery, *rest), _ = await outbox.claim("crm", 10, 10)
        assert not rest
        assert (delivery.session, delivery.event_id) == (event_id, event_id)
        assert delivery.happened_at == happened_at
        await settle(outbox, delivery, OK, Delivered())


class TestOrder:
    async def test_sequence_rises_with_the_order_of_events(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(*(event(f"a{number}", f"room{number}") for number in range(5))))
        await outbox.append(commit(*(event(f"b{number}", f"room{number}") for number in range(5))))
        claimed, _ = await outbox.claim("crm", 100, 100)
        sequences = [delivery.sequence for delivery in claimed]
        assert sequences == sorted(set(sequences))
        assert [delivery.event_id for delivery in claimed] == [f"a{number}" for number in range(5)]

    async def test_a_session_is_delivered_in_order(self, outbox: SqliteOutbox) -> None:
        expected = [f"m{number}" for number in range(30)]
        for event_id in expected:
            await outbox.append(commit(event(event_id)))
        assert await drain(outbox) == expected

    async def test_a_lane_never_passes_an_intent_but_other_lanes_do(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1"), intent("s1"), event("m2"), event("other", "another room")))
        assert sorted(await drain(outbox)) == ["m1", "other"]
        assert await drain(outbox) == []
        await outbox.composed("s1", bodies("s1"))
        assert await drain(outbox) == ["s1", "m2"]

    async def test_a_skipped_intent_lets_its_lane_go_on_and_keeps_its_context(self, outbox: SqliteOutbox, path: Path) -> None:
        await outbox.append(commit(intent("s1"), event("m1")))
        assert await drain(outbox) == []
        await outbox.skip("s1", "the visitor is gone")
        assert await drain(outbox) == ["m1"]
        assert look(path, "SELECT state, reason FROM deliveries ORDER BY sequence")[0] == ("skipped", "the visitor is gone")
        assert look(path, "SELECT content FROM bodies WHERE profile = 'context'") == [b"context of s1"]

    async def test_skipping_an_intent_that_is_not_the_head_does_not_disturb_its_lane(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1"), intent("s1"), event("m2")))
        assert await claim_ids(outbox) == ["m1"]
        await outbox.skip("s1", "gone")
        assert await claim_ids(outbox) == []

    async def test_composing_an_intent_behind_a_delivery_in_flight_does_not_claim_it_twice(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1"), intent("s1")))
        (first,), _ = await outbox.claim("crm", 10, 10)
        await outbox.composed("s1", bodies("s1"))
        assert await claim_ids(outbox) == []
        await settle(outbox, first, OK, Delivered())
        assert await drain(outbox) == ["s1"]

    async def test_a_skipped_change_is_a_visible_row_that_nobody_waits_for(self, outbox: SqliteOutbox, path: Path) -> None:
        await outbox.append(commit(skipped("c1", "unexpected data"), event("m1")))
        assert await drain(outbox) == ["m1"]
        assert look(path, "SELECT state, reason FROM deliveries ORDER BY sequence")[0] == ("skipped", "unexpected data")


class TestIntents:
    async def test_intents_wait_for_their_completion_and_come_back_whole(self, outbox: SqliteOutbox) -> None:
        cut = START + timedelta(milliseconds=123)
        await outbox.append(commit(intent("s1", endpoints=TWO), intent("s2", "room2", completed=Timestamp(9, 9), cut=cut)))
        assert [waiting.event_id for waiting in await outbox.waiting_intents()] == ["s1"]
        (complete,) = await outbox.complete_intents(10)
        assert (complete.event_id, complete.session, complete.completed, complete.cut) == ("s2", "room2", Timestamp(9, 9), cut)
        assert complete.context == b"context of s2"
        assert complete.profiles == (Profile.GUIDE,)

        await outbox.append(commit(updates=[IntentUpdate("s1", Timestamp(8, 8), cut)]))
        assert await outbox.waiting_intents() == []
        first, second = await outbox.complete_intents(10)
        assert (first.event_id, first.completed, first.cut) == ("s1", Timestamp(8, 8), cut)
        assert set(first.profiles) == {Profile.GUIDE, Profile.NATIVE}
        assert second.event_id == "s2"
        assert [one.event_id for one in await outbox.complete_intents(1)] == ["s1"], "oldest first, no more than asked for"

    async def test_the_first_completion_counts(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(intent("s1")))
        await outbox.append(commit(updates=[IntentUpdate("s1", Timestamp(8, 8), START)]))
        await outbox.append(commit(updates=[IntentUpdate("s1", Timestamp(9, 9), START + timedelta(hours=1))]))
        (complete,) = await outbox.complete_intents(10)
        assert (complete.completed, complete.cut) == (Timestamp(8, 8), START)

    async def test_a_completion_of_an_unknown_or_composed_event_does_nothing(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(intent("s1", completed=Timestamp(5, 1))))
        await outbox.composed("s1", bodies("s1"))
        late = [IntentUpdate("s1", Timestamp(8, 8), START), IntentUpdate("nobody", Timestamp(8, 8), START)]
        await outbox.append(commit(updates=late))
        assert await outbox.complete_intents(10) == []
        assert await drain(outbox) == ["s1"]

    async def test_an_update_that_does_not_complete_changes_what_is_known(self, outbox: SqliteOutbox) -> None:
        later = START + timedelta(seconds=1)
        await outbox.append(commit(intent("s1")))
        await outbox.append(commit(updates=[IntentUpdate("s1", None, later, b"more")]))
        (waiting,) = await outbox.waiting_intents()
        assert (waiting.completed, waiting.cut, waiting.context) == (None, later, b"more")
        await outbox.append(commit(updates=[IntentUpdate("s1", Timestamp(8, 8), START)]))
        (complete,) = await outbox.complete_intents(10)
        assert (complete.completed, complete.cut, complete.context) == (Timestamp(8, 8), START, b"more")

    async def test_a_body_is_fixed_once_it_is_composed(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(intent("s1", completed=Timestamp(5, 1))))
        await outbox.composed("s1", {Profile.GUIDE: Body(b"first")})
        await outbox.composed("s1", {Profile.GUIDE: Body(b"second")})
        (delivery,), _ = await outbox.claim("crm", 10, 10)
        assert delivery.body.content == b"first"


class TestPosition:
    async def test_there_is_none_at_first(self, outbox: SqliteOutbox) -> None:
        assert await outbox.position() is None

    @pytest.mark.parametrize(
        "position",
        [
            pytest.param(Position(Timestamp(1, 0)), id="time only"),
            pytest.param(Position(Timestamp(2**32 - 1, 2**32 - 1)), id="largest time"),
            pytest.param(Position(Timestamp(7, 7), {"_data": "8263" + "0" * 400}), id="resume token"),
            pytest.param(Position(Timestamp(7, 7), {"_data": "82", "_typeBits": b"\x82\x00\xff"}), id="token with type bits"),
        ],
    )
    async def test_it_comes_back_after_a_restart(
        self, path: Path, clock: FakeClock, metrics: Metrics, position: Position
    ) -> None:
        first = SqliteOutbox(path, clock=clock, metrics=metrics)
        await first.append(commit(position=position))
        await first.close()
        second = SqliteOutbox(path, clock=clock, metrics=metrics)
        try:
            assert await second.position() == position
        finally:
            await second.close()

    async def test_a_jump_moves_the_position_and_drops_states_but_nothing_owed(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(event("m1"), intent("s1", "room2"), states=[StateRow("room", "r", {"a": 1})]))
        target = Position(Timestamp(9, 1))
        await outbox.jump(target)
        assert await outbox.position() == target
        assert await outbox.load_all_states("room") == {}
        assert await drain(outbox) == ["m1"]
        assert [waiting.event_id for waiting in await outbox.waiting_intents()] == ["s1"]


class TestStates:
    async def test_dates_come_back_aware_and_other_values_as_they_were(self, outbox: SqliteOutbox) -> None:
        elsewhere = timezone(timedelta(hours=5, minutes=30))
        document = {
            "_id": bson.ObjectId("65a000000000000000000001"),
            "ts": datetime(2026, 11, 23, 13, 30, 0, 123000, tzinfo=elsewhere),
            "nested": {"list": [1, 2.5, None, True, "Grüße 👋"], "bytes": b"\x00\xff"},
            "time": Timestamp(4, 5),
        }
        await outbox.append(commit(states=[StateRow("room", "r", document)]))
        (loaded,) = (await outbox.load_states("room", ["r"])).values()
        assert loaded == document
        assert loaded["ts"] == datetime(2026, 11, 23, 8, 0, 0, 123000, tzinfo=UTC)
        assert loaded["ts"].tzinfo is not None

    async def test_a_date_that_python_cannot_hold_survives(self, outbox: SqliteOutbox) -> None:
        far = bson.DatetimeMS(2**60)
        await outbox.append(commit(states=[StateRow("room", "r", {"ts": far})]))
        assert await outbox.load_states("room", ["r"]) == {"r": {"ts": far}}

    async def test_the_last_document_counts_and_none_forgets(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(states=[StateRow("room", "r", {"a": 1}), StateRow("room", "r", {"a": 2})]))
        assert await outbox.load_states("room", ["r"]) == {"r": {"a": 2}}
        await outbox.append(commit(states=[StateRow("room", "r", None), StateRow("room", "unknown", None)]))
        assert await outbox.load_states("room", ["r"]) == {}

    async def test_kinds_do_not_mix(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(states=[StateRow("room", "x", {"a": 1}), StateRow("visitor", "x", {"a": 2})]))
        assert await outbox.load_states("room", ["x"]) == {"x": {"a": 1}}
        assert await outbox.load_all_states("visitor") == {"x": {"a": 2}}

    async def test_many_are_loaded_at_once(self, outbox: SqliteOutbox) -> None:
        await outbox.append(commit(states=[StateRow("room", f"r{number}", {"n": number}) for number in range(1201)]))
        loaded = await outbox.load_states("room", [f"r{number}" for number in range(1500)])
        assert loaded == {f"r{number}": {"n": number} for number in range(1201)}
        assert await outbox.load_states("room", []) == {}


async def test_an_endpoint_that_joins_an_intent_in_another_shape_waits_for_its_own_body(outbox: SqliteOutbox, path: Path) -> None:
    """As a backfill does for a new endpoint while the event is being composed for the others."""
    at = Timestamp(1_700_000_000, 3)
    await outbox.append(commit(intent("s1", completed=at)))
    await outbox.add([intent("s1", completed=at, endpoints={"archive": Profile.NATIVE})])
    await outbox.composed("s1", {Profile.GUIDE: Body(b"guide")})
    assert look(path, "SELECT endpoint, state FROM deliveries ORDER BY endpoint") == [("archive", "intent"), ("crm", "pending")]
    (left,) = await outbox.complete_intents(10)
    assert left.profiles == (Profile.NATIVE,)
    await outbox.composed("s1", {Profile.NATIVE: Body(b"native")})
    assert look(path, "SELECT DISTINCT state FROM deliveries") == ["pending"]
    assert await outbox.complete_intents(10) == []
