"""Offline messages that come by Rocket.Chat's own webhook."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import orjson
import pytest

from daemon.compose.intake import RefusedError, offline_event
from daemon.compose.match import Endpoints
from daemon.compose.pairing import Way, pairing
from daemon.compose.payload.offline import OfflinePost
from daemon.config.endpoint import EndpointSection
from daemon.model import EventType, NewEvent, Profile
from tests.compose.build import Json, moment, validator

WEBHOOK: Json = {
    "type": "LivechatOfflineMessage",
    "sentAt": "2026-11-23T08:00:00.412Z",
    "visitor": {"name": "Erika Beispiel", "email": "erika@example.org"},
    "message": "Hello,\nmy lamp is broken.",
}


def endpoints(**filters: dict[str, Any]) -> Endpoints:
    url = "https://crm.example.org"
    return Endpoints({name: EndpointSection.model_validate({"url": url, **more}) for name, more in filters.items()})


CRM = endpoints(crm={})


def taken(webhook: Any, to: Endpoints = CRM) -> NewEvent:
    content = webhook if isinstance(webhook, bytes) else json.dumps(webhook).encode()
    return offline_event(content, to, moment(5))


def with_visitor(**members: Any) -> Json:
    return {**WEBHOOK, "visitor": members}


def test_what_comes_is_what_is_sent() -> None:
    event = taken(WEBHOOK)

    assert (event.type, event.happened_at, event.skipped, event.intent) == (EventType.OFFLINE_MESSAGE, moment(5), None, None)
    assert event.endpoints == {"crm": Profile.GUIDE}
    body = event.bodies[Profile.GUIDE]
    assert list(orjson.loads(body.content).items()) == list(WEBHOOK.items())
    assert (body.files, body.answer) == ((), None)
    validator(EventType.OFFLINE_MESSAGE, Profile.GUIDE).validate(orjson.loads(body.content))


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("2026-11-23T08:00:00.412Z", "2026-11-23T08:00:00.412Z"),
        ("2026-11-23T08:00:00.000Z", "2026-11-23T08:00:00.000Z"),
        ("2026-11-23T08:00:00.001Z", "2026-11-23T08:00:00.001Z"),
        ("2026-11-23T08:00:00Z", "2026-11-23T08:00:00.000Z"),
        ("2026-11-23T09:00:00.412+01:00", "2026-11-23T08:00:00.412Z"),
        ("2026-12-31T23:30:00.000-05:30", "2027-01-01T05:00:00.000Z"),
        ("1969-12-31T23:59:59.999Z", "1969-12-31T23:59:59.999Z"),
    ],
    ids=["milliseconds", "whole second", "one millisecond", "without decimals", "east", "west, next year", "before 1970"],
)
def test_the_time_is_exact(written: str, sent: str) -> None:
    event = taken({**WEBHOOK, "sentAt": written})

    assert orjson.loads(event.bodies[Profile.GUIDE].content)["sentAt"] == sent
    assert event.pairing is not None
    assert event.pairing.at.isoformat(timespec="milliseconds").replace("+00:00", "Z") == sent


@pytest.mark.parametrize(
    ("visitor", "sent"),
    [
        ({"name": "Erika", "email": "e@x.example"}, {"name": "Erika", "email": "e@x.example"}),
        ({"email": "e@x.example"}, {"email": "e@x.example"}),
        ({"name": None, "email": "e@x.example"}, {"email": "e@x.example"}),
        ({"name": "", "email": ""}, {"name": "", "email": ""}),
        ({}, {}),
        ({"name": "Erika", "phone": "1"}, {"name": "Erika"}),
    ],
    ids=["both", "no name", "null name", "empty texts", "nothing", "more"],
)
def test_visitors(visitor: Json, sent: Json) -> None:
    assert orjson.loads(taken(with_visitor(**visitor)).bodies[Profile.GUIDE].content)["visitor"] == sent


def test_members_that_a_later_release_adds_do_no_harm() -> None:
    assert taken({**WEBHOOK, "source": {"type": "widget"}}).id == taken(WEBHOOK).id


@pytest.mark.parametrize(
    ("content", "said"),
    [
        pytest.param(b"", "body: Invalid JSON", id="empty"),
        pytest.param(b"type=LivechatOfflineMessage", "body: Invalid JSON", id="no JSON"),
        pytest.param(b'{"type":"LivechatOfflineMessage"', "body: Invalid JSON", id="cut"),
        pytest.param(b"\xff\xfe{}", "body: Invalid JSON", id="no UTF-8"),
        pytest.param(b"[]", "body: ", id="list"),
        pytest.param(b"null", "body: ", id="null"),
        pytest.param({}, "type: ", id="empty object"),
        pytest.param({**WEBHOOK, "type": "LivechatSession"}, "type: ", id="another event"),
        pytest.param({**WEBHOOK, "type": "livechatofflinemessage"}, "type: ", id="lower case"),
        pytest.param({**WEBHOOK, "sentAt": "yesterday"}, "sentAt: ", id="no time"),
        pytest.param({**WEBHOOK, "sentAt": "2026-11-23T08:00:00.412"}, "sentAt: ", id="no time zone"),
        pytest.param({**WEBHOOK, "sentAt": None}, "sentAt: ", id="null time"),
        pytest.param({**WEBHOOK, "visitor": []}, "visitor: ", id="a list for the visitor"),
        pytest.param({**WEBHOOK, "visitor": None}, "visitor: ", id="no visitor"),
        pytest.param(with_visitor(name=5), "visitor.name: ", id="a number for the name"),
        pytest.param(with_visitor(email=["a"]), "visitor.email: ", id="a list for the address"),
        pytest.param({**WEBHOOK, "message": None}, "message: ", id="null text"),
        pytest.param({**WEBHOOK, "message": 5}, "message: ", id="a number for the text"),
        pytest.param({name: WEBHOOK[name] for name in ("type", "sentAt", "visitor")}, "message: ", id="no text"),
    ],
)
def test_what_is_no_offline_message_is_refused_with_the_reason(content: Any, said: str) -> None:
    with pytest.raises(RefusedError) as error:
        taken(content)
    assert said in str(error.value)


def test_a_refusal_quotes_nothing_of_the_visitor() -> None:
    odd = {"type": "hunter2", "sentAt": "hunter2", "visitor": {"name": ["hunter2"], "email": 5}, "message": {"hunter2": 1}}

    for content in (odd, b'{"message":"hunter2"', json.dumps(odd).encode() + b"hunter2"):
        with pytest.raises(RefusedError) as error:
            taken(content)
        assert "hunter2" not in str(error.value)


def test_half_a_surrogate_pair_in_the_text() -> None:
    """JavaScript writes it so; the rest of the message is not lost with it."""
    event = taken(json.dumps(WEBHOOK).encode().replace(b"lamp", b"\\ud83d"))

    assert all("\N{REPLACEMENT CHARACTER}" in body.content.decode() for body in event.bodies.values())


class TestIds:
    def test_a_repeat_is_the_same_event(self) -> None:
        again = json.dumps(dict(reversed(WEBHOOK.items())), indent=2).encode()
        first, second = taken(WEBHOOK), offline_event(again, CRM, moment(500))

        assert (first.id, first.session, first.pairing) == (second.id, second.session, second.pairing)
        assert first.bodies == second.bodies

    @pytest.mark.parametrize(
        "other",
        [
            {**WEBHOOK, "sentAt": "2026-11-23T08:00:00.413Z"},
            {**WEBHOOK, "message": "Hello"},
            {**WEBHOOK, "message": f"{WEBHOOK['message']} "},
            with_visitor(name="Erika", email="erika@example.org"),
            with_visitor(name="Erika Beispiel", email="erika@example.com"),
            with_visitor(name="erika@example.org", email="Erika Beispiel"),
        ],
        ids=["time", "text", "a blank", "name", "address", "name and address exchanged"],
    )
    def test_another_message_is_another_event(self, other: Json) -> None:
        assert taken(other).id != taken(WEBHOOK).id

    def test_each_is_its_own_session(self) -> None:
        event, other = taken(WEBHOOK), taken({**WEBHOOK, "message": "x"})

        assert event.id.startswith("LivechatOfflineMessage:")
        assert event.session != other.session


class TestEndpoints:
    def test_filters_that_cannot_be_told_let_it_through(self) -> None:
        to = endpoints(
            all={"profile": "native"},
            sales={"departments": ["Sales"]},
            vip={"tags": ["vip"]},
            widget={"sources": ["widget"]},
            sessions={"events": ["LivechatSession"]},
        )
        event = taken(WEBHOOK, to)

        assert event.endpoints.keys() == {"all", "sales", "vip", "widget"}
        assert event.bodies.keys() == {Profile.NATIVE, Profile.GUIDE}
        assert event.bodies[Profile.NATIVE] == event.bodies[Profile.GUIDE]

    def test_where_nobody_wants_it_there_is_nobody(self) -> None:
        event = taken(WEBHOOK, endpoints(sessions={"events": ["LivechatSession"]}))

        assert (event.endpoints, event.bodies) == ({}, {})


class TestPairing:
    """The same message as a post in a channel."""

    @staticmethod
    def key(name: str | None, email: str | None, text: str) -> str:
        return pairing(Way.CHANNEL, OfflinePost(moment(1), name, email, text)).key

    @pytest.mark.parametrize(
        ("name", "email", "text"),
        [
            ("Erika Beispiel", "erika@example.org", "Hello,\nmy lamp is broken."),
            ("Erika Beispiel ", " erika@example.org", "Hello,\nmy lamp is broken.  \n"),
        ],
        ids=["equal", "blanks at the ends"],
    )
    def test_twins(self, name: str, email: str, text: str) -> None:
        event = taken(WEBHOOK)

        assert event.pairing is not None
        assert event.pairing.way == "intake"
        assert event.pairing.key == self.key(name, email, text)
        assert event.pairing.at == moment(0) + timedelta(milliseconds=412)

    @pytest.mark.parametrize("webhook", [with_visitor(email="e@x"), with_visitor(name="", email="e@x")], ids=["none", "empty"])
    def test_a_visitor_without_a_name(self, webhook: Json) -> None:
        event = taken(webhook)

        assert event.pairing is not None
        assert event.pairing.key == self.key(None, "e@x", WEBHOOK["message"])

    @pytest.mark.parametrize(
        ("name", "email", "text"),
        [
            ("Erika", "erika@example.org", WEBHOOK["message"]),
            ("Erika Beispiel", "e@example.org", WEBHOOK["message"]),
            ("Erika Beispiel", "erika@example.org", "Hello, my lamp is broken."),
        ],
        ids=["name", "address", "text"],
    )
    def test_no_twins(self, name: str, email: str, text: str) -> None:
        event = taken(WEBHOOK)

        assert event.pairing is not None
        assert event.pairing.key != self.key(name, email, text)
