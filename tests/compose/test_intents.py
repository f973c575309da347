from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.compose.build import begin, complete, open_intents, overdue, stamp


def waiting(*started: float) -> list[tuple[str, str, float]]:
    """An intent for each start: `intent0` of `room0`, and so on."""
    return [(f"intent{number}", f"room{number}", seconds) for number, seconds in enumerate(started)]


def ids(found: Sequence[tuple[str, object]]) -> list[str]:
    return [event_id for event_id, _ in found]


# Completed by a change.


def test_the_awaited_change_completes() -> None:
    assert complete(open_intents(("intent0", "room0", 10)), "room0") == "intent0"


def test_a_change_of_another_session_completes_nothing() -> None:
    intents = open_intents(*waiting(10))

    assert complete(intents, "room9") is None
    assert complete(intents, "room0") == "intent0"


def test_nothing_is_completed_twice() -> None:
    intents = open_intents(*waiting(10))
    complete(intents, "room0")

    assert complete(intents, "room0") is None
    assert overdue(intents, 100) == []
    assert len(intents) == 0


def test_two_closes_of_a_reopened_room_are_completed_in_their_order() -> None:
    intents = open_intents(("first", "room1", 10), ("second", "room1", 11))

    assert [complete(intents, "room1") for _ in range(3)] == ["first", "second", None]


def test_a_close_that_was_given_up_does_not_take_the_message_of_the_next() -> None:
    intents = open_intents(("first", "room1", 10))
    assert ids(overdue(intents, 20)) == ["first"]
    begin(intents, "second", "room1", 21)

    assert complete(intents, "room1") == "second"


def test_a_second_start_of_the_same_event_waits_once() -> None:
    intents = open_intents(("same", "room1", 10), ("same", "room1", 10))

    assert ids(overdue(intents, 100)) == ["same"]


# Overdue in stream time.


@pytest.mark.parametrize(
    ("read_up_to", "given_up"),
    [(10, False), (11, False), (12, False), (14, True), (3600, True)],
    ids=["at once", "within", "just within", "beyond", "after a night"],
)
def test_overdue_when_the_stream_was_read_beyond(read_up_to: float, given_up: bool) -> None:
    assert bool(overdue(open_intents(*waiting(10)), read_up_to)) is given_up


@pytest.mark.parametrize("settle_s", [0, 0.5, 2, 60], ids="{}s".format)
def test_never_given_up_before_its_time(settle_s: float) -> None:
    intents = open_intents(*waiting(10), settle_s=settle_s)

    assert overdue(intents, 10 + settle_s) == []
    assert ids(overdue(intents, 12 + settle_s)) == ["intent0"]


def test_a_busy_stream_that_does_not_get_beyond_gives_up_nothing_however_long_it_takes() -> None:
    intents = open_intents(*waiting(10))

    assert [overdue(intents, 11, monotonic=hour * 3600) for hour in range(5)] == [[]] * 5


def test_what_is_given_up_is_read_as_of_a_moment_that_does_not_depend_on_how_far_the_stream_was_read() -> None:
    ((_, soon),) = overdue(open_intents(*waiting(10)), 14)
    ((_, late),) = overdue(open_intents(*waiting(10)), 3600)

    assert stamp(12) <= soon == late <= stamp(14)


def test_given_up_in_the_order_of_their_start() -> None:
    assert ids(overdue(open_intents(*waiting(10, 11, 12)), 100)) == ["intent0", "intent1", "intent2"]


def test_only_what_waited_long_enough() -> None:
    intents = open_intents(*waiting(10, 20, 11))

    assert ids(overdue(intents, 15)) == ["intent0", "intent2"]
    assert ids(overdue(intents, 100)) == ["intent1"]
    assert overdue(intents, 200) == []


# Overdue while the server has nothing more to give.


def test_idle_time_counts_from_the_first_idle_batch() -> None:
    intents = open_intents(*waiting(10))

    assert overdue(intents, 10, idle=True, monotonic=500) == []
    assert overdue(intents, 10, idle=True, monotonic=501.9) == []
    assert ids(overdue(intents, 10, idle=True, monotonic=502)) == ["intent0"]


def test_what_is_given_up_while_idle_is_never_read_as_of_before_its_start() -> None:
    intents = open_intents(*waiting(10))
    overdue(intents, 9, idle=True, monotonic=0)

    assert overdue(intents, 9, idle=True, monotonic=3) == [("intent0", stamp(10))]


def test_time_passes_for_each_on_its_own() -> None:
    intents = open_intents(*waiting(10))
    overdue(intents, 10, idle=True, monotonic=0)
    begin(intents, "later", "room9", 11)
    overdue(intents, 11, idle=True, monotonic=1.5)

    assert ids(overdue(intents, 11, idle=True, monotonic=2)) == ["intent0"]
    assert overdue(intents, 11, idle=True, monotonic=3) == []
    assert ids(overdue(intents, 11, idle=True, monotonic=3.5)) == ["later"]


def test_the_awaited_change_still_counts_while_idle() -> None:
    intents = open_intents(*waiting(10))
    overdue(intents, 10, idle=True, monotonic=0)

    assert complete(intents, "room0") == "intent0"
    assert overdue(intents, 11, idle=True, monotonic=100) == []
