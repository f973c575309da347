"""A receiver tells the relay from others."""

from __future__ import annotations

import base64
from datetime import timedelta

import pytest
from standardwebhooks.webhooks import Webhook

from daemon.receive.checks import Check, Proofs
from tests.clocks import START

KEY, OTHER = b"k" * 32, b"o" * 32
BODY = '{"name":"Zoë"}'.encode()
SECONDS = str(int(START.timestamp()))
SIGNATURE = Webhook(KEY).sign("Message:1", START.replace(tzinfo=None), BODY.decode())
WRONG = "v1," + base64.b64encode(b"x" * 32).decode()
SIGNED = {"webhook-id": "Message:1", "webhook-timestamp": SECONDS, "webhook-signature": SIGNATURE}


@pytest.mark.parametrize(
    ("known", "given", "check"),
    [
        ("s3cret", "s3cret", Check.OK),
        ("s3cret", "S3cret", Check.WRONG),
        ("s3cret", "s3crét\udcff", Check.WRONG),
        ("s3cret", "", Check.MISSING),
        ("s3cret", None, Check.MISSING),
        (None, "s3cret", Check.UNKNOWN),
        (None, None, Check.NONE),
    ],
)
def test_token(known: str | None, given: str | None, check: Check) -> None:
    headers = {} if given is None else {"X-RocketChat-Livechat-Token": given}
    assert Proofs(known).check_token(headers) is check
    assert check.passed is (check not in {Check.WRONG, Check.MISSING})


@pytest.mark.parametrize(
    ("keys", "changed", "check"),
    [
        pytest.param((KEY,), {}, Check.OK, id="good"),
        pytest.param((OTHER, KEY), {}, Check.OK, id="one of two keys"),
        pytest.param((KEY,), {"webhook-signature": f"{WRONG} v2,a {SIGNATURE}"}, Check.OK, id="one of some"),
        pytest.param((OTHER,), {}, Check.WRONG, id="another key"),
        pytest.param((KEY,), {"webhook-id": "Message:2"}, Check.WRONG, id="another id"),
        pytest.param((KEY,), {"webhook-timestamp": str(int(SECONDS) + 1)}, Check.WRONG, id="another time"),
        pytest.param((KEY,), {"webhook-timestamp": "now"}, Check.WRONG, id="no time"),
        pytest.param((KEY,), {"webhook-timestamp": "9" * 30}, Check.WRONG, id="beyond all time"),
        pytest.param((KEY,), {"webhook-signature": "nonsense ä\udcff"}, Check.WRONG, id="nonsense"),
        pytest.param((KEY,), {"webhook-signature": ""}, Check.MISSING, id="empty"),
        pytest.param((KEY,), {"webhook-id": ""}, Check.MISSING, id="no id"),
        pytest.param((), {}, Check.UNKNOWN, id="no key"),
        pytest.param((), {"webhook-signature": ""}, Check.NONE, id="no key and no signature"),
    ],
)  # fmt: skip
def test_signature(keys: tuple[bytes, ...], changed: dict[str, str], check: Check) -> None:
    assert Proofs(keys=keys).check_signature({**SIGNED, **changed}, BODY, START) is check


def test_another_body() -> None:
    assert Proofs(keys=(KEY,)).check_signature(SIGNED, BODY + b" ", START) is Check.WRONG


@pytest.mark.parametrize(("minutes", "check"), [(-6, Check.STALE), (-4, Check.OK), (4, Check.OK), (6, Check.STALE)])
def test_a_good_signature_of_another_time(minutes: int, check: Check) -> None:
    assert Proofs(keys=(KEY,)).check_signature(SIGNED, BODY, START + timedelta(minutes=minutes)) is check
