"""The JSON Schema of each payload says what a receiver gets."""

from __future__ import annotations

from typing import Any

import pytest
from jsonschema import ValidationError

from daemon.compose.payload.schemas import payload_schema
from daemon.model import EventType, Profile
from tests.compose.build import (
    Json,
    agent,
    agent_message,
    closing_message,
    context,
    file_message,
    message,
    moment,
    offline_payload,
    payload,
    room,
    served_by,
    upload,
    validator,
    visitor,
)

VERSIONS = ("6.0.0", "6.2.0", "6.6.0", "6.7.0", None)
CASES: list[tuple[EventType, Profile, str | None]] = [(event, profile, None) for event in EventType for profile in Profile]
CASES += [
    (event, profile, old)
    for event in (EventType.SESSION_START, EventType.SESSION)
    for profile in Profile
    for old in VERSIONS[:-1]
]
SESSIONS = [case for case in CASES if case[0] is not EventType.OFFLINE_MESSAGE]
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"
FILES = {
    "Site_Url": "https://chat.example.org",
    "FileUpload_ProtectFiles": True,
    "FileUpload_Enable_json_web_token_for_files": True,
    "Livechat_Visitor_navigation_as_a_message": True,
    "Send_visitor_navigation_history_livechat_webhook_request": True,
    "Accounts_CustomFields": '{"extension":{"sendToIntegrations":true}}',
}

profiles = pytest.mark.parametrize("profile", list(Profile), ids=str)
cases = pytest.mark.parametrize(("event_type", "profile", "version"), CASES, ids=str)
sessions = pytest.mark.parametrize(("event_type", "profile", "version"), SESSIONS, ids=str)


def full_room() -> Json:
    return room(
        topic="Lost parcel",
        code=7,
        tags=["shipping"],
        livechatData={"orderNumber": "A-10023", "note": None},
        departmentId="department1",
        servedBy=served_by(5),
        closedAt=moment(60),
        closedBy={"_id": "agent1", "username": "maria.keller"},
        closer="user",
        crmData={"id": 7},
    )


def everything(event_type: EventType, profile: Profile, version: str | None) -> Json:
    """A payload with every member that there can be."""
    of = context(
        event_type,
        room=full_room(),
        visitor=visitor(department="department2", ip="203.0.113.7", userAgent=CHROME, livechatData={"customerId": "C-778"}),
        agent=agent(customFields={"extension": "4711"}),
        settings=FILES,
        department="Sales",
        extra={"oldDepartmentId": "department3", "oldServedBy": served_by(1, "agent2")},
        version=version,
    )
    editor = {"_id": "agent1", "username": "maria.keller"}
    messages = [
        message(blocks=[{"type": "section"}]),
        message("view", t="livechat_navigation_history", navigation={"page": {}, "token": "token1"}),
        agent_message(editedAt=moment(9), editedBy=editor),
        file_message(),
        closing_message(),
    ]
    return payload(profile, of, *messages, uploads=(upload(),))


def least(event_type: EventType, profile: Profile, version: str | None) -> Json:
    """A payload with nothing but what has to be there."""
    bare = {"_id": "message1", "rid": "room1", "ts": moment(1)}
    of = context(
        event_type,
        room={"_id": "room1", "t": "l", "v": {"_id": "visitor1"}},
        visitor={"_id": "visitor1"},
        agent={"_id": "agent1"},
        settings={},
        version=version,
    )
    return payload(profile, of, bare)


@cases
def test_every_schema_is_one(event_type: EventType, profile: Profile, version: str | None) -> None:
    validator(event_type, profile, version)  # checks it
    schema = payload_schema(event_type, profile, version)

    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == f"{event_type.value}, profile {profile.value}"
    assert schema["properties"]["type"] == {"const": event_type.value}


@sessions
def test_payloads_are_as_it_says(event_type: EventType, profile: Profile, version: str | None) -> None:
    for make in (everything, least):
        validator(event_type, profile, version).validate(make(event_type, profile, version))


@sessions
def test_it_names_no_member_that_there_cannot_be(event_type: EventType, profile: Profile, version: str | None) -> None:
    schema, content = payload_schema(event_type, profile, version), everything(event_type, profile, version)

    assert list(schema["properties"]) == list(content)
    assert list(schema["properties"]["visitor"]["properties"]) == list(content["visitor"])
    assert list(schema["properties"]["agent"]["properties"]) == list(content["agent"])
    listed = {name for entry in content["messages"] for name in entry}
    assert set(schema["properties"]["messages"]["items"]["properties"]) == listed


@profiles
@pytest.mark.parametrize(
    "field", ["fname", "topic", "tags", "livechatData", "lm", "departmentId", "servedBy", "closedBy", "closer"]
)
def test_nulls_that_are_stored_are_foreseen(profile: Profile, field: str) -> None:
    content = payload(profile, context(EventType.SESSION, room={**full_room(), field: None}))

    validator(EventType.SESSION, profile).validate(content)


def change(content: Json, path: str, value: Any) -> Json:
    """`content` with one value changed, or without it when `value` is `...`."""
    *parents, last = path.split(".")
    inner: Any = content
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner[part]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return content


@profiles
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("type", "Message"),
        ("type", ...),
        ("_id", ...),
        ("_id", 5),
        ("visitor", ...),
        ("visitor", None),
        ("visitor.name", 5),
        ("visitor.surprise", "x"),
        ("agent.email", ["x"]),
        ("surprise", "x"),
        ("tags", ["x", 5]),
        ("createdAt", "yesterday"),
        ("createdAt", "2026-11-23"),
        ("createdAt", "2026-11-23T08:00:00Z"),
        ("createdAt", "2026-13-23T08:00:00.000Z"),
        ("createdAt", "2026-11-23T08:00:00.000+01:00"),
        ("closedAt", 1_795_420_800_000),
        ("messages", ...),
        ("messages", {}),
        ("messages.0._id", ...),
        ("messages.0.ts", ...),
        ("messages.0.ts", "2026-11-23T08:00:00"),
        ("messages.0.surprise", 1),
        ("messages.4.closingMessage", False),
        ("messages.3.fileUpload.size", "48213"),
    ],
    ids=str,
)
def test_anything_else_is_refused(profile: Profile, path: str, value: Any) -> None:
    content = everything(EventType.SESSION, profile, None)

    with pytest.raises(ValidationError):
        validator(EventType.SESSION, profile).validate(change(content, path, value))


@pytest.mark.parametrize("version", ["6.0.0", "6.5.0"])
def test_null_addresses_of_old_releases_are_foreseen(version: str) -> None:
    of = context(visitor={"_id": "visitor1"}, agent=agent(emails=[]), version=version)
    content = payload(Profile.NATIVE, of)

    assert (content["visitor"]["email"], content["visitor"]["phone"], content["agent"]["email"]) == (None, None, None)
    validator(EventType.SESSION, Profile.NATIVE, version).validate(content)


def test_the_profiles_differ_in_how_addresses_are_written() -> None:
    native, guide = (everything(EventType.SESSION, profile, None) for profile in (Profile.NATIVE, Profile.GUIDE))

    for content, other in ((native, Profile.GUIDE), (guide, Profile.NATIVE)):
        with pytest.raises(ValidationError):
            validator(EventType.SESSION, other).validate(content)


@profiles
@pytest.mark.parametrize("name", ["Erika", "", None], ids=["named", "empty", "none"])
def test_offline_messages(profile: Profile, name: str | None) -> None:
    offline_payload(name=name, email="erika@example.org", text="Hello", seconds=0.412)
    schema = payload_schema(EventType.OFFLINE_MESSAGE, profile)

    assert list(schema["properties"]) == ["type", "sentAt", "visitor", "message"]
    assert schema["required"] == ["type", "sentAt", "visitor", "message"]


@profiles
def test_offline_messages_are_the_same_in_every_release(profile: Profile) -> None:
    schemas = [payload_schema(EventType.OFFLINE_MESSAGE, profile, version) for version in VERSIONS]

    assert all(schema == schemas[0] for schema in schemas)
