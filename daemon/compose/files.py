"""Public links to files, and the tokens that open them."""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime
from urllib.parse import quote

import orjson

from daemon.compose.json_text import FileLink
from daemon.model import Body, Document

_LIFETIME_S = 3600
_ENCODE_URI_SAFE = ";,/?:@&=+$-_.!~*'()#"  # what JavaScript's encodeURI leaves as it is


def file_url(site_url: str, upload: Document) -> str:
    """The link that Rocket.Chat 6.2 and later builds; empty for an upload without a name, as there."""
    name = str(upload.get("name") or "")
    if not name:
        return ""
    base = site_url.strip().removesuffix("/")
    return f"{base}/file-upload/{upload['_id']}/{quote(name, safe=_ENCODE_URI_SAFE)}"


def protected(url: str, *, room: str, user: str, file: str) -> FileLink | str:
    """`url` as a link that gets a token; a name with a question mark loses it, because Rocket.Chat cuts at the second one."""
    if not url:
        return url
    if "?" in url:
        first, second, *_ = url.split("?")
        return f"{first}?{second}"
    return FileLink(url, room, user, file)


def with_tokens(body: Body, secret: str, now: datetime) -> bytes:
    """The bytes to send: `body` with a fresh token in every protected file link, each valid for an hour from `now`."""
    pieces: list[bytes] = []
    start = 0
    for offset, room, user, file in body.files:
        pieces += [body.content[start:offset], file_token(secret, now, room=room, user=user, file=file)]
        start = offset
    return b"".join([*pieces, body.content[start:]])


def file_token(secret: str, now: datetime, *, room: str, user: str, file: str) -> bytes:
    """A JSON Web Token as Rocket.Chat's FileUpload makes it: HS256, valid for an hour.

    Signed by hand, because an empty secret is Rocket.Chat's default and token libraries refuse it.
    """
    issued = int(now.timestamp())
    claims = {
        "iat": issued,
        "nbf": issued,
        "exp": issued + _LIFETIME_S,
        "aud": "RocketChat",
        "context": {"rid": room, "userId": user, "fileId": file},
    }
    signed = b".".join(_base64url(orjson.dumps(part)) for part in ({"typ": "JWT", "alg": "HS256"}, claims))
    return signed + b"." + _base64url(hmac.new(secret.encode(), signed, hashlib.sha256).digest())


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
