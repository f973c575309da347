"""JSON as Rocket.Chat's JavaScript writes it, and the places in it where a file link gets its token later."""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson

from daemon.model import Body

_LARGEST_EXACT_INTEGER = 2**53


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link to a protected file; Rocket.Chat accepts it with a token that names room, author and file."""

    url: str
    room: str
    user: str
    file: str


def encode(payload: Mapping[str, Any]) -> Body:
    """The bytes of `payload`: no blanks, UTF-8, keys in the given order, dates with three decimals and Z, integral numbers
    without .0.

    A `FileLink` becomes its URL, and its place is listed in the body's `files`.
    """
    links: list[FileLink] = []
    # The marks are random, so that nobody can write a text that looks like one.
    mark = secrets.token_hex(16)
    text = orjson.dumps(_plain(payload, links, mark))
    if not links:
        return Body(text)
    pieces = text.split(mark.encode())
    files: list[tuple[int, str, str, str]] = []
    offset = 0
    for piece, link in zip(pieces[:-1], links, strict=True):
        offset += len(piece)
        files.append((offset, link.room, link.user, link.file))
    return Body(b"".join(pieces), tuple(files))


def text(value: Any) -> str:
    """`JSON.stringify(value)`."""
    return orjson.dumps(_plain(value, [], "")).decode()


def _plain(value: Any, links: list[FileLink], mark: str) -> Any:
    match value:
        case None | bool() | str():
            return value
        case Mapping():
            return {str(key): _plain(item, links, mark) for key, item in value.items()}
        case list() | tuple():
            return [_plain(item, links, mark) for item in value]
        case datetime():
            return date_text(value)
        case int():
            return int(value) if abs(value) <= _LARGEST_EXACT_INTEGER else _number(float(value))
        case float():
            return _number(value)
        case FileLink():
            links.append(value)
            return f"{value.url}?token={mark}"
        case bytes():
            return base64.b64encode(value).decode()
        case _:  # ObjectId and other BSON values that do not occur in livechat documents
            return str(value)


def date_text(value: datetime) -> str:
    """`2026-11-23T08:00:00.120Z`, as `Date.prototype.toISOString` gives it."""
    return f"{value.astimezone(UTC).replace(tzinfo=None).isoformat(timespec='milliseconds')}Z"


def _number(value: float) -> Any:
    """`Number.prototype.toString`: shortest digits, no .0, exponents below 1e-6 and from 1e21 on."""
    if not math.isfinite(value):
        return None
    if value.is_integer() and abs(value) < _LARGEST_EXACT_INTEGER:
        return int(value)
    digits = repr(value)
    if "e" not in digits:
        return orjson.Fragment(digits.removesuffix(".0"))
    mantissa, _, exponent = digits.partition("e")
    power = int(exponent)
    if -7 < power < 21:
        return orjson.Fragment(_without_exponent(mantissa, power))
    return orjson.Fragment(f"{mantissa.removesuffix('.0')}e{'+' if power > 0 else '-'}{abs(power)}")


def _without_exponent(mantissa: str, power: int) -> str:
    sign, mantissa = ("-", mantissa[1:]) if mantissa.startswith("-") else ("", mantissa)
    whole, _, fraction = mantissa.partition(".")
    fraction = "" if fraction == "0" else fraction
    if power < 0:
        return f"{sign}0.{'0' * (-power - 1)}{whole}{fraction}"
    return f"{sign}{whole}{fraction.ljust(power, '0')}"
