"""config explain: what is said is what the configuration does."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from daemon.config.endpoint import RetrySection
from daemon.config.explain import in_words, round_span
from daemon.model import Body, Delivery, RetryAt, Unreachable
from daemon.relay.schedule import RetryPolicy, decide
from tests.commands.conftest import Write, invoke

SECRET = "hunter2hunter2hunter2hunter2hunter2"
WHSEC = "whsec_" + SECRET + "A"


def explained(path: object) -> str:
    """The text, every sentence on one line."""
    result = invoke("config", "explain", "-c", path)
    assert (result.exit_code, result.stderr) == (0, "")
    assert max(map(len, result.stdout.splitlines())) <= 100
    return result.stdout.replace("\n    ", " ")


def test_the_defaults(write: Write) -> None:
    text = explained(write(secret_token="x"))
    for sentence in (
        "  - Events are posted to https://crm.example.org/hook.\n",
        "  - It gets events of all types.\n",
        "the event gets 10 tries in a round, with a wait of 10 seconds between them. A round takes 1 minute 30 seconds when ",
        "failures come at once, 4 minutes 50 seconds when every try runs into the time-out.\n",
        "one request every 30 seconds finds out whether it is back",
        "No event is tried any more 3 days after the relay read it.",
        "An event is delivered when the answer is 200 and nothing else.",
        "the relay ends with an error: nothing is left out unseen (capture.on_lost_position: fail).\n",
        "What is owed is in /var/lib/livechat-relay/outbox.db. When it has grown to 10GB",
        "carries the token of secret_token in X-RocketChat-Livechat-Token.\n",
        "for 7 days when an event was delivered, for 90 days when it could not be",
    ):
        assert sentence in text
    assert "Beware" not in text
    assert "Authorization" not in text
    assert "signed" not in text


@pytest.mark.parametrize(
    ("keys", "sentence"),
    [
        pytest.param({"events": ["Message"]}, "It gets Message.", id="one event"),
        pytest.param({"events": ["Message", "LivechatSession"]}, "It gets Message and LivechatSession.", id="two events"),
        pytest.param({"departments": ["a", "b"]}, "Only sessions of department a or b. ", id="departments"),
        pytest.param({"tags": ["vip"], "sources": ["sms"]}, "with tag vip, from source sms; all of this", id="filters"),
        pytest.param({"profile": "native"}, "e-mail and phone are lists", id="native"),
        pytest.param({"crm_data": "text"}, "The body of its last answer 200 comes back as crmData", id="crmData"),
        pytest.param({"success": "2xx"}, "when the answer is any status from 200 to 299", id="2xx"),
        pytest.param({"concurrency": 1}, "one session may have a request", id="one at a time"),
        pytest.param({"retry": {"tries": 1}}, "An event gets one try", id="one try"),
        pytest.param({"retry": {"tries": 2}}, "gets 2 tries in a round, with a wait of 10 seconds. ", id="two"),
        pytest.param(
            {"retry": {"tries": 6, "wait": ["10s", "1m", "5m"]}},
            "waits of 10 seconds, 1 minute and 5 minutes, the last one 3 times. A round takes 16 minutes 10 seconds when",
            id="waits",
        ),
        pytest.param({"retry": {"tries": 3, "wait": ["1s", "2s", "1h"]}}, "of 1 second and 2 seconds. A ", id="to spare"),
        pytest.param({"retry": {"jitter": 0.25}}, "Up to 25% is added to each wait at random.", id="jitter"),
        pytest.param({"retry": {"final": [400, 410, 422]}}, "After an answer of 400, 410 or 422 there is no", id="final"),
        pytest.param({"retry": {"honour_retry_after": True}}, "in Retry-After is kept, 1 hour at most", id="Retry-After"),
        pytest.param({"retry": {"outage_probe": "0s"}}, "An event whose round ends without success is dead", id="no outages"),
        pytest.param({"signing_secrets": [WHSEC]}, "signed (Standard Webhooks) with the secret in signing_", id="signed"),
        pytest.param({"signing_secrets": [WHSEC] * 2}, "with each of the 2 secrets in signing_secrets.", id="rotation"),
        pytest.param({"signing_secrets_file": "/s"}, "with every secret in the file /s.", id="signed by a file"),
        pytest.param({"secret_token_file": "${CREDENTIALS_DIRECTORY}/t"}, "file ${CREDENTIALS_DIRECTORY}/t in X-", id="token"),
        pytest.param({"bearer_token_file": "/b"}, "Authorization is made of bearer_token, with the file /b.", id="bearer"),
        pytest.param({"url": f"https://u:{SECRET}@h/"}, "made of user and password in the url.", id="user of the url"),
        pytest.param({"basic_auth": {"username": "u", "password": SECRET}}, "made of basic_auth.", id="basic"),
        pytest.param({"headers": {"X-A": SECRET}}, "More headers: X-A.", id="headers"),
        pytest.param({}, "Beware: nothing tells the receiver", id="no proof"),
        pytest.param({"url": "http://h/"}, "Requests are not encrypted", id="http"),
        pytest.param({"tls": {"ca_file": "/ca"}}, "an authority that is in the file /ca.", id="authority"),
        pytest.param({"tls": {"certificate_file": "/c"}}, "shows its own certificate from the file /c.", id="certificate"),
        pytest.param({"sections": {"send": {"deny": ["10.0.0.0/8"]}}}, "Also not to 10.0.0.0/8.", id="deny"),
        pytest.param({"sections": {"send": {"allow": ["10.0.0.0/8"]}}}, "But always to 10.0.0.0/8", id="allow"),
        pytest.param({"sections": {"capture": {"on_lost_position": "restart"}}}, "Beware: what happened in between", id="lost"),
        pytest.param({"sections": {"intake": {"enabled": True, "secret_token": SECRET}}}, "intake/offline, with", id="intake"),
        pytest.param({"sections": {"mongodb": {"uri_file": "/u"}}}, "on the MongoDB that the file /u names.", id="uri file"),
    ],
)  # fmt: skip
def test_what_is_said(write: Write, keys: dict[str, Any], sentence: str) -> None:
    text = explained(write(**keys))
    assert sentence in text
    assert SECRET not in text


def test_a_setting_of_the_environment_counts(write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIVECHAT_RELAY_ENDPOINTS__CRM__RETRY__TRIES", "3")
    assert "gets 3 tries" in explained(write())


def test_every_endpoint_has_its_own_chapter(write: Write) -> None:
    path = write()
    path.write_text("endpoints: {crm: {url: 'https://a'}, archive: {url: 'https://b'}}")
    text = explained(path)
    assert text.index("\nEndpoint crm\n") < text.index("posted to https://a/.") < text.index("\nEndpoint archive\n")


@pytest.mark.parametrize(("tries", "wait"), [(1, "1s"), (2, "1s"), (10, "10s"), (7, ["1s", "2s", "3s"]), (2, ["1s", "2s", "3s"])])
def test_a_round_takes_as_long_as_the_relay_takes(tries: int, wait: str | list[str]) -> None:
    """By the schedule itself, with failures that come at once."""
    retry = RetrySection.model_validate({"tries": tries, "wait": wait})
    policy = RetryPolicy(tries=retry.tries, waits=retry.waits)
    start = now = datetime(2026, 11, 23, tzinfo=UTC)
    for failures in range(tries):
        delivery = Delivery("crm", 1, "e", "Message", "s", failures + 1, failures, start, start, start, Body(b""))
        verdict = decide(Unreachable("x", 0), delivery, policy, now=now, last_success_at=None)
        if isinstance(verdict, RetryAt):
            now = verdict.due
    assert now - start == round_span(retry)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (timedelta(0), "no time"),
        (timedelta(milliseconds=50), "50 milliseconds"),
        (timedelta(seconds=1.5), "1500 milliseconds"),
        (timedelta(seconds=1), "1 second"),
        (timedelta(seconds=90), "1 minute 30 seconds"),
        (timedelta(days=1, hours=1, minutes=1), "1 day 1 hour"),
        (timedelta(days=90), "90 days"),
        (timedelta(minutes=5), "5 minutes"),
    ],
)
def test_durations_in_words(value: timedelta, text: str) -> None:
    assert in_words(value) == text
