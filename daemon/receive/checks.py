"""Whether a request proves who sent it, as a receiver has to find out."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from daemon.model import TOKEN_HEADER
from daemon.send.sign import ID_HEADER, SIGNATURE_HEADER, TIME_HEADER, Signer

TOLERANCE = timedelta(minutes=5)
"""How old or new a signature may be: a later one is a copy of an old request, or a clock is wrong."""


class Check(StrEnum):
    """What a check found; of a proof that nobody asked for only whether it is there."""

    OK = "ok"
    WRONG = "wrong"
    MISSING = "missing"
    STALE = "of another time (is a clock wrong?)"
    UNKNOWN = "there, not checked"
    NONE = "none"

    @property
    def passed(self) -> bool:
        """Whether the request is accepted as far as this goes."""
        return self in {Check.OK, Check.UNKNOWN, Check.NONE}


@dataclass(frozen=True, slots=True)
class Proofs:
    """What requests have to prove: the token, and a signature with one of the keys."""

    token: str | None = None
    keys: tuple[bytes, ...] = ()

    def check_token(self, headers: Mapping[str, str]) -> Check:
        """Whether the token is the one that is known here."""
        given = headers.get(TOKEN_HEADER)
        if self.token is None:
            return Check.UNKNOWN if given else Check.NONE
        if not given:
            return Check.MISSING
        same = hmac.compare_digest(given.encode("utf-8", "surrogateescape"), self.token.encode())
        return Check.OK if same else Check.WRONG

    def check_signature(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Check:
        """Whether the body is signed with one of the keys, about now."""
        given = headers.get(SIGNATURE_HEADER)
        if not self.keys:
            return Check.UNKNOWN if given else Check.NONE
        message_id, seconds = headers.get(ID_HEADER), headers.get(TIME_HEADER)
        if not given or not message_id or not seconds:
            return Check.MISSING
        proofs = [proof.encode("utf-8", "surrogateescape") for proof in given.split()]
        expected = [signature.encode() for signature in Signer(self.keys).signatures(message_id, seconds, body)]
        if not any(hmac.compare_digest(proof, signature) for proof in proofs for signature in expected):
            return Check.WRONG
        if not seconds.isascii() or not seconds.isdigit() or len(seconds) > 11:
            return Check.WRONG
        return Check.OK if abs(datetime.fromtimestamp(int(seconds), UTC) - now) <= TOLERANCE else Check.STALE
