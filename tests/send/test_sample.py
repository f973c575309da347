"""The sample is what Rocket.Chat's button "Send Test" sends."""

from __future__ import annotations

import json
from datetime import datetime, timedelta, timezone

import pytest

from daemon.model import EventType
from daemon.send.sample import sample_payload

NOW = datetime(2026, 11, 23, 9, 0, 0, 123456, tzinfo=timezone(timedelta(hours=1)))
# As app/livechat/server/api/v1/webhooks.ts of Rocket.Chat 6.x builds it, through JSON.stringify.
BUTTON = (
    '{"type":"LivechatSession","_id":"fasd6f5a4sd6f8a4sdf","label":"title","topic":"asiodojf","createdAt":"<now>",'
    '"lastMessageAt":"<now>","tags":["tag1","tag2","tag3"],"customFields":{"productId":"123456"},"visitor":{"_id":"",'
    '"name":"visitor name","username":"visitor-username","department":"department","email":"email@address.com",'
    '"phone":"192873192873","ip":"123.456.7.89","browser":"Chrome","os":"Linux","customFields":{"customerId":"123456"}},'
    '"agent":{"_id":"asdf89as6df8","username":"agent.username","name":"Agent Name","email":"agent@email.com"},'
    '"messages":[{"username":"visitor-username","msg":"message content","ts":"<now>"},{"username":"agent.username",'
    '"agentId":"asdf89as6df8","msg":"message content from agent","ts":"<now>"}]}'
).replace("<now>", "2026-11-23T08:00:00.123Z")


def test_byte_for_byte() -> None:
    assert sample_payload(EventType.SESSION, NOW).decode() == BUTTON


@pytest.mark.parametrize(
    ("event", "messages", "agent"),
    [
        (EventType.SESSION_START, 0, False),
        (EventType.SESSION_QUEUED, 0, False),
        (EventType.SESSION_TAKEN, 0, True),
        (EventType.SESSION_FORWARDED, 0, True),
        (EventType.EDIT, 2, True),
        (EventType.MESSAGE, 1, True),
        (EventType.LEAD, 1, True),
    ],
)
def test_other_types_have_what_such_an_event_has(event: EventType, messages: int, *, agent: bool) -> None:
    payload = json.loads(sample_payload(event, NOW))
    assert payload["type"] == event.value
    assert (len(payload["messages"]), "agent" in payload) == (messages, agent)


def test_an_offline_message_has_a_shape_of_its_own() -> None:
    assert list(json.loads(sample_payload(EventType.OFFLINE_MESSAGE, NOW))) == ["type", "sentAt", "visitor", "message"]
