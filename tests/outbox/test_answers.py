"""The answers of an endpoint that later payloads of the session return."""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from daemon.metrics import Metrics
from daemon.model import Answered, Body, Dead, Delivered, Delivery, Profile, RetryAt, Verdict
from daemon.outbox.prune import Place, Retention
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import START, FakeClock
from tests.outbox.events import OK, REFUSED, TWO, commit, event, look, settle

DAY = 86_400


async def claim(outbox: SqliteOutbox, endpoint: str = "crm") -> Delivery:
    (delivery,), _ = await outbox.claim(endpoint, 1, 1)
    return delivery


async def deliver(outbox: SqliteOutbox, answer: bytes | None, endpoint: str = "crm") -> Delivery:
    delivery = await claim(outbox, endpoint)
    await settle(outbox, delivery, OK, Delivered(), answer)
    return delivery


async def test_the_last_answer_comes_with_the_next_delivery(outbox: SqliteOutbox) -> None:
    await outbox.append(commit(*(event(f"m{number}") for number in range(5))))
    answers = [b'"one"', '{"ü":[1]}'.encode(), None, b'"three"', None]
    found = [(await deliver(outbox, answer)).answer for answer in answers]
    assert found == [None, answers[0], answers[1], answers[1], answers[3]]


async def test_an_empty_answer_takes_the_earlier_one_away(outbox: SqliteOutbox) -> None:
    await outbox.append(commit(event("m1"), event("m2"), event("m3")))
    assert [(await deliver(outbox, answer)).answer for answer in (b'"one"', b"", None)] == [None, b'"one"', None]


@pytest.mark.parametrize("verdict", [RetryAt(START), Dead("enough")], ids=["tried again", "dead"])
async def test_only_a_delivery_leaves_an_answer(outbox: SqliteOutbox, path: Path, verdict: Verdict) -> None:
    await outbox.append(commit(event("m1"), event("m2")))
    await settle(outbox, await claim(outbox), Answered(500, b"oops", 0.1), verdict, b'"oops"')
    assert look(path, "SELECT count(*) FROM answers") == [0]
    assert (await claim(outbox)).answer is None


async def test_it_belongs_to_one_endpoint_and_one_session(outbox: SqliteOutbox) -> None:
    await outbox.append(commit(event("a1", "a", endpoints=TWO), event("b1", "b", endpoints=TWO)))
    await deliver(outbox, b'"of crm in a"')
    await deliver(outbox, b'"of crm in b"')
    await deliver(outbox, b'"of archive in a"', "archive")
    await outbox.append(commit(event("a2", "a", endpoints=TWO), event("b2", "b", endpoints=TWO), event("c1", "c", endpoints=TWO)))
    assert [(await deliver(outbox, None)).answer for _ in range(3)] == [b'"of crm in a"', b'"of crm in b"', None]
    found = {(one := await deliver(outbox, None, "archive")).event_id: one.answer for _ in range(4)}
    assert found == {"b1": None, "a2": b'"of archive in a"', "b2": None, "c1": None}


def overwrite(path: Path, answer: bytes) -> None:
    """Another answer arrives, whatever the way."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("INSERT OR REPLACE INTO answers VALUES ('crm', 'room', ?, 0)", [answer])
    connection.close()


@pytest.mark.parametrize("first", [None, b'"first"'], ids=["none", "an answer"])
async def test_from_the_first_attempt_on_it_stays(
    outbox: SqliteOutbox, path: Path, clock: FakeClock, first: bytes | None
) -> None:
    """Every attempt of an event sends the same bytes."""
    await outbox.append(commit(event("m0"), event("m1"), event("m2")))
    await deliver(outbox, first)
    for _ in range(3):
        delivery = await claim(outbox)
        assert (delivery.event_id, delivery.answer) == ("m1", first)
        overwrite(path, b'"later"')
        await settle(outbox, delivery, REFUSED, RetryAt(clock.now() + timedelta(seconds=10)))
        clock.advance(10)
    assert (await deliver(outbox, None)).answer == first
    assert (await claim(outbox)).answer == b'"later"'


@pytest.mark.parametrize("first", [None, b'"first"'], ids=["none", "an answer"])
async def test_it_stays_over_a_restart_too(path: Path, clock: FakeClock, metrics: Metrics, first: bytes | None) -> None:
    before = SqliteOutbox(path, clock=clock, metrics=metrics)
    await before.append(commit(event("m0"), event("m1"), event("m2")))
    await deliver(before, first)
    await claim(before)
    await before.close()
    overwrite(path, b'"later"')

    after = SqliteOutbox(path, clock=clock, metrics=metrics)
    try:
        assert await after.recover() == 1
        again = await deliver(after, None)
        assert (again.event_id, again.attempt, again.answer) == ("m1", 2, first)
        assert (await claim(after)).answer == b'"later"', "kept for those that were not tried yet"
    finally:
        await after.close()


async def test_the_place_for_it_comes_back_with_the_body(outbox: SqliteOutbox) -> None:
    places = {"m1": (7, 7), "m2": (3, 20), "m3": None}
    for event_id, place in places.items():
        body = Body(b'{"a":"b","c":"d"}', ((5, "room", "user", "file"),), place)
        await outbox.append(commit(event(event_id)._replace(bodies={Profile.GUIDE: body})))
        delivery = await deliver(outbox, None)
        assert (delivery.event_id, delivery.body) == (event_id, body)


async def test_it_is_forgotten_with_the_state_of_its_room(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    keep = Retention(delivered_s=7 * DAY, dead_s=30 * DAY, ids_s=90 * DAY, state_s=60 * DAY)
    await outbox.append(commit(event("m1")))
    await deliver(outbox, b'"one"')
    for days, left in ((59, 1), (2, 0)):
        clock.advance(days * DAY)
        place: Place | None = Place()
        while place is not None:
            place = await outbox.prune(keep, place)
        assert look(path, "SELECT count(*) FROM answers") == [left]
