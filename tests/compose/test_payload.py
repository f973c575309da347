from __future__ import annotations

from typing import Any

import orjson
import pytest

from daemon.compose.json_text import FileLink, encode
from daemon.model import EventType, Profile
from tests.compose.build import (
    SYSTEM_TYPES,
    Json,
    PayloadContext,
    agent,
    agent_message,
    closing_message,
    context,
    file_message,
    message,
    moment,
    needed_uploads,
    offline_payload,
    payload,
    room,
    served_by,
    upload,
    visitor,
)

NATIVE, GUIDE = Profile.NATIVE, Profile.GUIDE
CHROME = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/133.0.0.0 Safari/537.36"

both = pytest.mark.parametrize("profile", [NATIVE, GUIDE], ids=str)


def full() -> PayloadContext:
    """A closed chat in which everything is set."""
    return context(
        EventType.SESSION,
        room=room(
            topic="Lost parcel",
            code=7,
            tags=["shipping", "refund"],
            livechatData={"orderNumber": "A-10023"},
            departmentId="department1",
            servedBy=served_by(5),
            closedAt=moment(60),
            closedBy={"_id": "agent1", "username": "maria.keller"},
            closer="user",
            crmData='{"ok":true}',
            lm=moment(40),
        ),
        visitor=visitor(department="department2", ip="203.0.113.7", userAgent=CHROME, livechatData={"customerId": "C-778"}),
        agent=agent(customFields={"extension": "4711", "secret": "x"}),
        settings={
            "Site_Url": "https://chat.example.org/",
            "Accounts_CustomFields": '{"extension":{"sendToIntegrations":true},"secret":{"sendToIntegrations":false}}',
        },
        department="Sales",
    )


NATIVE_TEXT = (
    '{"_id":"room1","label":"Erika Beispiel","topic":"Lost parcel","createdAt":"2026-11-23T08:00:00.000Z",'
    '"lastMessageAt":"2026-11-23T08:00:40.000Z","tags":["shipping","refund"],"customFields":{"orderNumber":"A-10023"},'
    '"visitor":{"_id":"visitor1","token":"token1","name":"Erika Beispiel","username":"guest-42","department":"department2",'
    '"ip":"203.0.113.7","os":"Windows 10","browser":"Chrome 133.0.0.0","customFields":{"customerId":"C-778"},'
    '"email":[{"address":"erika@example.org"}],"phone":[{"phoneNumber":"+49 30 5550 1234"}]},'
    '"agent":{"_id":"agent1","username":"maria.keller","name":"Maria Keller","customFields":{"extension":"4711"},'
    '"email":"maria@example.org"},"crmData":"{\\"ok\\":true}","type":"LivechatSession","messages":['
    '{"u":{"_id":"visitor1","username":"guest-42","name":"Erika Beispiel"},"_id":"message1","username":"guest-42",'
    '"msg":"Hello","ts":"2026-11-23T08:00:01.000Z","rid":"room1","_updatedAt":"2026-11-23T08:00:01.000Z"},'
    '{"u":{"_id":"agent1","username":"maria.keller","name":"Maria Keller"},"_id":"closing","username":"maria.keller",'
    '"msg":"Bye","ts":"2026-11-23T08:00:10.000Z","rid":"room1","agentId":"agent1","closingMessage":true,'
    '"_updatedAt":"2026-11-23T08:00:10.000Z"}],"departmentId":"department1",'
    '"servedBy":{"_id":"agent1","username":"maria.keller","ts":"2026-11-23T08:00:05.000Z"},'
    '"closedAt":"2026-11-23T08:01:00.000Z","closedBy":{"_id":"agent1","username":"maria.keller"},"closer":"user"}'
)


def test_native_is_what_a_server_sends_byte_by_byte() -> None:
    content = payload(NATIVE, full(), message(), closing_message(), plain=False)

    assert encode(content).content.decode() == NATIVE_TEXT


def test_guide_is_what_the_guide_documents_in_its_order() -> None:
    content = payload(GUIDE, full(), message(), closing_message())

    documented = [
        "type",
        "_id",
        "label",
        "topic",
        "code",
        "createdAt",
        "lastMessageAt",
        "tags",
        "customFields",
        "visitor",
        "agent",
    ]
    assert list(content)[:12] == [*documented, "messages"]
    assert content["type"] == "LivechatSession"
    assert (content["code"], content["label"], content["topic"]) == (7, "Erika Beispiel", "Lost parcel")
    assert list(content["visitor"].items()) == [
        ("_id", "visitor1"),
        ("name", "Erika Beispiel"),
        ("username", "guest-42"),
        ("department", "Sales"),
        ("email", "erika@example.org"),
        ("phone", "+49 30 5550 1234"),
        ("ip", "203.0.113.7"),
        ("browser", "Chrome 133.0.0.0"),
        ("os", "Windows 10"),
        ("customFields", {"customerId": "C-778"}),
        ("token", "token1"),
    ]
    assert list(content["agent"].items())[:4] == [
        ("_id", "agent1"),
        ("username", "maria.keller"),
        ("name", "Maria Keller"),
        ("email", "maria@example.org"),
    ]
    first, last = content["messages"]
    assert list(first.items())[:3] == [("username", "guest-42"), ("msg", "Hello"), ("ts", "2026-11-23T08:00:01.000Z")]
    assert list(last)[:4] == ["username", "agentId", "msg", "ts"]
    assert (last["agentId"], last["closingMessage"]) == ("agent1", True)


def test_guide_has_what_current_servers_add() -> None:
    native = payload(NATIVE, full(), message(), closing_message())
    guide = payload(GUIDE, full(), message(), closing_message())

    assert native.keys() - guide.keys() == set()
    for name in ("crmData", "departmentId", "servedBy", "closedAt", "closedBy", "closer"):
        assert guide[name] == native[name]
    assert native["visitor"].keys() == guide["visitor"].keys()
    assert native["agent"] == guide["agent"]


def test_nothing_that_is_not_there_appears() -> None:
    bare = context(
        EventType.SESSION_START,
        room={"_id": "room1", "t": "l", "ts": moment(), "v": {"_id": "visitor1"}},
        visitor={"_id": "visitor1"},
        settings={},
    )

    assert list(payload(NATIVE, bare).items()) == [
        ("_id", "room1"),
        ("createdAt", "2026-11-23T08:00:00.000Z"),
        ("visitor", {"_id": "visitor1"}),
        ("type", "LivechatSessionStart"),
        ("messages", []),
    ]
    assert list(payload(GUIDE, bare).items()) == [
        ("type", "LivechatSessionStart"),
        ("_id", "room1"),
        ("createdAt", "2026-11-23T08:00:00.000Z"),
        ("visitor", {"_id": "visitor1"}),
        ("messages", []),
    ]


def test_what_is_stored_beside_the_payload_stays_out() -> None:
    content = payload(NATIVE, full(), message())

    assert {"t", "fname", "v", "open", "msgs", "code", "_updatedAt"}.isdisjoint(content)
    assert {"visitorEmails", "userAgent", "status", "livechatData"}.isdisjoint(content["visitor"])
    assert {"emails", "status"}.isdisjoint(content["agent"])
    assert {"token", "urls", "t"}.isdisjoint(content["messages"][0])


ABSENT: Any = object()


def member(content: Json, path: str) -> Any:
    value: Any = content
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value.get(part, ABSENT)
        if value is ABSENT:
            return ABSENT
    return value


# Room.


@both
@pytest.mark.parametrize(
    ("names", "label"),
    [
        ({"fname": "Erika", "label": "Old"}, "Erika"),
        ({"fname": "", "label": "Old"}, "Old"),
        ({"fname": None, "label": "Old"}, "Old"),
        ({"label": "Old"}, "Old"),
        ({"fname": "Erika"}, "Erika"),
        ({}, ABSENT),
        ({"fname": ""}, ABSENT),
    ],
    ids=["both", "empty fname", "null fname", "label only", "fname only", "none", "empty fname only"],
)
def test_the_label_falls_back(profile: Profile, names: Json, label: Any) -> None:
    nameless = room()
    del nameless["fname"]

    assert member(payload(profile, context(room={**nameless, **names})), "label") == label


@pytest.mark.parametrize("field", ["topic", "tags", "livechatData", "lm", "departmentId", "servedBy", "closedBy", "closer"])
def test_a_stored_null_of_a_room_stays_in_native_and_vanishes_in_guide(field: str) -> None:
    name = {"livechatData": "customFields", "lm": "lastMessageAt"}.get(field, field)
    of = context(EventType.SESSION, room={**room(), field: None})

    assert member(payload(NATIVE, of), name) is None
    assert member(payload(GUIDE, of), name) is ABSENT


@pytest.mark.parametrize("field", ["name", "username", "department", "ip", "livechatData", "token"])
def test_a_stored_null_of_a_visitor_stays_in_native_and_vanishes_in_guide(field: str) -> None:
    name = {"livechatData": "customFields"}.get(field, field)
    of = context(visitor={**visitor(), field: None})

    assert member(payload(NATIVE, of), f"visitor.{name}") is None
    assert member(payload(GUIDE, of), f"visitor.{name}") is ABSENT


def test_a_null_inside_custom_fields_is_passed_on() -> None:
    of = context(room=room(livechatData={"b": None, "a": {"deep": [None, 1.0]}}))

    for profile in Profile:
        assert list(payload(profile, of)["customFields"].items()) == [("b", None), ("a", {"deep": [None, 1]})]


@both
@pytest.mark.parametrize(
    ("value", "sent"),
    [
        ("text", "text"),
        ('{"ok":true}', '{"ok":true}'),
        ("0", "0"),
        ({"ok": True}, {"ok": True}),
        (1, 1),
        (True, True),
        ("", ABSENT),
        (0, ABSENT),
        (0.0, ABSENT),
        (False, ABSENT),
        (None, ABSENT),
        (ABSENT, ABSENT),
        ({}, {}),
        ([], []),
    ],
    ids=[
        "text",
        "JSON",
        "text 0",
        "object",
        "1",
        "true",
        "empty",
        "0",
        "0.0",
        "false",
        "null",
        "none",
        "empty object",
        "empty array",
    ],
)
def test_crm_data_is_sent_when_javascript_takes_it_for_true(profile: Profile, value: Any, sent: Any) -> None:
    of = context(room=room() if value is ABSENT else room(crmData=value))

    assert member(payload(profile, of), "crmData") == sent


# Visitor.


@pytest.mark.parametrize(
    ("emails", "native", "guide"),
    [
        ([{"address": "a@x"}, {"address": "b@x"}], [{"address": "a@x"}, {"address": "b@x"}], "a@x"),
        ([], ABSENT, ABSENT),
        (None, ABSENT, ABSENT),
        (ABSENT, ABSENT, ABSENT),
        ([{"verified": True}], [{"verified": True}], ABSENT),
    ],
    ids=["two", "empty", "null", "none", "without address"],
)
def test_email_addresses(emails: Any, native: Any, guide: Any) -> None:
    of = context(visitor={"_id": "visitor1"} if emails is ABSENT else visitor(visitorEmails=emails))

    assert member(payload(NATIVE, of), "visitor.email") == native
    assert member(payload(GUIDE, of), "visitor.email") == guide


@pytest.mark.parametrize(
    ("phones", "native", "guide"),
    [
        ([{"phoneNumber": "1"}, {"phoneNumber": "2"}], [{"phoneNumber": "1"}, {"phoneNumber": "2"}], "1"),
        ([], ABSENT, ABSENT),
        (None, ABSENT, ABSENT),
        (ABSENT, ABSENT, ABSENT),
    ],
    ids=["two", "empty", "null", "none"],
)
def test_phone_numbers(phones: Any, native: Any, guide: Any) -> None:
    of = context(visitor={"_id": "visitor1"} if phones is ABSENT else visitor(phone=phones))

    assert member(payload(NATIVE, of), "visitor.phone") == native
    assert member(payload(GUIDE, of), "visitor.phone") == guide


@both
@pytest.mark.parametrize(
    ("user_agent", "os", "browser"),
    [(CHROME, "Windows 10", "Chrome 133.0.0.0"), ("", ABSENT, ABSENT), (None, ABSENT, ABSENT), ("curl", ABSENT, ABSENT)],
    ids=["Chrome", "empty", "null", "unknown"],
)  # fmt: skip
def test_system_and_browser(profile: Profile, user_agent: str | None, os: Any, browser: Any) -> None:
    content = payload(profile, context(visitor=visitor(userAgent=user_agent)))

    assert (member(content, "visitor.os"), member(content, "visitor.browser")) == (os, browser)


@pytest.mark.parametrize(
    ("department", "name", "native", "guide"),
    [
        ("department2", "Sales", "department2", "Sales"),
        ("department2", None, "department2", "department2"),
        (ABSENT, None, ABSENT, ABSENT),
    ],
    ids=["known", "unknown", "none"],
)
def test_the_department_is_the_visitors_and_guide_names_it(department: Any, name: str | None, native: Any, guide: Any) -> None:
    guest = visitor() if department is ABSENT else visitor(department=department)
    of = context(room=room(departmentId="department1"), visitor=guest, department=name)

    assert member(payload(NATIVE, of), "visitor.department") == native
    assert member(payload(GUIDE, of), "visitor.department") == guide
    assert payload(NATIVE, of)["departmentId"] == payload(GUIDE, of)["departmentId"] == "department1"


# Agent.


@both
def test_without_an_agent_there_is_none(profile: Profile) -> None:
    assert "agent" not in payload(profile, context(room=room(servedBy=served_by(1)), agent=None))


DEFINED = '{"extension":{"sendToIntegrations":true},"secret":{"sendToIntegrations":false},"other":{}}'


@both
@pytest.mark.parametrize(
    ("fields", "definitions", "sent"),
    [
        ({"secret": "x", "extension": "4711"}, DEFINED, {"extension": "4711"}),
        ({"extension": None}, DEFINED, {"extension": None}),
        ({"secret": "x", "other": "y", "undefined": "z"}, DEFINED, {}),
        ({"extension": "4711"}, '{"extension":{"sendToIntegrations":"true"}}', {}),
        ({"extension": "4711"}, "{not JSON", {}),
        ({"extension": "4711"}, "[1]", {}),
        ({"extension": "4711"}, "null", {}),
        ({"extension": "4711"}, '{"extension":true}', {}),
        ({"extension": "4711"}, "", {}),
        ({"extension": "4711"}, None, {}),
        ({}, DEFINED, {}),
        (None, DEFINED, ABSENT),
        (ABSENT, DEFINED, ABSENT),
    ],
    ids=[
        "exported", "exported null", "none exported", "not a boolean", "no JSON", "a list", "JSON null", "no definition",
        "empty text", "no setting", "empty", "null", "no fields",
    ],
)  # fmt: skip
def test_custom_fields_of_an_agent(profile: Profile, fields: Any, definitions: str | None, sent: Any) -> None:
    of = context(
        agent=agent() if fields is ABSENT else agent(customFields=fields),
        settings={} if definitions is None else {"Accounts_CustomFields": definitions},
    )

    assert member(payload(profile, of), "agent.customFields") == sent


@both
@pytest.mark.parametrize(
    ("emails", "sent"),
    [([{"address": "a@x"}, {"address": "b@x"}], "a@x"), ([], ABSENT), (None, ABSENT), ([{"verified": True}], ABSENT)],
    ids=["two", "empty", "null", "without address"],
)
def test_the_email_address_of_an_agent_is_a_text(profile: Profile, emails: Any, sent: Any) -> None:
    assert member(payload(profile, context(agent=agent(emails=emails))), "agent.email") == sent


# Additional members by type.


@pytest.mark.parametrize(
    ("event_type", "expected"),
    [
        (EventType.SESSION_START, ["departmentId"]),
        (EventType.SESSION_TAKEN, ["departmentId", "servedBy"]),
        (EventType.SESSION, ["departmentId", "servedBy", "closedAt", "closedBy", "closer"]),
        (EventType.MESSAGE, []),
    ],
    ids=str,
)
def test_what_follows_the_messages(event_type: EventType, expected: list[str]) -> None:
    of = context(event_type, room=full().room)
    native, guide = list(payload(NATIVE, of)), list(payload(GUIDE, of))

    assert native[native.index("messages") + 1 :] == expected
    assert guide[guide.index("messages") + 1 :] == ["crmData", *expected]
    assert payload(NATIVE, of)["type"] == payload(GUIDE, of)["type"] == event_type.value


def test_members_without_a_value_do_not_follow() -> None:
    content = payload(NATIVE, context(EventType.SESSION, room=room(closedAt=moment(60), closer="visitor")))

    assert list(content)[-2:] == ["closedAt", "closer"]


# Messages: which.

AS_MESSAGE = "Livechat_Visitor_navigation_as_a_message"
IN_WEBHOOK = "Send_visitor_navigation_history_livechat_webhook_request"


@both
@pytest.mark.parametrize("kind", [*SYSTEM_TYPES, "anything else"])
def test_system_messages_are_left_out(profile: Profile, kind: str) -> None:
    assert payload(profile, context(), message(t=kind))["messages"] == []


@both
@pytest.mark.parametrize(
    ("document", "listed"),
    [
        (message(), True),
        (message(t=None), True),
        (message(t=""), True),
        (message(tmid="thread1"), True),
        (message(_hidden=False), True),
        (message(_hidden=True), False),
        ({**closing_message(), "_hidden": True}, False),
        (closing_message(), True),
    ],
    ids=["text", "null type", "empty type", "thread", "not hidden", "hidden", "hidden closing", "closing"],
)
def test_which_messages_are_listed(profile: Profile, document: Json, listed: bool) -> None:
    assert len(payload(profile, context(), document)["messages"]) == listed


@both
@pytest.mark.parametrize(
    ("settings", "listed"),
    [
        ({AS_MESSAGE: True, IN_WEBHOOK: True}, True),
        ({AS_MESSAGE: True, IN_WEBHOOK: False}, False),
        ({AS_MESSAGE: False, IN_WEBHOOK: True}, False),
        ({AS_MESSAGE: True}, False),
        ({IN_WEBHOOK: True}, False),
        ({AS_MESSAGE: "true", IN_WEBHOOK: "true"}, False),
        ({}, False),
    ],
    ids=["both", "message only", "webhook only", "message alone", "webhook alone", "texts", "none"],
)
def test_page_views_are_listed_when_both_settings_say_so(profile: Profile, settings: Json, listed: bool) -> None:
    navigation = {"page": {"title": "Home", "location": {"href": "https://example.org"}}, "token": "token1"}
    view = message(t="livechat_navigation_history", navigation=navigation)
    of = context(settings=settings)

    assert [found["navigation"] for found in payload(profile, of, view)["messages"]] == [navigation] * listed
    assert payload(profile, of, {**view, "_hidden": True})["messages"] == []


@both
def test_messages_keep_the_order_in_which_they_come(profile: Profile) -> None:
    content = payload(profile, context(), message("b"), agent_message("a"), message("x", t="uj"), message("c"))

    assert [found["_id"] for found in content["messages"]] == ["b", "a", "c"]


# Messages: what.


def sent(profile: Profile, document: Json, *, uploads: tuple[Json, ...] = (), **more: Any) -> Json:
    found: Json = payload(profile, context(EventType.MESSAGE, **more), document, uploads=uploads)["messages"][0]
    return found


def test_the_members_of_a_native_message_in_their_order() -> None:
    document = file_message(
        msg="See",
        blocks=[{"type": "section"}],
        editedAt=moment(9),
        editedBy={"_id": "agent1", "username": "maria.keller"},
        u={"_id": "agent1", "username": "maria.keller"},
        navigation={"page": {}},
        t="livechat-close",
    )

    assert list(sent(NATIVE, document, uploads=(upload(),))) == [
        "u", "_id", "username", "msg", "blocks", "ts", "rid", "editedAt", "agentId", "navigation", "closingMessage", "file",
        "attachments", "fileUpload", "_updatedAt",
    ]  # fmt: skip


BLOCKS = [{"type": "section", "n": 1.0, "text": "ü"}]
BLOCKS_TEXT = '[{"type":"section","n":1,"text":"ü"}]'


@pytest.mark.parametrize(
    ("parts", "native", "guide"),
    [
        ({"msg": "Hello"}, "Hello", "Hello"),
        ({"msg": " "}, " ", " "),
        ({"msg": "Hello", "blocks": BLOCKS}, "Hello", "Hello"),
        ({"msg": "", "blocks": BLOCKS}, BLOCKS_TEXT, BLOCKS_TEXT),
        ({"blocks": BLOCKS}, BLOCKS_TEXT, BLOCKS_TEXT),
        ({"msg": "", "blocks": []}, "[]", "[]"),
        ({"msg": ""}, ABSENT, ""),
        ({"msg": None}, ABSENT, ""),
        ({}, ABSENT, ""),
    ],
    ids=["text", "blank", "text and blocks", "blocks", "blocks without msg", "empty blocks", "empty", "null", "none"],
)
def test_the_text_of_a_message(parts: Json, native: Any, guide: Any) -> None:
    textless = message()
    del textless["msg"]

    assert sent(NATIVE, {**textless, **parts}).get("msg", ABSENT) == native
    assert sent(GUIDE, {**textless, **parts}).get("msg", ABSENT) == guide


@both
@pytest.mark.parametrize(("blocks", "listed"), [(BLOCKS, True), ([], False), (None, False)], ids=["some", "empty", "null"])
def test_blocks_are_listed_when_there_are_some(profile: Profile, blocks: Any, listed: bool) -> None:
    assert ("blocks" in sent(profile, message(blocks=blocks))) is listed


@both
@pytest.mark.parametrize(
    ("edited", "listed"),
    [
        ({"editedAt": moment(9), "editedBy": {"_id": "agent1"}}, True),
        ({"editedAt": moment(9), "editedBy": {"_id": None}}, False),
        ({"editedAt": moment(9), "editedBy": {"username": "maria.keller"}}, False),
        ({"editedAt": moment(9), "editedBy": "agent1"}, False),
        ({"editedAt": moment(9)}, False),
        ({"editedAt": "2026-11-23", "editedBy": {"_id": "agent1"}}, False),
        ({"editedAt": None, "editedBy": {"_id": "agent1"}}, False),
        ({"editedBy": {"_id": "agent1"}}, False),
        ({}, False),
    ],
    ids=["date and editor", "null id", "no id", "editor is text", "no editor", "text", "null", "no date", "never"],
)
def test_when_a_message_counts_as_edited(profile: Profile, edited: Json, listed: bool) -> None:
    expected = "2026-11-23T08:00:09.000Z" if listed else ABSENT

    assert sent(profile, message(**edited)).get("editedAt", ABSENT) == expected


@both
@pytest.mark.parametrize(
    ("author", "guest", "agent_id"),
    [
        ({"_id": "visitor1", "username": "guest-42"}, visitor(), ABSENT),
        ({"_id": "visitor1", "username": "guest-7"}, visitor(), "visitor1"),
        ({"_id": "agent1", "username": "guest-42"}, visitor(), ABSENT),
        ({"_id": "agent1", "username": "maria.keller"}, visitor(), "agent1"),
        ({"_id": "rocket.cat", "username": "rocket.cat"}, visitor(), "rocket.cat"),
        ({"_id": "visitor1"}, {"_id": "visitor1"}, ABSENT),
        ({"_id": "agent1", "username": "maria.keller"}, {"_id": "visitor1"}, "agent1"),
        ({"username": "maria.keller"}, visitor(), ABSENT),
    ],
    ids=[
        "visitor", "visitor, renamed since", "same username", "agent", "rocket.cat", "both without username",
        "visitor without username", "author without id",
    ],
)  # fmt: skip
def test_the_agent_is_told_by_the_username(profile: Profile, author: Json, guest: Json, agent_id: Any) -> None:
    assert sent(profile, message(u=author), visitor=guest).get("agentId", ABSENT) == agent_id


@both
def test_the_visitors_own_closing_message(profile: Profile) -> None:
    found = sent(profile, message(t="livechat-close"))

    assert found["closingMessage"] is True
    assert "agentId" not in found


@both
def test_other_messages_do_not_close(profile: Profile) -> None:
    assert "closingMessage" not in sent(profile, message())


# Files.

PROTECTED = {"FileUpload_ProtectFiles": True, "FileUpload_Enable_json_web_token_for_files": True}
SITE = {"Site_Url": "https://chat.example.org/"}
LINK = "https://chat.example.org/file-upload/upload1/parcel%20box.jpg"


def test_a_file_message_without_text() -> None:
    assert "msg" not in sent(NATIVE, file_message(), uploads=(upload(),))
    assert sent(GUIDE, file_message(), uploads=(upload(),))["msg"] == ""


@both
def test_a_file_with_its_upload(profile: Profile) -> None:
    document = file_message()
    found = sent(profile, document, uploads=(upload(type="image/webp", size=7),), settings=SITE)

    assert (found["file"], found["attachments"]) == (document["file"], document["attachments"])
    assert list(found["fileUpload"].items()) == [("publicFilePath", LINK), ("type", "image/webp"), ("size", 7)]


@both
def test_a_file_whose_upload_is_gone(profile: Profile) -> None:
    found = sent(profile, file_message(), settings={**SITE, **PROTECTED})

    assert "file" in found
    assert "fileUpload" not in found


@both
def test_a_file_that_says_itself_where_it_is(profile: Profile) -> None:
    stored = {"publicFilePath": "https://elsewhere.example.org/a", "type": "x", "size": 1}
    document = file_message(fileUpload=stored)

    assert sent(profile, document, uploads=(upload(),), settings={**SITE, **PROTECTED})["fileUpload"] == stored
    assert needed_uploads(document) == set()


@both
def test_attachments_without_a_file_are_not_sent(profile: Profile) -> None:
    found = sent(profile, message(attachments=[{"text": "quote"}], fileUpload={"publicFilePath": "x"}))

    assert {"file", "attachments", "fileUpload"}.isdisjoint(found)


@both
@pytest.mark.parametrize(
    ("settings", "token"),
    [
        (PROTECTED, True),
        ({**PROTECTED, "FileUpload_ProtectFiles": False}, False),
        ({**PROTECTED, "FileUpload_Enable_json_web_token_for_files": False}, False),
        ({}, False),
    ],
    ids=["protected", "not protected", "without tokens", "not set"],
)
def test_which_files_get_a_token(profile: Profile, settings: Json, token: bool) -> None:
    of = context(EventType.MESSAGE, settings={**SITE, **settings})
    content = payload(profile, of, file_message(), uploads=(upload(),), plain=False)

    link = content["messages"][0]["fileUpload"]["publicFilePath"]
    assert link == (FileLink(LINK, "room1", "visitor1", "upload1") if token else LINK)
    assert len(encode(content).files) == token


@both
@pytest.mark.parametrize("protection", [PROTECTED, {}], ids=["protected", "open"])
def test_a_file_without_a_name_has_an_empty_link(profile: Profile, protection: Json) -> None:
    found = sent(profile, file_message(), uploads=(upload(name=""),), settings={**SITE, **protection})

    assert found["fileUpload"] == {"publicFilePath": "", "type": "image/jpeg", "size": 48213}


@pytest.mark.parametrize("protection", [PROTECTED, {}], ids=["protected", "open"])
def test_a_link_ends_at_the_second_question_mark(protection: Json) -> None:
    found = sent(NATIVE, file_message(), uploads=(upload(name="a?b?c.png"),), settings={**SITE, **protection})

    assert found["fileUpload"]["publicFilePath"] == "https://chat.example.org/file-upload/upload1/a?b"


def test_which_uploads_are_needed() -> None:
    one, two = file_message(), file_message(file={"_id": "upload2"})

    others = (message(), message(file={}), message(file=None), message(file="x"))
    assert needed_uploads(*others, one, two, one) == {"upload1", "upload2"}


# Offline messages.


@pytest.mark.parametrize(
    ("name", "guest"),
    [
        ("Erika Beispiel", {"name": "Erika Beispiel", "email": "erika@example.org"}),
        ("", {"name": "", "email": "erika@example.org"}),
        (None, {"email": "erika@example.org"}),
    ],
    ids=["named", "empty", "none"],
)
def test_an_offline_message(name: str | None, guest: Json) -> None:
    body = offline_payload(name=name, email="erika@example.org", text="Hello,\nmy lamp is broken.", seconds=0.412)

    assert list(orjson.loads(body.content).items()) == [
        ("type", "LivechatOfflineMessage"),
        ("sentAt", "2026-11-23T08:00:00.412Z"),
        ("visitor", guest),
        ("message", "Hello,\nmy lamp is broken."),
    ]


def test_building_changes_nothing_that_it_is_given() -> None:
    of, document, row = full(), file_message(blocks=BLOCKS), upload()
    before = repr((of, document, row))

    for profile in Profile:
        payload(profile, of, document, uploads=(row,))

    assert repr((of, document, row)) == before
