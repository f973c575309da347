"""Every secret of a configuration, so that the log can hide them wherever they would appear."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qsl, unquote, unquote_plus

from pydantic import BaseModel, HttpUrl, SecretStr


def secrets_of(value: object) -> Iterator[str]:
    """Values of secret fields, contents of the files that hold secrets, and of URLs the password and what is in the query."""
    match value:
        case BaseModel():
            for name in type(value).model_fields:
                field = getattr(value, name)
                yield from secrets_of(field)
        case Path():  # every file that a configuration names holds something secret
            yield from _of_file(value)
        case SecretStr():
            yield from _of_text(value.get_secret_value())
        case HttpUrl():
            yield from _of_url(str(value))
        case Mapping():
            for member in value.values():
                yield from secrets_of(member)
        case list() | tuple():
            for member in value:
                yield from secrets_of(member)


def _of_file(path: Path) -> Iterator[str]:
    with suppress(OSError, UnicodeDecodeError):  # whoever needs it says so
        for line in Path(os.path.expandvars(path)).read_text(encoding="utf-8").splitlines():
            yield from _of_text(line.strip())


def _of_text(text: str) -> Iterator[str]:
    if "://" in text:
        yield from _of_url(text)
        return
    yield text
    scheme, space, credentials = text.partition(" ")  # a header such as `Authorization: Bearer ...`
    if space and scheme.isalpha():
        yield credentials


def _of_url(url: str) -> Iterator[str]:
    rest = url.partition("://")[2]
    mongodb = url.startswith("mongodb")
    userinfo, _, _ = (rest if mongodb else rest.partition("/")[0]).rpartition("@")
    user, _, password = userinfo.partition(":")
    # A user beside a password is a name, which may be an ordinary word; alone it is a key.
    for secret in (userinfo, password or user):
        yield from (secret, unquote(secret), unquote_plus(secret))
    if not mongodb:
        query = rest.partition("?")[2].partition("#")[0]
        yield query
        yield from (secret for _, secret in parse_qsl(query))
        yield from (pair.partition("=")[2] for pair in query.split("&"))
