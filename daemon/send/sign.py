"""Signatures as Standard Webhooks describes them: https://www.standardwebhooks.com."""

from __future__ import annotations

import base64
import hmac
from collections.abc import Sequence
from datetime import datetime

ID_HEADER = "webhook-id"
TIME_HEADER = "webhook-timestamp"
SIGNATURE_HEADER = "webhook-signature"


class Signer:
    """Signs with every one of `keys`, so that a receiver that knows one of them accepts."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._started = [hmac.new(key, digestmod="sha256") for key in keys]

    def headers(self, message_id: str, at: datetime, content: bytes) -> dict[str, str]:
        """What proves that `content` was sent by a holder of a key, at `at`. `message_id` is printable ASCII.

        Its full stops are escaped: they separate what is signed, and a visitor may have chosen the id of a message.
        """
        message_id = message_id.replace(".", "%2E")
        seconds = str(int(at.timestamp()))
        return {
            ID_HEADER: message_id,
            TIME_HEADER: seconds,
            SIGNATURE_HEADER: " ".join(self.signatures(message_id, seconds, content)),
        }

    def signatures(self, message_id: str, seconds: str, content: bytes) -> list[str]:
        """One per key."""
        head = f"{message_id}.{seconds}.".encode("utf-8", "surrogateescape")
        return [_signature(started, head, content) for started in self._started]


def _signature(started: hmac.HMAC, head: bytes, content: bytes) -> str:
    mac = started.copy()
    mac.update(head)
    mac.update(content)
    return f"v1,{base64.b64encode(mac.digest()).decode()}"
