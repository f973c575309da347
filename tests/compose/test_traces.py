"""What stored rooms and messages still tell."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.compose.traces import Stored, closing_time, traces
from daemon.compose.versions import behaviour

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
LONG_BEFORE, LONG_AFTER = NOON - timedelta(days=1), NOON + timedelta(days=1)


def at(minute: float) -> datetime:
    return NOON + timedelta(minutes=minute)


def message(id_: str, minute: float, **more: Any) -> dict[str, Any]:
    return {"_id": id_, "rid": "r", "ts": at(minute), "msg": f"text of {id_}", "u": {"_id": "v"}, **more}


def transfer(id_: str, minute: float, **data: Any) -> dict[str, Any]:
    return message(id_, minute, t="livechat_transfer_history", transferData=data)


ALICE, BOB = {"_id": "alice", "username": "alice"}, {"_id": "bob", "username": "bob"}
TO_SALES = {"scope": "department", "previousDepartment": "support", "nextDepartment": {"_id": "sales", "name": "Sales"}}
ROOM = {"_id": "r", "t": "l", "ts": at(0), "lm": at(9), "v": {"_id": "v"}, "departmentId": "sales", "open": True}
SERVED = {**ROOM, "servedBy": {**BOB, "ts": at(5)}}
CLOSED = {name: value for name, value in SERVED.items() if name != "open"} | {"closedAt": at(10), "closer": "user"}
LIFE = [
    message("m1", 1),
    transfer("t1", 3, scope="agent", transferredTo=ALICE),
    transfer("t2", 4, **TO_SALES),
    message("m2", 6, editedAt=at(7), editedBy=BOB),
    message("gone", 8, t="rm"),
    message("bye", 10.1, t="livechat-close"),
]


def told(
    room: dict[str, Any], messages: list[dict[str, Any]], since: datetime = LONG_BEFORE, until: datetime = LONG_AFTER
) -> list[str]:
    return [trace.transition.event_id for trace in traces(Stored(room, messages), since, until, behaviour(None))]


def ms(minute: float) -> int:
    return int(at(minute).timestamp() * 1000)


def test_a_whole_life_in_the_order_it_happened() -> None:
    assert told(CLOSED, LIFE) == [
        "LivechatSessionStart:r",
        "Message:m1",
        "LivechatSessionForwarded:r:t1",
        "LivechatSessionForwarded:r:t2",
        f"LivechatSessionTaken:r:bob:{ms(5)}",
        "Message:m2",
        f"Message:m2:{ms(7)}",
        f"LivechatSession:r:{ms(10)}",
    ]


@pytest.mark.parametrize(
    ("since", "until", "want"),
    [
        pytest.param(at(5), at(6), [f"LivechatSessionTaken:r:bob:{ms(5)}"], id="until is outside"),
        pytest.param(at(6), at(7), ["Message:m2"], id="since is inside"),
        pytest.param(at(7), LONG_AFTER, [f"Message:m2:{ms(7)}", f"LivechatSession:r:{ms(10)}"], id="an edit by its own time"),
        pytest.param(at(11), LONG_AFTER, [], id="nothing"),
    ],
)
def test_a_span(since: datetime, until: datetime, want: list[str]) -> None:
    assert told(CLOSED, LIFE, since, until) == want


@pytest.mark.parametrize(
    ("room", "messages", "want"),
    [
        pytest.param(ROOM, [], ["LivechatSessionStart:r"], id="waiting"),
        pytest.param(
            {**CLOSED, "open": True}, [], ["LivechatSessionStart:r", f"LivechatSessionTaken:r:bob:{ms(5)}"], id="re-opened"
        ),
        pytest.param(ROOM, [message("h", 1, _hidden=True)], ["LivechatSessionStart:r"], id="hidden"),
        pytest.param(ROOM, [message("i", 1, imported=True)], ["LivechatSessionStart:r"], id="imported"),
        pytest.param(ROOM, [transfer("q", 1, scope="queue")], ["LivechatSessionStart:r"], id="back to the queue"),
        pytest.param(
            ROOM,
            [transfer("same", 1, scope="department", previousDepartment="sales", nextDepartment={"_id": "sales"})],
            ["LivechatSessionStart:r"],
            id="to the same department",
        ),
        pytest.param({**ROOM, "ts": "odd"}, [], [], id="without a time"),
    ],
)
def test_what_leaves_no_trace_is_no_event(room: dict[str, Any], messages: list[dict[str, Any]], want: list[str]) -> None:
    assert told(room, messages) == want


@pytest.mark.parametrize(
    ("minute", "want"),
    [
        pytest.param(0, {"lm": at(0), "departmentId": "support", "open": True}, id="begun"),
        pytest.param(2, {"lm": at(1), "departmentId": "support", "open": True}, id="after a message"),
        pytest.param(3.5, {"lm": at(3), "departmentId": "support", "open": True, "servedBy": ALICE}, id="given to an agent"),
        pytest.param(4.5, {"lm": at(4), "departmentId": "sales", "open": True, "servedBy": ALICE}, id="in another department"),
        pytest.param(9, {"lm": at(8), "departmentId": "sales", "open": True, "servedBy": {**BOB, "ts": at(5)}}, id="served"),
        pytest.param(
            10,
            {"lm": at(8), "departmentId": "sales", "servedBy": {**BOB, "ts": at(5)}, "closedAt": at(10), "closer": "user"},
            id="closed",
        ),
    ],
)
def test_a_room_as_it_was(minute: float, want: dict[str, Any]) -> None:
    room = Stored(CLOSED, LIFE).as_of(at(minute))
    assert {name: value for name, value in room.items() if name not in ("_id", "t", "ts", "v")} == want


def test_a_forward_tells_both_sides() -> None:
    found = {
        trace.transition.event_id: trace.transition for trace in traces(Stored(CLOSED, LIFE), at(4), at(4.1), behaviour(None))
    }
    transition = found["LivechatSessionForwarded:r:t2"]
    assert transition.extra == {"oldDepartmentId": "support"}
    assert transition.departments == ("support",)
    assert (transition.room["departmentId"], transition.room["lm"]) == ("sales", at(4))


def test_the_closing_message_ends_a_transcript() -> None:
    assert closing_time(Stored(CLOSED, LIFE)) == at(10.1)
    assert closing_time(Stored(CLOSED, [])) is None
