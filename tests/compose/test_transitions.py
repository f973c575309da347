from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from daemon.compose import transitions
from daemon.model import Change
from tests.compose.build import (
    MESSAGES,
    ROOMS,
    SYSTEM_TYPES,
    Json,
    agent_message,
    closing,
    closing_message,
    deletion,
    edit,
    insert,
    message,
    message_events,
    milliseconds,
    moment,
    reopening,
    replacement,
    room,
    room_events,
    served_by,
    taking,
    update,
)

TAKEN = "LivechatSessionTaken"
CLOSED: Json = {"closedAt": moment(20), "closer": "user"}


def closed_room(**more: Any) -> Json:
    found = room(**CLOSED, **more)
    del found["open"]
    return found


# Rooms: what happens.


def test_a_new_room_starts_a_session() -> None:
    assert room_events(insert(ROOMS, room()), room()) == [("LivechatSessionStart", "LivechatSessionStart:room1")]


def taken(change: Change, after: Json) -> list[str]:
    return [id_ for type_, id_ in room_events(change, after) if type_ == TAKEN]


@pytest.mark.parametrize(
    ("sets", "after"),
    [
        ({"servedBy": served_by(5)}, room(servedBy=served_by(5))),
        ({"servedBy": served_by(5), "queuedAt": moment(1), "metrics.x": 1}, room(servedBy=served_by(5))),
        ({"servedBy._id": "agent1", "servedBy.ts": moment(5)}, room(servedBy=served_by(5))),
        ({"servedBy.ts": moment(5)}, room(servedBy=served_by(5))),
        ({"servedBy": served_by(5), "departmentId": "department2"}, room(servedBy=served_by(5), departmentId="department2")),
        ({"servedBy": served_by(5)}, room(servedBy=served_by(5), closedAt=moment(60))),
        ({"servedBy": served_by(5)}, room(servedBy=served_by(5), open=False)),
        ({"servedBy": served_by(5)}, {**room(servedBy=served_by(5)), "closedAt": None}),
    ],
    ids=[
        "assigned", "with more", "member by member", "the same agent again", "with a department", "seeded later, closed since",
        "open is false", "closedAt is null",
    ],
)  # fmt: skip
def test_an_assigned_agent_takes_the_session(sets: Json, after: Json) -> None:
    assert taken(update(ROOMS, "room1", sets, seconds=5), after) == [f"{TAKEN}:room1:agent1:{milliseconds(5)}"]


@pytest.mark.parametrize(
    ("seconds", "happens"), [(19.999, True), (20, False), (21, False)], ids=["just before", "at the same time", "after"]
)
def test_a_room_is_closed_from_its_closing_time_on(seconds: float, happens: bool) -> None:
    change = update(ROOMS, "room1", {"servedBy": served_by(5)}, seconds=seconds)

    assert bool(taken(change, closed_room(servedBy=served_by(5)))) is happens


def test_a_reopened_room_can_be_taken_again() -> None:
    assert taken(taking(30), room(servedBy=served_by(30))) == [f"{TAKEN}:room1:agent1:{milliseconds(30)}"]


def test_each_agent_and_each_time_is_an_event_of_its_own() -> None:
    ids = {
        *taken(taking(5), room(servedBy=served_by(5))),
        *taken(taking(6), room(servedBy=served_by(6))),
        *taken(taking(5, "agent2", "jonas"), room(servedBy=served_by(5, "agent2", "jonas"))),
    }

    assert len(ids) == 3


def test_a_closed_room_ends_the_session() -> None:
    assert room_events(closing(20), closed_room()) == [("LivechatSession", f"LivechatSession:room1:{milliseconds(20)}")]


def test_the_time_of_the_close_is_that_of_the_change_and_not_of_the_state() -> None:
    seeded_later = {**closed_room(), "closedAt": moment(99)}

    assert room_events(closing(20), seeded_later) == [("LivechatSession", f"LivechatSession:room1:{milliseconds(20)}")]


def test_a_room_taken_and_closed_at_once_ends_only() -> None:
    change = update(ROOMS, "room1", {"servedBy": served_by(20), "closedAt": moment(20)}, ["open"], seconds=20)

    types = [type_ for type_, _ in room_events(change, closed_room(servedBy=served_by(20)))]
    assert "LivechatSession" in types
    assert TAKEN not in types


def test_two_closes_are_two_events() -> None:
    assert room_events(closing(20), closed_room()) != room_events(closing(40), {**closed_room(), "closedAt": moment(40)})


def test_the_same_change_gives_the_same_ids_again() -> None:
    assert room_events(closing(20), closed_room()) == room_events(closing(20), closed_room())


# Rooms: what does not.


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (update(ROOMS, "room1", seconds=5), room()),
        (update(ROOMS, "room1", seconds=25), closed_room()),
        (update(ROOMS, "room1", {"v.status": "away"}, seconds=5), room()),
        (update(ROOMS, "room1", {"v.lastMessageTs": moment(5), "waitingResponse": True}, seconds=5), room()),
        (update(ROOMS, "room1", {"lm": moment(5), "lastMessage": message(), "msgs": 1}, seconds=5), room(lm=moment(5))),
        (update(ROOMS, "room1", {"metrics.reaction": {}, "responseBy": {}}, ["waitingResponse"], seconds=5), room()),
        (update(ROOMS, "room1", {"topic": "Parcel", "tags": ["a"], "livechatData": {}}, seconds=5), room()),
        (update(ROOMS, "room1", {"crmData": "{}"}, seconds=5), room()),
        (update(ROOMS, "room1", {"crmData": "{}"}, seconds=25), closed_room()),
        (update(ROOMS, "room1", {"usersCount": 1, "metrics.visitorInactivity": 3}, seconds=25), closed_room()),
        (update(ROOMS, "room1", {}, ["open"], seconds=5), room()),
        (update(ROOMS, "room1", {"closedAt": moment(20)}, seconds=20), closed_room()),
        (update(ROOMS, "room1", {"open": False, "closedAt": moment(20)}, seconds=20), closed_room(open=False)),
        (update(ROOMS, "room1", {"onHold": True}, seconds=5), room()),
        (deletion(ROOMS, "room1", 5), {}),
        (replacement(ROOMS, room(servedBy=served_by(5)), 5), room(servedBy=served_by(5))),
    ],
    ids=[
        "bare _updatedAt", "bare _updatedAt when closed", "visitor's status", "analytics", "last message", "response",
        "edit of an open room", "crmData", "crmData when closed", "after the close", "open removed without closedAt",
        "closedAt without open", "open set to false", "on hold", "deleted", "replaced",
    ],
)  # fmt: skip
def test_a_change_of_a_room_that_means_nothing(change: Change, after: Json) -> None:
    assert room_events(change, after) == []


@pytest.mark.parametrize(
    ("change", "after"),
    [
        (update(ROOMS, "room1", {}, ["servedBy"], seconds=5), room()),
        (update(ROOMS, "room1", {}, ["servedBy._id"], seconds=5), room(servedBy={})),
        (update(ROOMS, "room1", {"servedBy": None}, seconds=5), room(servedBy=None)),
        (update(ROOMS, "room1", {"v.servedBy": {}, "servedByHistory": []}, seconds=5), room(servedBy=served_by(1))),
        (update(ROOMS, "room1", {"lm": moment(5)}, seconds=5), room(servedBy=served_by(5))),
        (reopening(30), room()),
        (update(ROOMS, "room1", {"servedBy": served_by(25)}, seconds=25), closed_room(servedBy=served_by(25))),
        (update(ROOMS, "room1", {"servedBy.username": "new"}, seconds=25), closed_room(servedBy=served_by(5))),
        (closing(20), closed_room(servedBy=served_by(5))),
    ],
    ids=[
        "removed", "removed inside", "null", "other fields", "served, but not now", "reopened", "on a closed room",
        "renamed on a closed room", "closing",
    ],
)  # fmt: skip
def test_no_agent_took_the_session(change: Change, after: Json) -> None:
    assert taken(change, after) == []


# Messages.


@pytest.mark.parametrize(
    "document",
    [
        message(),
        message(text=""),
        message(t=None),
        message(t=""),
        message(_hidden=False),
        message(tmid="thread1"),
        agent_message(),
        agent_message(bot={"i": "x"}),
        message(file={"_id": "f1"}, attachments=[]),
    ],
    ids=["visitor", "empty", "null type", "empty type", "not hidden", "thread", "agent", "bot", "file"],
)
def test_a_new_message_is_one_event(document: Json) -> None:
    assert message_events(insert(MESSAGES, document), document) == [("Message", f"Message:{document['_id']}")]


@pytest.mark.parametrize("kind", [*SYSTEM_TYPES, "livechat_navigation_history", "livechat-close", "anything"])
def test_a_system_message_is_none(kind: str) -> None:
    document = message(t=kind)

    assert message_events(insert(MESSAGES, document), document) == []
    changed = {**document, "editedAt": moment(5)}
    assert message_events(edit("message1", "x", 5), changed) == []


def test_a_hidden_message_is_none() -> None:
    document = message(_hidden=True)

    assert message_events(insert(MESSAGES, document), document) == []
    assert message_events(edit("message1", "x", 5), {**document, "editedAt": moment(5)}) == []


def test_each_edit_is_an_event_of_its_own() -> None:
    after = message(text="x", editedAt=moment(5))

    assert message_events(edit("message1", "x", 5), after) == [("Message", f"Message:message1:{milliseconds(5)}")]
    assert message_events(edit("message1", "x", 6), after) == [("Message", f"Message:message1:{milliseconds(6)}")]


@pytest.mark.parametrize(
    ("change", "edited"),
    [
        (edit("message1", "x", 5), True),
        (update(MESSAGES, "message1", {"editedAt": moment(5), "editedBy": {}, "attachments": []}), True),
        (update(MESSAGES, "message1", {"msg": "x", "editedAt": moment(5), "_hidden": False}), True),
        (update(MESSAGES, "message1", {"t": "rm", "msg": "", "urls": [], "editedAt": moment(5)}, ["md", "blocks"]), False),
        (update(MESSAGES, "message1", {"_hidden": True, "editedAt": moment(5)}), False),
        (update(MESSAGES, "message1", {"_hidden": True}), False),
        (update(MESSAGES, "message1", {"urls": [{"url": "https://example.org", "meta": {}}]}), False),
        (update(MESSAGES, "message1", {"urls.0.meta": {"pageTitle": "x"}}), False),
        (update(MESSAGES, "message1", {}, ["unread"]), False),
        (update(MESSAGES, "message1", {"translations": {"de": "x"}}), False),
        (update(MESSAGES, "message1", {"reactions": {":+1:": {}}}), False),
        (update(MESSAGES, "message1", {"pinned": True, "pinnedAt": moment(5), "pinnedBy": {}}), False),
        (update(MESSAGES, "message1", {"starred": [{"_id": "agent1"}]}), False),
        (update(MESSAGES, "message1", {"rid": "room1"}, ["expireAt"]), False),
        (update(MESSAGES, "message1", {"tcount": 1, "tlm": moment(5)}), False),
        (update(MESSAGES, "message1", {}, ["editedAt"]), False),
        (update(MESSAGES, "message1"), False),
        (insert(MESSAGES, message(editedAt=moment(5))), False),
        (replacement(MESSAGES, message(editedAt=moment(5))), False),
        (deletion(MESSAGES, "message1"), False),
    ],
    ids=[
        "text", "attachments", "shown", "deleted", "hidden", "hidden only", "link preview", "link preview inside", "read receipt",
        "translation", "reaction", "pin", "star", "page view gets its room", "thread answer", "editedAt removed",
        "bare _updatedAt", "insert", "replace", "delete",
    ],
)  # fmt: skip
def test_which_updates_are_edits(change: Change, edited: bool) -> None:
    assert transitions.is_edit(change) is edited


@pytest.mark.parametrize(
    ("document", "closes"),
    [(closing_message(), True), (message(), False), (message(t="command", msg="promptTranscript"), False), ({}, False)],
    ids=["closing", "text", "command", "nothing"],
)
def test_which_message_completes_the_close(document: Json, closes: bool) -> None:
    assert transitions.is_closing_message(document) is closes


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (datetime(1970, 1, 1, tzinfo=UTC), 0),
        (datetime(1970, 1, 1, 0, 0, 1, 999, tzinfo=UTC), 1000),
        (datetime(2026, 11, 23, 8, 0, 0, 123_999, tzinfo=UTC), 1_795_420_800_123),
        (datetime(1969, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), -1),
        (datetime(9999, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC), 253_402_300_799_999),
        (None, "None"),
        ("2026-11-23", "2026-11-23"),
    ],
    ids=["zero", "cut", "exact", "before 1970", "last", "absent", "text"],
)
def test_milliseconds_for_ids(value: object, expected: int | str) -> None:
    assert transitions.milliseconds(value) == expected
