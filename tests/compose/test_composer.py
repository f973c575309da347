from __future__ import annotations

import logging
from collections.abc import Iterator, MutableMapping, Sequence
from datetime import timedelta
from typing import Any

import orjson
import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from daemon import log
from daemon.compose import states
from daemon.compose.files import with_tokens
from daemon.compose.payload import members
from daemon.errors import MongoError
from daemon.model import Change, EventType, NewEvent, Profile
from tests.compose.build import (
    CORE_EVENTS,
    DEPARTMENTS,
    MESSAGES,
    ROOMS,
    SETTINGS,
    UPLOADS,
    USERS,
    VISITORS,
    Database,
    Json,
    Workspace,
    agent,
    agent_message,
    closing,
    closing_message,
    completed,
    deletion,
    edit,
    endpoint,
    file_message,
    insert,
    message,
    milliseconds,
    moment,
    reopening,
    room,
    served_by,
    setting,
    stamp,
    taking,
    update,
    upload,
    visitor,
)

CLOSE_ID = f"LivechatSession:room1:{milliseconds(10)}"
TAKEN_ID = f"LivechatSessionTaken:room1:agent1:{milliseconds(5)}"


def chat(**more: list[Json]) -> Database:
    """A workspace with an open chat that agent1 has taken."""
    return Database(
        {
            ROOMS: [room(servedBy=served_by(0))],
            VISITORS: [visitor()],
            USERS: [agent(), agent("agent2", username="jonas.brandt", name="Jonas Brandt")],
            **more,
        }
    )


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The lines that were logged, as fields; a traceback printed for people takes half a second."""
    with capture_logs() as lines:
        yield lines


def only(events: Sequence[NewEvent]) -> NewEvent:
    (event,) = events
    return event


# What happens becomes events.


async def test_a_new_room_is_an_event_with_its_body() -> None:
    space = Workspace(Database({VISITORS: [visitor()]}))

    event = only((await space.read(insert(ROOMS, room(), 1))).events)

    assert (event.id, event.type, event.session) == ("LivechatSessionStart:room1", "LivechatSessionStart", "room1")
    assert (event.happened_at, event.skipped, event.intent) == (moment(1), None, None)
    assert event.endpoints == {"crm": Profile.NATIVE}
    content = await space.content(event.id)
    assert (content["_id"], content["messages"], content["visitor"]["username"]) == ("room1", [], "guest-42")


async def test_a_visitor_and_a_room_of_the_same_batch_are_known() -> None:
    space = Workspace()

    await space.read(insert(VISITORS, visitor()), insert(ROOMS, room(), 1), insert(MESSAGES, message(), 2))

    assert space.ids == ["LivechatSessionStart:room1", "Message:message1"]
    assert space.database.reads.count((VISITORS, {"visitor1"})) == 0


async def test_a_taken_session_lists_the_transcript_of_its_time() -> None:
    space = Workspace(Database({ROOMS: [room()], VISITORS: [visitor()], USERS: [agent()]}))

    await space.read(insert(MESSAGES, message(), 1))
    await space.read(taking(5))
    await space.read(insert(MESSAGES, agent_message(seconds=6), 6))

    content = await space.content(TAKEN_ID)
    assert [found["_id"] for found in content["messages"]] == ["message1"]
    assert content["agent"]["username"] == content["servedBy"]["username"] == "maria.keller"


async def test_what_needs_a_read_is_an_intent_that_is_complete_at_once() -> None:
    event = only((await Workspace(chat()).read(taking(5))).events)

    assert event.bodies == {}
    assert event.intent is not None
    assert (event.intent.event_id, event.intent.session) == (TAKEN_ID, "room1")
    assert event.intent.started == event.intent.completed == stamp(5)


async def test_a_message_shows_the_room_as_it_was_before_it() -> None:
    space = Workspace(chat())

    await space.read(
        insert(MESSAGES, message("one", seconds=1), 1),
        update(ROOMS, "room1", {"lm": moment(1)}, seconds=1),
        insert(MESSAGES, message("two", seconds=2), 2),
        update(ROOMS, "room1", {"lm": moment(2)}, seconds=2),
    )

    assert (await space.content("Message:one"))["lastMessageAt"] == "2026-11-23T08:00:00.000Z"
    assert (await space.content("Message:two"))["lastMessageAt"] == "2026-11-23T08:00:01.000Z"


async def test_visitors_agents_and_settings_are_as_of_the_event() -> None:
    definitions = '{"extension":{"sendToIntegrations":true}}'
    space = Workspace(chat(**{USERS: [agent(customFields={"extension": "1"})], DEPARTMENTS: [{"_id": "d1", "name": "Sales"}]}))

    await space.read(
        insert(MESSAGES, message("one"), 1),
        update(VISITORS, "visitor1", {"name": "New", "department": "d1"}, seconds=2),
        update(USERS, "agent1", {"name": "Newer", "customFields.extension": "2"}, seconds=2),
        insert(SETTINGS, setting("Accounts_CustomFields", definitions), 2),
        insert(MESSAGES, message("two"), 3),
    )

    one, two = await space.content("Message:one"), await space.content("Message:two")
    assert (one["visitor"]["name"], one["agent"]["name"], one["agent"]["customFields"]) == ("Erika Beispiel", "Maria Keller", {})
    assert (two["visitor"]["name"], two["agent"]["name"], two["agent"]["customFields"]) == ("New", "Newer", {"extension": "2"})
    assert two["visitor"]["department"] == "d1"


async def test_a_guide_names_the_visitors_department() -> None:
    database = chat(**{VISITORS: [visitor(department="d1")], DEPARTMENTS: [{"_id": "d1", "name": "Sales"}]})
    space = Workspace(database, {"crm": endpoint(profile=Profile.GUIDE)})

    await space.read(insert(MESSAGES, message(), 1), update(DEPARTMENTS, "d1", {"name": "Renamed"}, seconds=2))
    await space.read(insert(MESSAGES, message("message2"), 3))

    assert (await space.content("Message:message1", Profile.GUIDE))["visitor"]["department"] == "Sales"
    assert (await space.content("Message:message2", Profile.GUIDE))["visitor"]["department"] == "Renamed"


async def test_a_chat_that_moves_to_another_visitor_document() -> None:
    space = Workspace(chat(**{VISITORS: [visitor(), visitor("visitor2", username="guest-7")]}))

    await space.read(update(ROOMS, "room1", {"v._id": "visitor2"}, seconds=1), insert(MESSAGES, message(), 2))

    assert (await space.content("Message:message1"))["visitor"]["username"] == "guest-7"


async def test_every_profile_that_is_owed_gets_its_body() -> None:
    profiles = {"a": Profile.NATIVE, "b": Profile.GUIDE, "c": Profile.GUIDE}
    space = Workspace(chat(), {name: endpoint(profile=profile) for name, profile in profiles.items()})

    event = only((await space.read(insert(MESSAGES, message(), 1))).events)

    assert event.endpoints == profiles
    assert event.bodies.keys() == set(Profile)
    assert orjson.loads(event.bodies[Profile.GUIDE].content)["visitor"]["email"] == "erika@example.org"
    assert orjson.loads(event.bodies[Profile.NATIVE].content)["visitor"]["email"] == [{"address": "erika@example.org"}]


# What does not.


@pytest.mark.parametrize(
    "changes",
    [
        [update(ROOMS, "room1", {"lm": moment(1), "v.status": "away"}, seconds=1)],
        [insert(MESSAGES, message(t="uj"), 1)],
        [insert(MESSAGES, message(_hidden=True), 1)],
        [insert(MESSAGES, closing_message(), 1)],
        [update(MESSAGES, "old", {"t": "rm", "msg": "", "editedAt": moment(1)}, seconds=1)],
        [update(MESSAGES, "old", {"_hidden": True, "editedAt": moment(1)}, seconds=1)],
        [update(MESSAGES, "old", {"urls": []}, seconds=1)],
        [edit("system", "x", 1)],
        [edit("never stored", "x", 1)],
        [deletion(ROOMS, "room1", 1)],
        [update(VISITORS, "visitor1", {"name": "New"}, seconds=1), update(USERS, "agent1", {"name": "New"}, seconds=1)],
        [insert(ROOMS, room("channel1", t="c"), 1), insert(MESSAGES, message(rid="channel1"), 2)],
        [insert(MESSAGES, message(rid="channel9"), 1), edit("elsewhere", "x", 2)],
        [insert(MESSAGES, agent_message(rid="gone"), 1)],
        [insert(ROOMS, room("channel1", t="c", servedBy=served_by(1)), 1), update(ROOMS, "channel9", {"topic": "x"}, seconds=1)],
    ],
    ids=[
        "room fields", "system message", "hidden", "closing message of an open room", "deleted", "hidden later", "link preview",
        "edit of a system message", "edit of the unknown", "removed room", "renamed people", "message in a new channel",
        "message in a channel", "message where nobody knows", "channels",
    ],
)  # fmt: skip
async def test_nothing_happens(changes: list[Change]) -> None:
    messages = [message("old"), message("system", t="uj"), message("elsewhere", rid="channel9")]
    space = Workspace(chat(**{ROOMS: [room(), room("channel9", t="c")], MESSAGES: messages}))

    commit = await space.read(*changes)

    assert (list(commit.events), completed(commit.intent_updates)) == ([], [])


async def test_the_position_is_kept_even_when_nothing_happens() -> None:
    space = Workspace()

    assert (await space.read(seconds=7)).position.cluster_time == stamp(7)
    assert (await space.read(update(ROOMS, "unknown", seconds=8))).position.cluster_time == stamp(8)


# Who wants it.


@pytest.mark.parametrize("wanted", CORE_EVENTS[:4], ids=str)
async def test_an_endpoint_gets_only_what_it_wants(wanted: EventType) -> None:
    space = Workspace(
        Database({VISITORS: [visitor()], USERS: [agent()]}),
        {"some": endpoint([wanted]), "other": endpoint([EventType.OFFLINE_MESSAGE])},
    )

    await space.read(
        insert(ROOMS, room(), 1),
        insert(MESSAGES, message(), 2),
        taking(5),
        closing(10),
        insert(MESSAGES, closing_message(11), 11),
        seconds=100,
    )

    assert [(event.type, event.endpoints) for event in space.events] == [(wanted, {"some": Profile.NATIVE})]


async def test_a_close_that_nobody_wants_completes_nothing() -> None:
    space = Workspace(chat(), {"crm": endpoint([EventType.MESSAGE])})

    commit = await space.read(closing(10), insert(MESSAGES, closing_message(11), 11), seconds=100)

    assert (list(commit.events), completed(commit.intent_updates)) == ([], [])


# The close waits for its closing message.


async def test_a_closing_message_in_the_same_batch() -> None:
    space = Workspace(chat(**{MESSAGES: [message()]}))

    commit = await space.read(closing(10), insert(MESSAGES, closing_message(10.5), 11))

    event = only(commit.events)
    assert event.id == CLOSE_ID
    assert event.intent is not None
    assert event.intent.completed is None
    assert completed(commit.intent_updates) == [(CLOSE_ID, stamp(11), moment(10.5))]
    content = await space.content(CLOSE_ID)
    assert [found["_id"] for found in content["messages"]] == ["message1", "closing"]
    assert content["messages"][-1]["closingMessage"] is True


async def test_the_transcript_never_ends_before_the_close() -> None:
    # The closing message can carry an earlier time than the close: they are written by different calls.
    space = Workspace(chat())

    commit = await space.read(closing(10), insert(MESSAGES, closing_message(9.5), 11))

    assert [found.cut for found in completed(commit.intent_updates)] == [moment(10)]


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
async def test_a_closing_message_in_a_later_batch(restarted: bool) -> None:
    space = Workspace(chat())

    await space.read(closing(10))
    assert not space.is_complete(CLOSE_ID)
    if restarted:
        space.restart()
    commit = await space.read(insert(MESSAGES, closing_message(11), 11))

    assert [found.event_id for found in completed(commit.intent_updates)] == [CLOSE_ID]
    assert commit.events == ()
    content = await space.content(CLOSE_ID)
    assert [found["_id"] for found in content["messages"]] == ["closing"]
    assert (content["closedAt"], content["closer"]) == ("2026-11-23T08:00:10.000Z", "user")


async def test_a_close_shows_the_room_as_it_was_at_the_close() -> None:
    space = Workspace(chat())

    await space.read(closing(10), update(ROOMS, "room1", {"lm": moment(11)}, seconds=11))
    await space.read(update(VISITORS, "visitor1", {"name": "Later"}, seconds=11), insert(MESSAGES, closing_message(11), 11))

    content = await space.content(CLOSE_ID)
    assert (content["lastMessageAt"], content["visitor"]["name"]) == ("2026-11-23T08:00:00.000Z", "Erika Beispiel")


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
async def test_a_close_without_a_closing_message_ends_when_the_stream_is_beyond(restarted: bool) -> None:
    space = Workspace(chat(**{MESSAGES: [message()]}), settle=timedelta(seconds=2))
    await space.read(closing(10))
    if restarted:
        space.restart()

    assert completed((await space.read(seconds=12)).intent_updates) == []
    (given_up,) = completed((await space.read(seconds=14)).intent_updates)
    assert (given_up.event_id, given_up.cut) == (CLOSE_ID, moment(12))

    assert [found["_id"] for found in (await space.content(CLOSE_ID))["messages"]] == ["message1"]
    assert completed((await space.read(insert(MESSAGES, closing_message(15), 15))).intent_updates) == []


async def test_a_close_without_a_closing_message_ends_when_nothing_more_comes() -> None:
    space = Workspace(chat(), settle=timedelta(seconds=2))
    await space.read(closing(10), idle=True)

    space.clock.advance(1)
    assert completed((await space.read(idle=True, seconds=10)).intent_updates) == []
    space.clock.advance(1)
    assert len(completed((await space.read(idle=True, seconds=10)).intent_updates)) == 1


async def test_after_a_night_the_closing_message_is_still_seen_first() -> None:
    space = Workspace(chat())

    commit = await space.read(closing(10), insert(MESSAGES, closing_message(11), 11), seconds=36_000)

    assert [found.at for found in completed(commit.intent_updates)] == [stamp(11)]


async def test_two_closes_of_a_reopened_room() -> None:
    space = Workspace(chat())

    await space.read(closing(10), insert(MESSAGES, closing_message(11, "closing1"), 11))
    await space.read(reopening(20), taking(21), closing(30), insert(MESSAGES, closing_message(31, "closing2"), 31))

    first, second = await space.content(CLOSE_ID), await space.content(f"LivechatSession:room1:{milliseconds(30)}")
    assert [found["_id"] for found in first["messages"]] == ["closing1"]
    assert [found["_id"] for found in second["messages"]] == ["closing1", "closing2"]


async def test_each_closing_message_completes_its_own_room() -> None:
    space = Workspace(chat(**{ROOMS: [room("room1"), room("room2")]}))

    await space.read(closing(10, "room1"), closing(10, "room2"))
    commit = await space.read(insert(MESSAGES, {**closing_message(11), "rid": "room2"}, 11))

    assert [found.event_id for found in completed(commit.intent_updates)] == [f"LivechatSession:room2:{milliseconds(10)}"]


# Edits.


async def test_an_edit_of_an_earlier_message() -> None:
    space = Workspace(chat(**{MESSAGES: [message(text="first")]}))

    await space.read(edit("message1", "second", 5))

    event = only(space.events)
    assert (event.id, event.session) == (f"Message:message1:{milliseconds(5)}", "room1")
    (found,) = (await space.content(event.id))["messages"]
    assert (found["msg"], found["editedAt"], found["ts"]) == ("second", "2026-11-23T08:00:05.000Z", "2026-11-23T08:00:01.000Z")


async def test_edits_have_the_text_of_their_time() -> None:
    space = Workspace(chat())

    await space.read(insert(MESSAGES, message(text="first"), 1), edit("message1", "second", 5), edit("message1", "third", 6))
    await space.read(edit("message1", "fourth", 7))

    texts = [(await space.content(id_))["messages"][0]["msg"] for id_ in space.ids]
    assert texts == ["first", "second", "third", "fourth"]
    assert len(set(space.ids)) == 4


async def test_two_edits_in_one_batch_read_late_have_different_texts() -> None:
    database = chat(**{MESSAGES: [message(text="first")]})
    changes = [edit("message1", "second", 5), edit("message1", "third", 6)]
    database.log = list(changes)
    space = Workspace(database)

    await space.read(*changes)

    assert [(await space.content(id_))["messages"][0]["msg"] for id_ in space.ids] == ["second", "third"]


async def test_an_edit_that_leaves_the_text_has_that_of_the_edit_before() -> None:
    space = Workspace(chat(**{MESSAGES: [message(text="first")]}))
    editor = {"_id": "agent1", "username": "maria.keller"}
    changed = {"blocks": [{"type": "divider"}], "editedAt": moment(6), "editedBy": editor}

    await space.read(edit("message1", "second", 5), update(MESSAGES, "message1", changed, seconds=6))

    (found,) = (await space.content(f"Message:message1:{milliseconds(6)}"))["messages"]
    assert (found["msg"], found["blocks"]) == ("second", [{"type": "divider"}])


async def test_a_message_that_is_edited_and_then_deleted() -> None:
    space = Workspace(chat(**{MESSAGES: [message()]}))

    await space.read(
        edit("message1", "second", 5), update(MESSAGES, "message1", {"t": "rm", "msg": "", "editedAt": moment(6)}, seconds=6)
    )

    assert space.ids == [f"Message:message1:{milliseconds(5)}"]


async def test_an_edited_file_message_keeps_its_file() -> None:
    space = Workspace(chat(**{MESSAGES: [file_message("message1")], UPLOADS: [upload()]}))

    await space.read(edit("message1", "look", 5))

    (found,) = (await space.content(f"Message:message1:{milliseconds(5)}"))["messages"]
    assert (found["msg"], found["fileUpload"]["size"]) == ("look", 48213)


# Files.


@pytest.mark.parametrize("restarted", [False, True], ids=["", "after a restart"])
async def test_a_file_message_is_an_intent_until_its_upload_is_read(restarted: bool) -> None:
    names = ("FileUpload_ProtectFiles", "FileUpload_Enable_json_web_token_for_files")
    found_settings = [setting("Site_Url", "https://chat.example.org/"), *(setting(name, True) for name in names)]
    space = Workspace(chat(**{UPLOADS: [upload()], SETTINGS: found_settings}))

    event = only((await space.read(insert(MESSAGES, file_message(), 3))).events)
    if restarted:
        space.restart()

    assert event.intent is not None
    assert event.intent.completed == stamp(3)
    body = await space.body("Message:message3")
    assert [file for _, *file in body.files] == [["room1", "visitor1", "upload1"]]
    sent = orjson.loads(with_tokens(body, "secret", moment(3)))["messages"]
    assert len(sent) == 1
    link, _, token = sent[0]["fileUpload"]["publicFilePath"].partition("?token=")
    assert link == "https://chat.example.org/file-upload/upload1/parcel%20box.jpg"
    assert token.count(".") == 2


async def test_a_file_whose_upload_is_gone_is_sent_without_a_link() -> None:
    space = Workspace(chat())

    await space.read(insert(MESSAGES, file_message(), 3))

    (found,) = (await space.content("Message:message3"))["messages"]
    assert "file" in found
    assert "fileUpload" not in found


@pytest.mark.parametrize(
    ("configured", "base"),
    [(None, "https://chat.example.org"), ("https://public.example.org", "https://public.example.org")],
    ids=["from the settings", "from the configuration"],
)
async def test_where_the_address_of_the_site_comes_from(configured: str | None, base: str) -> None:
    database = chat(**{UPLOADS: [upload()], SETTINGS: [setting("Site_Url", "https://chat.example.org/")]})
    space = Workspace(database, site_url=configured)

    await space.read(insert(MESSAGES, file_message(), 3))

    (found,) = (await space.content("Message:message3"))["messages"]
    assert found["fileUpload"]["publicFilePath"].startswith(f"{base}/file-upload/")


# What cannot be told is skipped, with a reason.


@pytest.mark.parametrize(
    ("visitors", "before", "word"),
    [
        ([], [], "visitor"),
        ([visitor(disabled=True)], [], "visitor"),
        ([visitor()], [deletion(VISITORS, "visitor1", 0)], "visitor"),
        ([visitor()], [update(VISITORS, "visitor1", {"disabled": True}, ["name", "phone"])], "visitor"),
    ],
    ids=["missing", "disabled", "deleted just before", "disabled just before"],
)
async def test_without_a_visitor_an_event_is_skipped(visitors: list[Json], before: list[Change], word: str) -> None:
    space = Workspace(chat(**{VISITORS: visitors}))

    await space.read(*before, insert(MESSAGES, message(), 1), taking(5), closing(10))

    assert space.ids == ["Message:message1", TAKEN_ID, CLOSE_ID]
    for event in space.events:
        assert word in (event.skipped or "")
        assert (event.bodies, event.intent, event.session) == ({}, None, "room1")
        assert event.endpoints == {"crm": Profile.NATIVE}


@pytest.mark.parametrize("found", [{}, {"v": None}, {"v": {}}, {"v": "text"}], ids=["no v", "null", "empty", "text"])
async def test_a_room_without_a_visitor_is_skipped(found: Json) -> None:
    strange = room()
    del strange["v"]
    space = Workspace(chat())

    await space.read(insert(ROOMS, {**strange, **found, "_id": "room9"}, 1))

    assert only(space.events).skipped


async def test_a_room_that_is_gone_when_it_is_first_read() -> None:
    space = Workspace(Database())

    await space.read(insert(MESSAGES, message(), 1), taking(5), closing(10), insert(MESSAGES, closing_message(), 10))

    assert space.ids == ["Message:message1", TAKEN_ID, CLOSE_ID]
    assert all("room" in (event.skipped or "") for event in space.events)
    assert {event.session for event in space.events} == {"room1"}


async def test_a_room_that_is_removed_after_its_events_is_still_told() -> None:
    space = Workspace(chat(**{MESSAGES: [message()]}))

    await space.read(closing(10), insert(MESSAGES, closing_message(11), 11), deletion(ROOMS, "room1", 12))

    assert only(space.events).skipped is None
    assert (await space.content(CLOSE_ID))["_id"] == "room1"


async def test_what_nobody_wants_is_not_skipped_either() -> None:
    space = Workspace(Database({ROOMS: [room()]}), {"crm": endpoint([EventType.SESSION])})

    commit = await space.read(insert(MESSAGES, message(), 1), taking(5), insert(MESSAGES, message(rid="gone"), 6))

    assert commit.events == ()


UNREADABLE = "\ud800"  # half a character: no JSON can carry it


async def test_an_unreadable_change_is_skipped_and_the_flow_goes_on() -> None:
    space = Workspace(chat(), {"crm": endpoint(), "sessions": endpoint([EventType.SESSION])})

    commit = await space.read(
        insert(MESSAGES, message("one"), 1),
        insert(MESSAGES, message("two", text=UNREADABLE), 2),
        update(ROOMS, "room1", {"topic": "Parcel"}, seconds=2),
        insert(MESSAGES, message("three"), 3),
    )

    one, two, three = commit.events
    assert (one.skipped, three.skipped) == (None, None)
    assert (two.type, two.bodies, two.intent) == ("Change", {}, None)
    assert two.skipped
    # It is not known what it would have been, so it is shown for every endpoint.
    assert two.endpoints.keys() == {"crm", "sessions"}
    assert "two" in two.id
    assert (await space.content("Message:three"))["topic"] == "Parcel"


async def test_an_unreadable_change_has_the_same_id_when_it_is_read_again() -> None:
    change = insert(MESSAGES, message(text=UNREADABLE), 2)

    first = await Workspace(chat()).read(change)
    again = await Workspace(chat()).read(insert(MESSAGES, message("before"), 1), change)

    assert first.events[0].id == again.events[1].id


async def test_an_unreadable_room_keeps_its_state() -> None:
    space = Workspace(chat())

    await space.read(insert(ROOMS, room("room2", topic=UNREADABLE), 1), update(ROOMS, "room2", {"topic": "Mended"}, seconds=2))
    await space.read(insert(MESSAGES, message(rid="room2"), 3))

    assert only(space.events[:1]).skipped
    assert (await space.content("Message:message1"))["topic"] == "Mended"


@pytest.mark.parametrize("log_format", ["json", "console"])
async def test_the_log_of_an_unreadable_change_tells_nothing_about_the_visitor(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = structlog.get_config()
    handlers, level = logging.root.handlers[:], logging.root.level
    log.configure("info", log_format)
    try:
        await Workspace(chat()).read(insert(MESSAGES, message(text=f"my card is 4711 {UNREADABLE}"), 1))
    finally:
        structlog.configure(**before)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)

    written = capsys.readouterr().out
    assert "compose.unreadable_change" in written
    assert "message1" in written
    for private in ("4711", "Erika", "erika@example.org", "token1"):
        assert private not in written


@pytest.mark.parametrize(
    "change",
    [
        insert(MESSAGES, message("odd", rid={"$ne": None}), 1),
        insert(MESSAGES, message("odd", rid=["room1"]), 1),
        insert(ROOMS, room("odd", v={"_id": {"a": 1}}), 1),
        insert(ROOMS, room("odd", servedBy={"_id": ["a"]}), 1),
        update(ROOMS, "room1", {"servedBy": {"_id": {"a": 1}}}, seconds=1),
    ],
    ids=["room is a document", "room is an array", "visitor is a document", "agent is an array", "new agent is a document"],
)
async def test_an_odd_reference_does_not_stop_the_flow(change: Change) -> None:
    space = Workspace(chat())

    await space.read(change, insert(MESSAGES, message(), 2))

    assert "Message:message1" in space.ids


async def test_where_waiting_cannot_help_composing_ends() -> None:
    space = Workspace(chat())
    await space.read(taking(5))
    space.database.failure = MongoError("no rights", hint="grant them")

    with pytest.raises(MongoError):
        await space.read(insert(MESSAGES, message(rid="room2"), 6))
    with pytest.raises(MongoError):
        await space.body(TAKEN_ID)


# Agents.


async def test_an_agent_hired_just_before_the_first_chat_is_known() -> None:
    database = chat(**{USERS: []})
    space = Workspace(database)

    await space.read(insert(MESSAGES, message(), 3), insert(USERS, agent(), 4), taking(5))

    assert (await space.content(TAKEN_ID))["agent"]["username"] == "maria.keller"


async def test_an_agent_who_was_missing_once_is_found_later() -> None:
    database = chat(**{USERS: []})
    space = Workspace(database)
    await space.read(taking(2))
    database.log.append(insert(USERS, agent(), 4))

    await space.read(taking(5))

    assert (await space.content(TAKEN_ID))["agent"]["username"] == "maria.keller"


@pytest.mark.parametrize("profile", list(Profile), ids=str)
async def test_a_visitor_and_an_agent_are_told_as_they_are_at_each_event(profile: Profile) -> None:
    fields = setting("Accounts_CustomFields", '{"desk":{"sendToIntegrations":true}}')
    database = chat(**{USERS: [agent(customFields={"desk": "12", "floor": 3.0})], SETTINGS: [fields]})
    space = Workspace(database, {"crm": endpoint(profile=profile)})
    both = {"value": '{"desk":{"sendToIntegrations":true},"floor":{"sendToIntegrations":true}}'}

    await space.read(insert(MESSAGES, message("one"), 1), insert(MESSAGES, message("same"), 1))
    await space.read(update(VISITORS, "visitor1", {"name": "New"}, seconds=2), insert(MESSAGES, message("two"), 2))
    await space.read(update(SETTINGS, "Accounts_CustomFields", both, seconds=3), insert(MESSAGES, message("three"), 3))
    await space.read(update(USERS, "agent1", {"name": "Maria K."}, seconds=4), insert(MESSAGES, message("four"), 4))

    told = [await space.content(f"Message:{id_}", profile) for id_ in ("one", "same", "two", "three", "four")]
    assert [found["visitor"]["name"] for found in told] == ["Erika Beispiel"] * 2 + ["New"] * 3
    assert [found["agent"]["customFields"] for found in told] == [{"desk": "12"}] * 3 + [{"desk": "12", "floor": 3}] * 2
    assert [found["agent"]["name"] for found in told] == ["Maria Keller"] * 4 + ["Maria K."]


async def test_more_visitors_than_are_remembered_are_all_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(members, "_MOST_REPEATED", 2)
    numbers = range(5)
    rooms = [room(f"room{number}", v={"_id": f"visitor{number}"}) for number in numbers]
    visitors = [visitor(f"visitor{number}", name=f"Visitor {number}") for number in numbers]
    space = Workspace(Database({ROOMS: rooms, VISITORS: visitors}))

    for turn in range(2):
        await space.read(*(insert(MESSAGES, message(f"{turn}.{number}", rid=f"room{number}"), turn) for number in numbers))

    names = [(await space.content(f"Message:{turn}.{number}"))["visitor"]["name"] for turn in range(2) for number in numbers]
    assert names == [f"Visitor {number}" for number in numbers] * 2


async def test_an_agent_who_was_removed_is_left_out() -> None:
    space = Workspace(chat())

    await space.read(insert(MESSAGES, message("one"), 1), deletion(USERS, "agent1", 2), insert(MESSAGES, message("two"), 3))

    assert "agent" in await space.content("Message:one")
    assert "agent" not in await space.content("Message:two")


# Offline messages.

POST = (
    "A new Livechat offline Message has been sent: \nVisitor Name: Bob \nVisitor E-mail: bob@client.example \n"
    "Message: my lamp\nis broken \n"
)
CHANNEL = room("channel1", t="c", name="offline")


def post(id_: str = "post1", text: str = POST, **more: Any) -> Json:
    author = {"_id": "rocket.cat", "username": "rocket.cat"}
    return {"_id": id_, "rid": "channel1", "msg": text, "ts": moment(3), "u": author, "groupable": False, **more}


def offline(**more: list[Json]) -> Workspace:
    found_settings = [setting("Livechat_OfflineMessageToChannel_channel_name", "offline"), setting("Language", "en")]
    return Workspace(Database({ROOMS: [CHANNEL], SETTINGS: found_settings, **more}), {"crm": endpoint(), "cms": endpoint()})


async def test_an_offline_message_is_read_from_the_channel() -> None:
    space = offline()

    event = only((await space.read(insert(MESSAGES, post(), 3))).events)

    assert (event.id, event.type) == ("LivechatOfflineMessage:post1", "LivechatOfflineMessage")
    assert event.endpoints.keys() == {"crm", "cms"}
    assert await space.content(event.id) == {
        "type": "LivechatOfflineMessage",
        "sentAt": "2026-11-23T08:00:03.000Z",
        "visitor": {"name": "Bob", "email": "bob@client.example"},
        "message": "my lamp\nis broken",
    }


async def test_each_offline_message_is_a_session_of_its_own() -> None:
    space = offline()

    await space.read(insert(MESSAGES, post("post1"), 3), insert(MESSAGES, post("post2"), 4))

    assert len({event.session for event in space.events}) == 2


async def test_the_channel_of_a_department_counts_too() -> None:
    department = {"_id": "d1", "name": "Sales", "offlineMessageChannelName": "sales-offline"}
    space = offline(**{DEPARTMENTS: [department], ROOMS: [room("channel1", t="p", name="sales-offline")]})

    await space.read(insert(MESSAGES, post(), 3))

    assert space.ids == ["LivechatOfflineMessage:post1"]


async def test_a_channel_is_known_by_the_name_and_the_type_that_it_has_now() -> None:
    space = offline(**{ROOMS: [room("channel1", t="c", name="general")]})

    await space.read(insert(MESSAGES, post("post1"), 3), update(ROOMS, "channel1", {"lm": moment(3)}, seconds=3))
    await space.read(update(ROOMS, "channel1", {"lm": moment(4), "name": "offline"}, seconds=4))
    await space.read(update(ROOMS, "channel1", {"t": "p"}, seconds=5), insert(MESSAGES, post("post2"), 5))

    assert space.ids == ["LivechatOfflineMessage:post2"]


async def test_the_channel_is_that_of_the_time_of_the_post() -> None:
    space = offline()
    renamed = update(SETTINGS, "Livechat_OfflineMessageToChannel_channel_name", {"value": "elsewhere"}, seconds=4)

    await space.read(insert(MESSAGES, post("post1"), 3), renamed, insert(MESSAGES, post("post2"), 5))

    assert space.ids == ["LivechatOfflineMessage:post1"]


@pytest.mark.parametrize(
    ("document", "channel"),
    [
        (post(), room("channel1", t="c", name="general")),
        (post(), room("channel1", t="c", name="")),
        (post(u={"_id": "agent1", "username": "maria.keller"}), CHANNEL),
        (post(groupable=True), CHANNEL),
        (post(t="uj"), CHANNEL),
        (post(text="hello"), CHANNEL),
        (post(text=""), CHANNEL),
    ],
    ids=["another channel", "nameless channel", "another author", "groupable", "system message", "another text", "no text"],
)
async def test_other_posts_are_none(document: Json, channel: Json) -> None:
    space = offline(**{ROOMS: [channel]})

    assert (await space.read(insert(MESSAGES, document, 3))).events == ()


async def test_an_edited_post_is_not_sent_again() -> None:
    space = offline()

    await space.read(insert(MESSAGES, post(), 3), edit("post1", POST, 4))

    assert space.ids == ["LivechatOfflineMessage:post1"]


# Memory is bounded.


async def test_what_was_not_used_for_long_is_taken_from_the_outbox_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(states, "_MOST_IN_MEMORY", 2)
    rooms = [room(f"room{number}") for number in range(6)]
    space = Workspace(chat(**{ROOMS: rooms}))
    for number in range(6):
        await space.read(insert(MESSAGES, message(f"message{number}", rid=f"room{number}"), number))
    space.store.loads.clear()
    space.database.reads.clear()

    await space.read(insert(MESSAGES, message("again", rid="room0"), 7))

    assert ("room", {"room0"}) in space.store.loads
    assert (ROOMS, {"room0"}) not in space.database.reads
    assert (await space.content("Message:again"))["_id"] == "room0"


# Late equals live.

BEGINNING: dict[str, list[Json]] = {
    USERS: [agent(), agent("agent2", username="jonas.brandt", name="Jonas Brandt", customFields={"extension": "1"})],
    ROOMS: [
        CHANNEL,
        room("room2", v={"_id": "visitor2", "token": "token2"}),
        room("room3", v={"_id": "visitor9"}),
        room("room4"),
    ],
    VISITORS: [visitor("visitor2", username="guest-7", name="Old")],
    MESSAGES: [message("old", rid="room2", text="old", seconds=0.5)],
    UPLOADS: [upload()],
    DEPARTMENTS: [{"_id": "d1", "name": "Sales"}],
    SETTINGS: [
        setting("Site_Url", "https://chat.example.org"),
        setting("Livechat_OfflineMessageToChannel_channel_name", "offline"),
        setting("FileUpload_ProtectFiles", True),
        setting("FileUpload_Enable_json_web_token_for_files", True),
    ],
}
STORY = [
    insert(VISITORS, visitor(), 1),
    insert(ROOMS, room(), 2),
    insert(MESSAGES, message("m1", seconds=3), 3),
    update(ROOMS, "room1", {"lm": moment(3), "lastMessage": {"_id": "m1"}, "msgs": 1}, seconds=4),
    taking(5),
    edit("old", "edited", 6),
    insert(MESSAGES, agent_message("m2", seconds=7), 7),
    update(ROOMS, "room1", {"lm": moment(7), "tags": ["a", "b"]}, seconds=8),
    update(VISITORS, "visitor1", {"name": "New", "department": "d1", "visitorEmails.1": {"address": "b@x"}}, seconds=9),
    edit("m1", "second", 10),
    insert(MESSAGES, file_message("m3", seconds=11), 11),
    taking(12, "agent2", "jonas.brandt"),
    update(USERS, "agent2", {"name": "Newer", "customFields.extension": "2"}, seconds=13),
    edit("m1", "third", 14),
    insert(MESSAGES, message("m4", rid="room2", seconds=15), 15),
    update(SETTINGS, "Site_Url", {"value": "https://new.example.org"}, seconds=16),
    insert(MESSAGES, post("post1"), 17),
    closing(18),
    insert(MESSAGES, message("m5", rid="room3", seconds=19), 19),
    insert(MESSAGES, closing_message(19, "closing1"), 19),
    update(ROOMS, "room1", {"lm": moment(19)}, seconds=20),
    update(VISITORS, "visitor1", {"disabled": False, "phone.0.phoneNumber": "2"}, ["livechatData"], seconds=21),
    reopening(22),
    taking(23),
    insert(MESSAGES, message("m6", rid="room4", text=UNREADABLE, seconds=24), 24),
    update(ROOMS, "room1", {"crmData": "{}", "topic": "Parcel"}, ["tags"], seconds=25),
    insert(MESSAGES, message("m7", seconds=26), 26),
    closing(27),
    insert(MESSAGES, closing_message(28, "closing2"), 28),
    closing(29, "room2"),
    deletion(ROOMS, "room2", 30),
    update(VISITORS, "visitor1", {"disabled": True}, ["name", "phone"], seconds=34),
    insert(MESSAGES, message("m8", seconds=35), 35),
]


async def told(space: Workspace) -> list[Any]:
    """Everything that endpoints would see."""
    result: list[Any] = []
    for event in space.events:
        bodies = None if event.skipped else [await space.body(event.id, profile) for profile in Profile]
        result.append((event.id, event.type, event.session, event.happened_at, event.skipped, bodies))
    return result


def workspace(log: Sequence[Change] = ()) -> Workspace:
    database = Database(BEGINNING)
    database.log = list(log)
    return Workspace(database, {"a": endpoint(), "b": endpoint(profile=Profile.GUIDE)})


async def told_live() -> list[Any]:
    space = workspace()
    for change in STORY:
        await space.read(change)
    return await told(space)


async def test_the_story_has_every_kind_of_event() -> None:
    found = await told_live()

    assert {type_ for _, type_, *_ in found} == {*CORE_EVENTS, "Change"}
    assert len({id_ for id_, *_ in found}) == len(found) == 19
    assert [id_ for id_, *_, skipped, _ in found if skipped and not id_.startswith("Change")] == ["Message:m5", "Message:m8"]


@given(cuts=st.sets(st.integers(1, len(STORY) - 1)), restarts=st.sets(st.integers(1, len(STORY) - 1)), memory=st.integers(1, 5))
@settings(max_examples=15, deadline=None)
@example(cuts=set(), restarts=set(), memory=20)
@example(cuts=set(range(len(STORY))), restarts=set(range(len(STORY))), memory=1)
async def test_a_late_relay_tells_the_same_however_it_reads(cuts: set[int], restarts: set[int], memory: int) -> None:
    live = await told_live()
    space = workspace(STORY)
    ends = sorted({*cuts, *restarts} - {0})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(states, "_MOST_IN_MEMORY", memory)
        for start, end in zip([0, *ends], [*ends, len(STORY)], strict=True):
            if start in restarts:
                space.restart()
            await space.read(*STORY[start:end])

    assert await told(space) == live
