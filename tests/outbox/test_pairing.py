"""What can arrive by two ways counts once: the first arrival is the event."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.metrics import Metrics
from daemon.model import Delivered, NewEvent, Pairing, Profile
from daemon.outbox.prune import Place, Retention
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import START, FakeClock
from tests.outbox.events import OK, ONLY_CRM, TWO, commit, event, look, settle

DAY = 86_400
WINDOW_S = 600
TEXTS = itertools.count()


def arrival(event_id: str, seconds: float = 0, *, key: str = "lamp", endpoints: Mapping[str, Profile] = ONLY_CRM) -> NewEvent:
    """`c1` came by the channel, `i1` by the intake."""
    way = {"c": "channel", "i": "intake"}[event_id[0]]
    paired = Pairing(way, key, START + timedelta(seconds=seconds))
    return event(event_id, f"offline:{event_id}", endpoints=endpoints)._replace(pairing=paired)


async def arrive(outbox: SqliteOutbox, *arrivals: NewEvent) -> None:
    """Posts come with a batch of changes, webhooks by themselves."""
    for one in arrivals:
        if one.id.startswith("c"):
            await outbox.append(commit(one))
        else:
            await outbox.add([one])


def kept(path: Path) -> list[str]:
    return look(path, "SELECT id FROM events ORDER BY sequence")


@pytest.mark.parametrize(
    ("arrivals", "expected"),
    [
        pytest.param([arrival("c1"), arrival("i1", -1)], ["c1"], id="post first"),
        pytest.param([arrival("i1"), arrival("c1", 1)], ["i1"], id="webhook first"),
        pytest.param([arrival("i1"), arrival("c1", key="vase")], ["i1", "c1"], id="different texts"),
        pytest.param([arrival("c1"), arrival("c2", 1)], ["c1", "c2"], id="two posts"),
        pytest.param([arrival("i1"), arrival("i2", 1)], ["i1", "i2"], id="two webhooks"),
        pytest.param([arrival("c1"), arrival("c2", 5), arrival("i1"), arrival("i2", 5)], ["c1", "c2"], id="two posts first"),
        pytest.param([arrival("i1"), arrival("i2", 5), arrival("c1"), arrival("c2", 5)], ["i1", "i2"], id="two webhooks first"),
        pytest.param([arrival("c1"), arrival("i1"), arrival("c2", 5), arrival("i2", 5)], ["c1", "c2"], id="post, webhook, twice"),
        pytest.param([arrival("c1"), arrival("i1"), arrival("i2", 5), arrival("c2", 5)], ["c1", "i2"], id="each first once"),
        pytest.param([arrival("c1"), arrival("c2", 5), arrival("i2", 5), arrival("i1")], ["c1", "c2"], id="out of order"),
        pytest.param([arrival("c1"), arrival("i1"), arrival("i2", 5)], ["c1", "i2"], id="one post, two webhooks"),
        pytest.param([arrival("c1"), arrival("c2", 5), arrival("i1")], ["c1", "c2"], id="two posts, one webhook"),
        pytest.param([arrival("c1"), arrival("i1", WINDOW_S)], ["c1"], id="just within the window"),
        pytest.param([arrival("c1"), arrival("i1", WINDOW_S + 1)], ["c1", "i1"], id="just outside the window"),
        pytest.param([arrival("i1"), arrival("c1", -WINDOW_S - 1)], ["i1", "c1"], id="outside, the other way round"),
        pytest.param(
            [arrival("c1"), arrival("c2", 2 * WINDOW_S), arrival("i2", 2 * WINDOW_S)], ["c1", "c2"], id="the one within"
        ),
    ],
)
async def test_what_counts(outbox: SqliteOutbox, path: Path, arrivals: list[NewEvent], expected: list[str]) -> None:
    await arrive(outbox, *arrivals)
    assert kept(path) == expected

    await arrive(outbox, *arrivals, *reversed(arrivals))
    assert kept(path) == expected, "changes that are read again and webhooks that are repeated change nothing"


async def test_in_one_commit(outbox: SqliteOutbox, path: Path) -> None:
    await outbox.append(commit(arrival("c1"), arrival("i1"), arrival("i2", 1), arrival("c2", 1)))
    assert kept(path) == ["c1", "i2"]


async def test_a_restart_in_between(path: Path, clock: FakeClock, metrics: Metrics) -> None:
    for one in (arrival("c1"), arrival("i1"), arrival("i2", 5), arrival("c1"), arrival("c2", 5)):
        opened = SqliteOutbox(path, clock=clock, metrics=metrics)
        await arrive(opened, one)
        await opened.close()
    assert kept(path) == ["c1", "i2"]


async def test_the_first_is_delivered_and_its_twin_is_not(outbox: SqliteOutbox) -> None:
    await arrive(outbox, arrival("c1", endpoints=TWO), arrival("i1", endpoints=TWO))
    for endpoint in TWO:
        (delivery,), _ = await outbox.claim(endpoint, 10, 10)
        assert delivery.event_id == "c1"
        await settle(outbox, delivery, OK, Delivered())
    await arrive(outbox, arrival("i1", endpoints=TWO), arrival("c1", endpoints=TWO))
    for endpoint in TWO:
        assert await outbox.claim(endpoint, 10, 10) == ([], None)


async def test_a_dropped_twin_leaves_no_trace_among_the_deliveries(outbox: SqliteOutbox, path: Path) -> None:
    await arrive(outbox, arrival("c1"), arrival("i1"))
    for table in ("events", "deliveries", "bodies", "lanes"):
        assert look(path, f"SELECT count(*) FROM {table}") == [1], table  # noqa: S608 - the names above


async def test_a_new_endpoint_of_a_known_first_arrival_gets_it(outbox: SqliteOutbox) -> None:
    await arrive(outbox, arrival("c1"), arrival("i1"))
    await arrive(outbox, arrival("c1", endpoints=TWO))
    (delivery,), _ = await outbox.claim("archive", 10, 10)
    assert delivery.event_id == "c1"


async def test_the_first_arrival_decides_who_gets_it(outbox: SqliteOutbox, path: Path) -> None:
    """The intake does not know the department and is let through by every filter; a channel post that came first does."""
    await arrive(outbox, arrival("c1"), arrival("i1", endpoints=TWO))
    assert look(path, "SELECT endpoint FROM deliveries") == ["crm"]


async def test_events_without_a_pairing_are_left_alone(outbox: SqliteOutbox, path: Path) -> None:
    await outbox.append(commit(event("m1"), event("m2")))
    assert kept(path) == ["m1", "m2"]
    assert look(path, "SELECT count(*) FROM arrivals") == [0]


async def test_arrivals_are_forgotten_with_the_ids(outbox: SqliteOutbox, path: Path, clock: FakeClock) -> None:
    keep = Retention(delivered_s=7 * DAY, dead_s=30 * DAY, ids_s=90 * DAY, state_s=60 * DAY)
    await arrive(outbox, arrival("c1"), arrival("i1"))
    for days, left in ((89, 2), (2, 0)):
        clock.advance(days * DAY)
        place: Place | None = Place()
        while place is not None:
            place = await outbox.prune(keep, place)
        assert look(path, "SELECT count(*) FROM arrivals") == [left]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), posts=st.integers(0, 4), webhooks=st.integers(0, 4))
async def test_of_equal_texts_as_many_count_as_the_busier_way_brought(
    outbox: SqliteOutbox, path: Path, data: st.DataObject, posts: int, webhooks: int
) -> None:
    """In whatever order they come and however often they are repeated."""
    text = f"text {next(TEXTS)}"
    arrivals = [arrival(f"c {text} {number}", number, key=text) for number in range(posts)]
    arrivals += [arrival(f"i {text} {number}", number, key=text) for number in range(webhooks)]
    for one in data.draw(st.permutations(arrivals)):
        await arrive(outbox, one)
        if data.draw(st.booleans()):
            await arrive(outbox, one)
    await arrive(outbox, *data.draw(st.permutations(arrivals)))
    ids = [one.id for one in arrivals]
    assert len([event_id for event_id in kept(path) if event_id in ids]) == max(posts, webhooks)
