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


def file_link(site_url: str, upload: Document, *, room: str, user: str, token: bool) -> str | FileLink:
    """The link that Rocket.Chat 6.2 and later builds; empty for an upload without a name, as there.

    With `token` it is a link that gets one. A name with a question mark loses the token and what follows a second one, because
    Rocket.Chat's getURL keeps one query and drops an empty one.
    """
    name = str(upload.get("name") or "")
    if not name:
        return ""
    path, mark, query = quote(name, safe=_ENCODE_URI_SAFE).partition("?")
    url = f"{site_url.strip().rstrip('/')}/file-upload/{upload['_id']}/{path}"
    if mark:
        query = query.partition("?")[0]
        return f"{url}?{query}" if query else url
    return FileLink(url, room, user, str(upload["_id"])) if token else url


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

    Up to Rocket.Chat 6.1 it does not name the room: `room` is empty. Signed by hand, because an empty secret is
    Rocket.Chat's default and token libraries refuse it.
    """
    issued = int(now.timestamp())
    claims = {
        "iat": issued,
        "nbf": issued,
        "exp": issued + _LIFETIME_S,
        "aud": "RocketChat",
        "context": {**({"rid": room} if room else {}), "userId": user, "fileId": file},
    }
    signed = b".".join(_base64url(orjson.dumps(part)) for part in ({"typ": "JWT", "alg": "HS256"}, claims))
    return signed + b"." + _base64url(hmac.new(secret.encode(), signed, hashlib.sha256).digest())


def _base64url(data: bytes) -> bytes:
    return base64.urlsafe_b64encode(data).rstrip(b"=")
