"""Forgetting: what is old enough goes, what is owed stays, whatever stands in front of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from daemon.model import Dead, Delivered, RetryAt, StateRow
from daemon.outbox.prune import Place, Retention
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import FakeClock
from tests.outbox.events import OK, REFUSED, TWO, bodies, commit, event, intent, look, settle, skipped

DAY = 86400.0
KEEP = Retention(delivered_s=7 * DAY, dead_s=30 * DAY, ids_s=90 * DAY, state_s=60 * DAY)
FOR_EVER = 10_000 * DAY


async def prune(outbox: SqliteOutbox, retention: Retention = KEEP) -> int:
    """A whole round; gives its number of pages."""
    place = Place()
    for pages in range(1, 100):
        following = await outbox.prune(retention, place)
        if following is None:
            return pages
        place = following
    raise AssertionError("the round does not end")


async def settle_all(outbox: SqliteOutbox, *, dead: bool = False, endpoint: str = "crm") -> None:
    while True:
        claimed, _ = await outbox.claim(endpoint, 1000, 1000)
        if not claimed:
            return
        for delivery in claimed:
            if dead:
                await settle(outbox, delivery, REFUSED, Dead("no"))
            else:
                await settle(outbox, delivery, OK, Delivered())


def kept(path: Path) -> dict[str, int]:
    tables = ("events", "deliveries", "bodies", "attempts")
    return {table: look(path, f"SELECT count(*) FROM {table}")[0] for table in tables}  # noqa: S608 - from the line above


ALL = {"events": 1, "deliveries": 1, "bodies": 1, "attempts": 1}
RECORD = {"events": 1, "deliveries": 1, "bodies": 0, "attempts": 0}
NOTHING = {"events": 0, "deliveries": 0, "bodies": 0, "attempts": 0}


@pytest.mark.parametrize(
    ("dead", "days", "left"),
    [
        pytest.param(False, 6.9, ALL, id="delivered just now"),
        pytest.param(False, 7.1, RECORD, id="delivered, body old"),
        pytest.param(False, 89.9, RECORD, id="delivered, id young"),
        pytest.param(False, 90.1, NOTHING, id="delivered, id old"),
        pytest.param(True, 7.1, ALL, id="dead letters stay longer"),
        pytest.param(True, 29.9, ALL, id="dead, body young"),
        pytest.param(True, 30.1, RECORD, id="dead, body old"),
        pytest.param(True, 90.1, NOTHING, id="dead, id old"),
    ],
)
async def test_ages(outbox: SqliteOutbox, path: Path, clock: FakeClock, *, dead: bool, days: float, left: dict[str, int]) -> None:
    await outbox.append(commit(event("m1")))
    await settle_all(outbox, dead=dead)
    clock.advance(days * DAY)
    await prune(outbox)
    assert kept(path) == left


async def test_ages_count_from_when_an_event_was_settled(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    await outbox.append(commit(event("m1")))
    clock.advance(200 * DAY)
    await settle_all(outbox)
    await prune(outbox)
    assert kept(path) == ALL


async def test_what_is_owed_is_never_forgotten(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    await outbox.append(commit(event("fresh", "a"), intent("intent", "b"), event("failed", "c"), event("flying", "d")))
    for delivery in (await outbox.claim("crm", 10, 10))[0]:
        if delivery.event_id == "failed":
            await settle(outbox, delivery, REFUSED, RetryAt(clock.now()))
    before = kept(path)
    clock.advance(FOR_EVER)
    await prune(outbox)
    assert kept(path) == before
    await outbox.composed("intent", bodies("intent"))
    await outbox.recover()
    claimed, _ = await outbox.claim("crm", 10, 10)
    assert {delivery.event_id for delivery in claimed} == {"fresh", "intent", "failed", "flying"}


async def test_a_body_stays_while_one_endpoint_is_owed(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    await outbox.append(commit(event("m1", endpoints=TWO)))
    await settle_all(outbox, endpoint="crm")
    clock.advance(FOR_EVER)
    await prune(outbox)
    (delivery,), _ = await outbox.claim("archive", 10, 10)
    assert delivery.body.content == b"m1 native"
    assert look(path, "SELECT count(*) FROM events") == [1]


async def test_a_body_stays_as_long_as_the_endpoint_that_keeps_it_longest(
    outbox: SqliteOutbox, path: Path, clock: FakeClock
) -> None:
    await outbox.append(commit(event("m1", endpoints=TWO)))
    await settle_all(outbox, endpoint="crm")
    await settle_all(outbox, endpoint="archive", dead=True)
    clock.advance(8 * DAY)
    await prune(outbox)
    assert look(path, "SELECT count(*) FROM bodies") == [2]
    clock.advance(23 * DAY)
    await prune(outbox)
    assert look(path, "SELECT count(*) FROM bodies") == [0]


async def test_a_remembered_id_is_not_delivered_again_and_a_forgotten_one_is(outbox: SqliteOutbox, clock: FakeClock) -> None:
    await outbox.append(commit(event("m1")))
    (first,), _ = await outbox.claim("crm", 10, 10)
    await settle(outbox, first, OK, Delivered())
    clock.advance(30 * DAY)
    await prune(outbox)
    await outbox.append(commit(event("m1")))
    assert (await outbox.claim("crm", 10, 10))[0] == []
    clock.advance(61 * DAY)
    await prune(outbox)
    await outbox.append(commit(event("m1")))
    (again,), _ = await outbox.claim("crm", 10, 10)
    assert again.sequence > first.sequence, "a sequence is never used again"


async def test_a_new_endpoint_of_an_event_whose_body_was_forgotten_gets_it(outbox: SqliteOutbox, clock: FakeClock) -> None:
    await outbox.append(commit(event("m1")))
    await settle_all(outbox)
    clock.advance(8 * DAY)
    await prune(outbox)
    await outbox.append(commit(event("m1", endpoints=TWO)))
    (delivery,), _ = await outbox.claim("archive", 10, 10)
    assert delivery.body.content == b"m1 native"


async def test_skipped_changes_are_kept_like_dead_letters(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    await outbox.append(commit(skipped("c1", "odd"), intent("s1", "b")))
    await outbox.skip("s1", "odd too")
    clock.advance(29 * DAY)
    await prune(outbox)
    assert look(path, "SELECT content FROM bodies") == [b"context of s1"]
    clock.advance(62 * DAY)
    await prune(outbox)
    assert kept(path) == NOTHING


async def test_states_go_by_their_last_change_but_those_of_the_workspace_stay(outbox: SqliteOutbox, clock: FakeClock) -> None:
    kinds = ("room", "visitor", "agent", "setting", "department", "server")
    await outbox.append(commit(states=[StateRow(kind, "old", {"a": 1}) for kind in kinds]))
    clock.advance(59 * DAY)
    await outbox.append(commit(states=[StateRow("room", "young", {"a": 1})]))
    await prune(outbox)
    assert set(await outbox.load_all_states("room")) == {"old", "young"}
    clock.advance(2 * DAY)
    await prune(outbox)
    left = {kind: set(await outbox.load_all_states(kind)) for kind in kinds}
    stay = {"setting": {"old"}, "department": {"old"}, "server": {"old"}}
    assert left == {"room": {"young"}, "visitor": set(), "agent": set(), **stay}


async def test_unsettled_rows_in_front_hide_nothing_behind_them(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    """More than two pages, the first of them all owed: a round sees the whole outbox."""
    owed, settled = 700, 800
    await outbox.append(commit(*(event(f"owed{number}", f"owed{number}") for number in range(owed))))
    await outbox.claim("crm", 1000, 1000)  # in flight for ever
    await outbox.append(commit(*(event(f"done{number}", f"done{number}") for number in range(settled))))
    claimed, _ = await outbox.claim("crm", 1000, 1000)
    for delivery in claimed:
        await settle(outbox, delivery, OK, Delivered())
    clock.advance(8 * DAY)
    assert await prune(outbox) >= 3
    assert kept(path) == {"events": owed + settled, "deliveries": owed + settled, "bodies": owed, "attempts": 0}
    clock.advance(90 * DAY)
    assert await prune(outbox) >= 3
    assert kept(path) == {"events": owed, "deliveries": owed, "bodies": owed, "attempts": 0}
    assert await outbox.recover() == owed


async def test_more_old_states_than_a_page_all_go(outbox: SqliteOutbox, clock: FakeClock) -> None:
    await outbox.append(commit(states=[StateRow("room", f"r{number}", {}) for number in range(1100)]))
    clock.advance(61 * DAY)
    assert await prune(outbox) >= 3
    assert await outbox.load_all_states("room") == {}


async def test_young_states_in_front_hide_no_old_ones_behind_them(outbox: SqliteOutbox, clock: FakeClock) -> None:
    first = [StateRow("room", f"first{number}", {}) for number in range(600)]
    await outbox.append(commit(states=[*first, *(StateRow("room", f"last{number}", {}) for number in range(600))]))
    clock.advance(61 * DAY)
    await outbox.append(commit(states=first))
    assert await prune(outbox) >= 3
    assert await outbox.load_all_states("room") == {row.id: {} for row in first}


async def test_a_round_ends_although_new_things_come_all_the_time(outbox: SqliteOutbox) -> None:
    place = Place()
    for number in range(20):
        await outbox.append(commit(event(f"m{number}"), states=[StateRow("room", f"r{number}", {})]))
        following = await outbox.prune(KEEP, place)
        if following is None:
            return
        place = following
    raise AssertionError("the round does not end")


async def test_an_empty_outbox_is_one_page(outbox: SqliteOutbox) -> None:
    assert await prune(outbox) == 1
    assert await prune(outbox, replace(KEEP, ids_s=0, delivered_s=0, dead_s=0, state_s=0)) == 1
