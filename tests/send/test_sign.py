"""Signatures are verified by the package that receivers use."""

from __future__ import annotations

import base64
from datetime import timedelta
from pathlib import Path

import pytest
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from daemon.clock import SystemClock
from daemon.send.client import Sender
from daemon.send.sign import Signer
from tests.clocks import START, FakeClock
from tests.send.conftest import BODY, DELIVERY, Post, Receiver, endpoint

OLD = "whsec_" + base64.b64encode(b"o" * 24).decode()
NEW = "whsec_" + base64.b64encode(b"n" * 64).decode()
OTHER = "whsec_" + base64.b64encode(b"x" * 32).decode()
NAMES = ("webhook-id", "webhook-timestamp", "webhook-signature")


def verify(receiver: Receiver, secret: str, index: int = 0) -> None:
    """Raises when the request of this `index` was not signed with `secret`."""
    Webhook(secret).verify(receiver.bodies[index], dict(receiver.requests[index].headers), json_parse=False)


async def test_a_receiver_verifies_what_it_got(receiver: Receiver, post: Post) -> None:
    await post(receiver.url, signing_secrets=[OLD], secret_token="s3cret")
    verify(receiver, OLD)
    headers = receiver.requests[0].headers
    assert headers["webhook-id"] == headers["X-Livechat-Relay-Event-Id"] == DELIVERY.event_id
    assert headers["X-RocketChat-Livechat-Token"] == "s3cret"


async def test_another_secret_or_another_body_does_not_pass(receiver: Receiver, post: Post) -> None:
    await post(receiver.url, signing_secrets=[OLD])
    with pytest.raises(WebhookVerificationError):
        verify(receiver, OTHER)
    receiver.bodies[0] += b" "
    with pytest.raises(WebhookVerificationError):
        verify(receiver, OLD)


async def test_while_a_secret_is_changed_both_are_good(receiver: Receiver, post: Post) -> None:
    await post(receiver.url, signing_secrets=[NEW, OLD])
    verify(receiver, NEW)
    verify(receiver, OLD)
    with pytest.raises(WebhookVerificationError):
        verify(receiver, OTHER)


async def test_secrets_from_a_file(receiver: Receiver, post: Post, tmp_path: Path) -> None:
    (tmp_path / "secrets").write_text(f"{NEW}\n{OLD}\n")
    await post(receiver.url, signing_secrets_file=str(tmp_path / "secrets"))
    verify(receiver, NEW)
    verify(receiver, OLD)


async def test_without_a_secret_nothing_is_signed(receiver: Receiver, post: Post) -> None:
    await post(receiver.url)
    assert not any(name in receiver.requests[0].headers for name in NAMES)


@pytest.mark.parametrize(
    "content",
    [b"", b" {}\n", b"\xff\x00", "{}".encode("utf-16"), b"x" * 1_500_000],
    ids=["none", "spaces", "bytes", "UTF-16", "long"],
)
async def test_every_byte_that_is_sent_is_signed(receiver: Receiver, post: Post, content: bytes) -> None:
    await post(receiver.url, content=content, signing_secrets=[OLD])
    headers = receiver.requests[0].headers
    assert receiver.bodies == [content]
    at = START.fromtimestamp(int(headers["webhook-timestamp"]), tz=START.tzinfo)
    assert Signer([b"o" * 24]).headers(DELIVERY.event_id, at, content)["webhook-signature"] == headers["webhook-signature"]


async def test_a_later_try_has_the_same_id_and_its_own_time(receiver: Receiver) -> None:
    clock = FakeClock()
    async with Sender("crm", endpoint(receiver.url, signing_secrets=[OLD]), clock=clock) as sender:
        await sender.post(DELIVERY, BODY)
        clock.advance(10.9)
        await sender.post(DELIVERY._replace(attempt=4), BODY)
    first, second = ([request.headers[name] for name in NAMES] for request in receiver.requests)
    assert first[0] == second[0]
    assert (first[1], second[1]) == (str(int(START.timestamp())), str(int((START + timedelta(seconds=10)).timestamp())))
    assert first[2] != second[2]


@pytest.mark.parametrize(
    ("event_id", "sent"), [("Message:a.1763885400.b", "Message:a%2E1763885400%2Eb"), ("Message:ä\n", "Message:%C3%A4%0A")]
)
async def test_an_id_that_a_visitor_chose_moves_no_limit_of_what_is_signed(receiver: Receiver, event_id: str, sent: str) -> None:
    async with Sender("crm", endpoint(receiver.url, signing_secrets=[OLD]), clock=SystemClock()) as sender:
        await sender.post(DELIVERY._replace(event_id=event_id), BODY)
    assert receiver.requests[0].headers["webhook-id"] == sent
    verify(receiver, OLD)
