"""What differs between releases, in the table and in what comes of it."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, cast

import pytest

from daemon.compose import transitions
from daemon.compose.json_text import FileLink
from daemon.compose.versions import behaviour, parse
from daemon.model import EventType, Profile
from tests.compose.build import (
    Json,
    agent,
    agent_message,
    closing_message,
    context,
    edit,
    file_message,
    insert,
    message,
    moment,
    payload,
    room,
    served_by,
    upload,
    visitor,
)

NATIVE, GUIDE = Profile.NATIVE, Profile.GUIDE
INQUIRIES = "rocketchat_livechat_inquiry"
OLD = "6.0.0"

QUEUED_ALWAYS = "queued_for_every_new_room"
COMMENT = "closing_comment_is_message"
NULLS = "contact_early_and_null"
ORIGIN = "message_origin"
ROOM_TOKEN = "token_names_room"
START = "department_on_start"
CREATED = "queued_as_created"
UP_TO_6_1 = {QUEUED_ALWAYS, COMMENT, NULLS}
FROM_6_2 = {QUEUED_ALWAYS, COMMENT, NULLS, ORIGIN, ROOM_TOKEN}
FROM_6_6 = {QUEUED_ALWAYS, COMMENT, ORIGIN, ROOM_TOKEN}
FROM_6_7 = {QUEUED_ALWAYS, COMMENT, ORIGIN, ROOM_TOKEN, START}
IN_6_11 = {COMMENT, ORIGIN, ROOM_TOKEN, START, CREATED}
FROM_6_12 = {ORIGIN, ROOM_TOKEN, START, CREATED}
CURRENT = {ORIGIN, ROOM_TOKEN, START}


@pytest.mark.parametrize(
    ("version", "does"),
    [
        ("6.0", UP_TO_6_1),
        ("6.0.0", UP_TO_6_1),
        ("6.1.9", UP_TO_6_1),
        ("6.2.0", FROM_6_2),
        ("6.5.3", FROM_6_2),
        ("6.6.0", FROM_6_6),
        ("6.6.11", FROM_6_6),
        ("6.7.0", FROM_6_7),
        ("6.10.4", FROM_6_7),
        ("6.11.0", IN_6_11),
        ("6.12.0", FROM_6_12),
        ("6.13.0", FROM_6_12),
        ("7.0.0-develop", CURRENT),
        ("7.5.1", CURRENT),
        ("8.0.0-rc.1", CURRENT),
        ("123.4", CURRENT),
        (None, CURRENT),
        ("", CURRENT),
        ("nonsense", CURRENT),
        ("6", CURRENT),
        ("v6.0", CURRENT),
    ],
    ids=lambda value: ",".join(sorted(value)) if isinstance(value, set) else str(value),
)
def test_what_a_release_does(version: str | None, does: set[str]) -> None:
    assert {name for name, done in asdict(behaviour(version)).items() if done} == does


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("6.5", (6, 5)),
        ("6.5.3", (6, 5)),
        ("6.10.0", (6, 10)),
        ("7.0.0-develop", (7, 0)),
        ("6.13-rc.0", (6, 13)),
        ("06.05", (6, 5)),
        ("6", None),
        ("6.", None),
        (".5", None),
        ("v6.5", None),
        (" 6.5", None),
        ("6,5", None),
        ("1234.5", None),
        ("6.1234", None),
        ("", None),
        (None, None),
    ],
    ids=repr,
)
def test_reading_a_version(text: str | None, release: tuple[int, int] | None) -> None:
    assert parse(text) == release


# Visitor and agent without an address.

BARE: Json = {"_id": "visitor1", "token": "token1", "name": "Erika", "username": "guest-42", "ip": "203.0.113.7"}
HEAD = ["_id", "token", "name", "username"]


def guest(version: str | None, **more: Any) -> Json:
    found = {**BARE, "department": "d1", "livechatData": {"a": 1}, **more}
    return cast("Json", payload(NATIVE, context(visitor=found, version=version))["visitor"])


@pytest.mark.parametrize("version", ["6.0.0", "6.2.0", "6.5.9"])
@pytest.mark.parametrize("contact", [{}, {"visitorEmails": [], "phone": []}, {"visitorEmails": None, "phone": None}], ids=str)
def test_before_6_6_a_missing_address_is_null_and_follows_the_username(version: str, contact: Json) -> None:
    found = guest(version, **contact)

    assert list(found) == [*HEAD, "email", "phone", "department", "ip", "customFields"]
    assert (found["email"], found["phone"]) == (None, None)


@pytest.mark.parametrize("version", ["6.6.0", "6.13.0", None], ids=str)
@pytest.mark.parametrize("contact", [{}, {"visitorEmails": [], "phone": []}, {"visitorEmails": None, "phone": None}], ids=str)
def test_from_6_6_on_it_is_left_out(version: str | None, contact: Json) -> None:
    assert list(guest(version, **contact)) == [*HEAD, "department", "ip", "customFields"]


@pytest.mark.parametrize(
    ("version", "order"),
    [
        ("6.5.0", [*HEAD, "email", "phone", "department", "ip", "customFields"]),
        ("6.6.0", [*HEAD, "department", "ip", "customFields", "email", "phone"]),
    ],
)
def test_an_address_stands_where_the_release_has_it(version: str, order: list[str]) -> None:
    known: Json = {"visitorEmails": [{"address": "a@x.example"}], "phone": [{"phoneNumber": "1"}]}
    found = guest(version, **known)

    assert list(found) == order
    assert (found["email"], found["phone"]) == (known["visitorEmails"], known["phone"])


@pytest.mark.parametrize(
    ("version", "emails", "expected"),
    [
        ("6.5.0", [], {"email": None, "customFields": {}}),
        ("6.5.0", None, {"email": None, "customFields": {}}),
        ("6.5.0", [{"address": "m@x.example"}], {"email": "m@x.example", "customFields": {}}),
        ("6.6.0", [], {"customFields": {}}),
        ("6.6.0", [{"address": "m@x.example"}], {"customFields": {}, "email": "m@x.example"}),
        (None, None, {"customFields": {}}),
    ],
    ids=["6.5, none", "6.5, null", "6.5, one", "6.6, none", "6.6, one", "newest, null"],
)
def test_the_address_of_an_agent(version: str | None, emails: Any, expected: Json) -> None:
    found = payload(NATIVE, context(agent=agent(emails=emails, customFields={"secret": 1}), version=version))["agent"]

    assert list(found.items())[3:] == list(expected.items())


@pytest.mark.parametrize("version", ["6.0.0", "6.5.0", "6.6.0", None], ids=str)
def test_the_guide_has_no_nulls_whatever_the_release(version: str | None) -> None:
    content = payload(GUIDE, context(visitor=BARE, agent=agent(emails=[]), version=version))

    assert list(content["visitor"]) == ["_id", "name", "username", "ip", "token"]
    assert "email" not in content["agent"]


# Messages.

MEMBERS = ["u", "_id", "username", "msg", "ts"]


@pytest.mark.parametrize(
    ("version", "members"),
    [("6.0.0", MEMBERS), ("6.1.4", MEMBERS), ("6.2.0", [*MEMBERS, "rid", "_updatedAt"]), (None, [*MEMBERS, "rid", "_updatedAt"])],
    ids=str,
)
def test_where_a_message_comes_from(version: str | None, members: list[str]) -> None:
    (found,) = payload(NATIVE, context(version=version), message())["messages"]

    assert list(found) == members


@pytest.mark.parametrize(
    ("version", "edited", "listed"),
    [
        ("6.1.0", {"editedAt": moment(9)}, True),
        ("6.1.0", {"editedAt": moment(9), "editedBy": {"_id": "agent1"}}, True),
        ("6.2.0", {"editedAt": moment(9)}, False),
        ("6.2.0", {"editedAt": moment(9), "editedBy": {"_id": "agent1"}}, True),
        (None, {"editedAt": moment(9)}, False),
    ],
    ids=["6.1, no editor", "6.1, editor", "6.2, no editor", "6.2, editor", "newest, no editor"],
)
def test_when_a_message_counts_as_edited(version: str | None, edited: Json, listed: bool) -> None:
    (found,) = payload(NATIVE, context(version=version), agent_message(**edited))["messages"]

    assert found.get("editedAt") == ("2026-11-23T08:00:09.000Z" if listed else None)


@pytest.mark.parametrize(("version", "names"), [("6.1.0", ""), ("6.2.0", "room1"), (None, "room1")], ids=str)
@pytest.mark.parametrize("profile", list(Profile), ids=str)
def test_the_token_of_a_file_names_its_room_from_6_2_on(profile: Profile, version: str | None, names: str) -> None:
    protected = {"FileUpload_ProtectFiles": True, "FileUpload_Enable_json_web_token_for_files": True}
    of = context(EventType.MESSAGE, settings={"Site_Url": "https://chat.example.org", **protected}, version=version)
    content = payload(profile, of, file_message(), uploads=(upload(),), plain=False)

    link = content["messages"][0]["fileUpload"]["publicFilePath"]
    assert isinstance(link, FileLink)
    assert (link.room, link.user, link.file) == (names, "visitor1", "upload1")


# Which members and which events.


@pytest.mark.parametrize("profile", list(Profile), ids=str)
@pytest.mark.parametrize(
    ("version", "event_type", "listed"),
    [
        ("6.6.0", EventType.SESSION_START, False),
        ("6.7.0", EventType.SESSION_START, True),
        (None, EventType.SESSION_START, True),
        ("6.0.0", EventType.SESSION_QUEUED, True),
        ("6.0.0", EventType.SESSION_TAKEN, True),
        ("6.0.0", EventType.SESSION, True),
        (None, EventType.MESSAGE, False),
    ],
    ids=["Start 6.6", "Start 6.7", "Start newest", "Queued 6.0", "Taken 6.0", "Session 6.0", "Message newest"],
)
def test_who_tells_the_department(profile: Profile, version: str | None, event_type: EventType, listed: bool) -> None:
    of = context(event_type, room=room(departmentId="department1", servedBy=served_by(1)), version=version)

    assert ("departmentId" in payload(profile, of)) is listed


def types(found: list[transitions.Transition]) -> list[str]:
    return [transition.type for transition in found]


@pytest.mark.parametrize(
    ("version", "status", "queued"),
    [
        ("6.10.0", "ready", True),
        ("6.10.0", "queued", True),
        ("6.10.0", "taken", True),
        ("6.11.0", "ready", False),
        ("6.11.0", "queued", True),
        ("6.11.0", "verifying", False),
        (None, "ready", False),
        (None, "queued", True),
    ],
    ids=str,
)
def test_a_new_room_is_queued(version: str | None, status: str, queued: bool) -> None:
    inquiry = {"_id": "inquiry1", "rid": "room1", "status": status, "ts": moment(1)}
    found = transitions.of_inquiry(insert(INQUIRIES, inquiry, 1), None, room(), behaviour(version))

    assert types(found) == [EventType.SESSION_QUEUED] * queued


@pytest.mark.parametrize(("version", "told"), [("6.0.0", True), ("6.11.9", True), ("6.12.0", False), (None, False)], ids=str)
def test_the_closing_comment_is_a_message(version: str | None, told: bool) -> None:
    comment = closing_message()
    found = transitions.of_message(insert("rocketchat_message", comment), comment, room(), behaviour(version))

    assert types(found) == [EventType.MESSAGE] * told


@pytest.mark.parametrize("version", ["6.0.0", "6.11.0", None], ids=str)
def test_other_system_messages_are_none_in_any_release(version: str | None) -> None:
    for kind in ("uj", "livechat-started", "command", "rm"):
        document = message(t=kind)
        assert transitions.of_message(insert("rocketchat_message", document), document, room(), behaviour(version)) == []


def test_an_edit_is_a_message_in_every_release() -> None:
    for version in ("6.0.0", "6.5.0", "7.5.0", None):
        found = transitions.of_message(edit("message1", "x", 2), message(), room(), behaviour(version))
        assert types(found) == [EventType.MESSAGE]


def test_an_old_server_byte_by_byte() -> None:
    of = context(
        EventType.SESSION_START,
        room=room(departmentId="department1"),
        visitor=visitor(visitorEmails=[], phone=None),
        version=OLD,
    )

    assert list(payload(NATIVE, of).items()) == [
        ("_id", "room1"),
        ("label", "Erika Beispiel"),
        ("createdAt", "2026-11-23T08:00:00.000Z"),
        ("lastMessageAt", "2026-11-23T08:00:00.000Z"),
        (
            "visitor",
            {
                "_id": "visitor1",
                "token": "token1",
                "name": "Erika Beispiel",
                "username": "guest-42",
                "email": None,
                "phone": None,
            },
        ),
        ("type", "LivechatSessionStart"),
        ("messages", []),
    ]
