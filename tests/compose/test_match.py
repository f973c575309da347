"""Which endpoints an event goes to."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest

from daemon.compose.match import Endpoints, Traits
from daemon.config.endpoint import EndpointSection
from daemon.model import EventType, Profile
from tests.compose.build import (
    DEPARTMENTS,
    MESSAGES,
    ROOMS,
    SETTINGS,
    VISITORS,
    Database,
    Json,
    Workspace,
    agent_message,
    insert,
    message,
    moment,
    room,
    setting,
    update,
    visitor,
)

SALES, SUPPORT = {"_id": "d1", "name": "Sales"}, {"_id": "d2", "name": "Support"}
EVERYTHING = tuple(EventType)


def wants(**filters: Any) -> EndpointSection:
    return EndpointSection.model_validate({"url": "https://crm.example.org", **filters})


def traits(departments: Collection[str] | None = (), tags: Collection[str] | None = (), source: str | None = "widget") -> Traits:
    return Traits(None if departments is None else frozenset(departments), None if tags is None else frozenset(tags), source)


@pytest.mark.parametrize(
    ("filters", "event", "passes"),
    [
        pytest.param({}, traits(), True, id="no filter"),
        pytest.param({}, traits(["d1"], ["vip"], "sms"), True, id="no filter, everything known"),
        pytest.param({"departments": ["d1"]}, traits(["d1", "Sales"]), True, id="department by id"),
        pytest.param({"departments": ["Sales"]}, traits(["d1", "Sales"]), True, id="department by name"),
        pytest.param({"departments": ["sales"]}, traits(["d1", "Sales"]), False, id="name in other case"),
        pytest.param({"departments": ["d2"]}, traits(["d1", "Sales"]), False, id="another department"),
        pytest.param({"departments": ["d2", "d1"]}, traits(["d1", "Sales"]), True, id="one of two departments"),
        pytest.param({"departments": ["d1"]}, traits([]), False, id="no department"),
        pytest.param({"departments": ["d1"]}, traits(None), True, id="unknown department"),
        pytest.param({"tags": ["vip"]}, traits(tags=["new", "vip"]), True, id="tag"),
        pytest.param({"tags": ["vip"]}, traits(tags=["new"]), False, id="another tag"),
        pytest.param({"tags": ["vip"]}, traits(tags=[]), False, id="no tags"),
        pytest.param({"tags": ["vip"]}, traits(tags=None), True, id="unknown tags"),
        pytest.param({"sources": ["widget", "api"]}, traits(source="api"), True, id="source"),
        pytest.param({"sources": ["widget"]}, traits(source="sms"), False, id="another source"),
        pytest.param({"sources": ["widget"]}, traits(source=""), False, id="no source"),
        pytest.param({"sources": ["widget"]}, traits(source=None), True, id="unknown source"),
        pytest.param({"departments": ["d1"], "tags": ["vip"]}, traits(["d1"], ["vip"]), True, id="both filters"),
        pytest.param({"departments": ["d1"], "tags": ["vip"]}, traits(["d1"], []), False, id="one of both filters"),
        pytest.param({"departments": ["d1"], "tags": ["vip"], "sources": ["sms"]}, Traits(), True, id="nothing known"),
        pytest.param({"events": ["LivechatSession"]}, traits(), False, id="another event"),
        pytest.param({"events": ["LivechatSession", "Message"]}, traits(), True, id="one of two events"),
    ],
)
def test_filters(filters: Json, event: Traits, passes: bool) -> None:
    expected = {"crm": Profile.GUIDE} if passes else {}

    assert Endpoints({"crm": wants(**filters)}).of(EventType.MESSAGE, event) == expected


def test_every_endpoint_decides_for_itself_and_keeps_its_profile() -> None:
    endpoints = Endpoints(
        {
            "all": wants(),
            "sales": wants(departments=["Sales"], profile="native"),
            "support": wants(departments=["Support"]),
            "sessions": wants(events=["LivechatSession"]),
        }
    )

    assert endpoints.of(EventType.MESSAGE, traits(["Sales"])) == {"all": Profile.GUIDE, "sales": Profile.NATIVE}
    assert endpoints.all().keys() == {"all", "sales", "support", "sessions"}


def test_what_nobody_wants() -> None:
    endpoints = Endpoints({"crm": wants(events=["Message"], departments=["d1"]), "cms": wants(events=["LeadCapture"])})

    assert [event for event in EVERYTHING if endpoints.wanted(event)] == [EventType.MESSAGE, EventType.LEAD]
    assert endpoints.of(EventType.SESSION, Traits()) == {}


# With what a workspace tells.


def space(**endpoints: EndpointSection) -> Workspace:
    return Workspace(
        Database({ROOMS: [room(departmentId="d1")], VISITORS: [visitor()], DEPARTMENTS: [SALES, SUPPORT]}), endpoints
    )


def receivers(found: Workspace) -> dict[str, set[str]]:
    return {event.id: set(event.endpoints) for event in found.events}


async def test_a_room_is_matched_by_id_and_name_of_its_department() -> None:
    found = space(by_id=wants(departments=["d1"]), by_name=wants(departments=["Sales"]), other=wants(departments=["d2"]))

    await found.read(insert(MESSAGES, message(), 1))

    assert receivers(found) == {"Message:message1": {"by_id", "by_name"}}


async def test_a_renamed_department_is_matched_by_its_new_name() -> None:
    found = space(old=wants(departments=["Sales"]), new=wants(departments=["Orders"]), by_id=wants(departments=["d1"]))

    await found.read(update(DEPARTMENTS, "d1", {"name": "Orders"}, seconds=1), insert(MESSAGES, message(), 2))

    assert receivers(found) == {"Message:message1": {"new", "by_id"}}


@pytest.mark.parametrize("wanted", ["d1", "Sales", "d2", "Support"])
async def test_a_forward_is_matched_by_either_side(wanted: str) -> None:
    found = space(some=wants(events=["LivechatSessionForwarded"], departments=[wanted]))
    transfer = agent_message("transfer", "", 1, t="livechat_transfer_history", transferData={"scope": "department"})

    await found.read(insert(MESSAGES, transfer, 1), update(ROOMS, "room1", {"departmentId": "d2"}, seconds=1))

    assert receivers(found) == {"LivechatSessionForwarded:room1:transfer": {"some"}}


async def test_after_a_forward_only_the_new_side_counts() -> None:
    found = space(old=wants(departments=["Sales"]), new=wants(departments=["Support"]), third=wants(departments=["d3"]))

    await found.read(update(ROOMS, "room1", {"departmentId": "d2"}, seconds=1), insert(MESSAGES, message(seconds=2), 2))

    assert receivers(found) == {"Message:message1": {"new"}}


async def test_tags_and_source_are_as_of_the_event() -> None:
    found = space(vip=wants(tags=["vip"]), sms=wants(sources=["sms"]), widget=wants(sources=["widget"]))

    await found.read(
        update(ROOMS, "room1", {"source": {"type": "sms"}}, seconds=1),
        insert(MESSAGES, message("one"), 2),
        update(ROOMS, "room1", {"tags": ["new", "vip"]}, seconds=3),
        insert(MESSAGES, message("two"), 4),
        update(ROOMS, "room1", {}, ["tags"], seconds=5),
        insert(MESSAGES, message("three"), 6),
    )

    assert receivers(found) == {"Message:one": {"sms"}, "Message:two": {"vip", "sms"}, "Message:three": {"sms"}}


@pytest.mark.parametrize("odd", [None, "vip", [1, None, {"vip": 1}], {"vip": True}], ids=repr)
async def test_odd_tags_are_none(odd: Any) -> None:
    found = space(vip=wants(tags=["vip"]), all=wants())

    await found.read(update(ROOMS, "room1", {"tags": odd}, seconds=1), insert(MESSAGES, message(), 2))

    assert receivers(found) == {"Message:message1": {"all"}}


POST = (
    "A new Livechat offline Message has been sent: \nVisitor Name: Bob \nVisitor E-mail: bob@client.example \n"
    "Department: Sales \nMessage: my lamp is broken \n"
)


@pytest.mark.parametrize(
    ("wanted", "passes"),
    [
        ("Sales", True),
        ("Support", False),
        ("d1", True),
        ("d2", False),
    ],
    ids=["name", "another name", "id", "another id"],
)
async def test_an_offline_message_is_matched_by_its_department(wanted: str, passes: bool) -> None:
    channel = room("channel1", t="c", name="offline")
    found_settings = [setting("Livechat_OfflineMessageToChannel_channel_name", "offline"), setting("Language", "en")]
    database = Database({ROOMS: [channel], SETTINGS: found_settings, DEPARTMENTS: [SALES, SUPPORT]})
    found = Workspace(database, {"some": wants(departments=[wanted]), "all": wants()})
    cat = {"_id": "rocket.cat", "username": "rocket.cat"}

    await found.read(
        insert(MESSAGES, {"_id": "post1", "rid": "channel1", "msg": POST, "ts": moment(3), "u": cat, "groupable": False}, 3)
    )

    assert receivers(found) == {"LivechatOfflineMessage:post1": {"some", "all"} if passes else {"all"}}


def test_where_no_endpoint_filters_an_event_needs_no_traits() -> None:
    endpoints = Endpoints(
        {"all": wants(events=["Message", "LeadCapture"]), "sales": wants(events=["LeadCapture"], departments=["d1"])}
    )

    assert endpoints.unfiltered(EventType.MESSAGE) == endpoints.of(EventType.MESSAGE, Traits()) == {"all": Profile.GUIDE}
    assert endpoints.unfiltered(EventType.SESSION) == {}
    assert endpoints.unfiltered(EventType.LEAD) is None
