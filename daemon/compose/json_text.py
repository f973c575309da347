"""JSON as Rocket.Chat's JavaScript writes it, and the places in it where a file link gets its token later."""

from __future__ import annotations

import base64
import math
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

import orjson
from bson.datetime_ms import DatetimeMS

from daemon.model import Body

ABSENT: Any = object()
"""JavaScript's undefined: the member vanishes."""

_LARGEST_EXACT_INTEGER = 2**53
_FARTHEST_DATE = 8_640_000_000_000_000  # milliseconds
_DATE_LENGTH = len("2026-11-23T08:00:00.120")
_CYCLE = 146_097 * 86_400_000  # milliseconds in 400 years


class Members(dict[str, Any]):
    """An object that is `ready`: its keys are names, none an array index, and each of its values was made ready."""


@dataclass(frozen=True, slots=True)
class FileLink:
    """A link to a protected file; Rocket.Chat accepts it with a token that names room, author and file."""

    url: str
    room: str
    user: str
    file: str


@dataclass(frozen=True, slots=True)
class AnswerSlot:
    """The place of the last answer of a CRM, a member that is never the first one of its object.

    `value` stands there unless an endpoint has an answer of its own; `ABSENT` leaves it out.
    """

    value: Any


READY = frozenset({str, bool, type(None), datetime, Members, FileLink, AnswerSlot, orjson.Fragment})
"""Types whose values are `ready` as they are."""
_MARK = secrets.token_hex(16)
_LEFT_TO_US = orjson.OPT_PASSTHROUGH_DATETIME | orjson.OPT_PASSTHROUGH_DATACLASS


def encode(payload: Mapping[str, Any]) -> Body:
    """The bytes of `payload`: no blanks, UTF-8, keys in the given order, dates with three decimals and Z, integral numbers
    without .0.

    A `FileLink` becomes its URL, and the place of its token is listed in the body's `files`; an `AnswerSlot` becomes its
    value, and its place is the body's `answer`.
    """
    made = ready(payload)
    marks = _Marks(_MARK)
    while len(pieces := marks.pieces(made)) != len(marks.items) + 1:  # somebody wrote a text that looks like a mark
        marks = _Marks(secrets.token_hex(16))
    content = bytearray(pieces[0])
    files: list[tuple[int, str, str, str]] = []
    answer: tuple[int, int] | None = None
    for item, piece in zip(marks.items, pieces[1:], strict=True):
        if isinstance(item, FileLink):
            files.append((len(content), item.room, item.user, item.file))
            content += piece
        else:
            # The mark stands as a text: ...,"crmData":"<mark>"...
            start = content.rindex(b",")
            value = b"" if item.value is ABSENT else marks.json(ready(item.value))
            if value:
                content[-1:] = value
            else:
                del content[start:]
            answer = (start, len(content))
            content += piece[1:]
    return Body(bytes(content), tuple(files), answer)


def with_answer(body: Body, answer: bytes | None) -> Body:
    """`body` with `answer` (JSON) as its `crmData`; None leaves it as it is."""
    if body.answer is None or answer is None:
        return body
    start, end = body.answer
    inserted = b',"crmData":' + answer
    moved = len(inserted) - (end - start)
    files = tuple((offset + moved if offset >= end else offset, *names) for offset, *names in body.files)
    content = body.content[:start] + inserted + body.content[end:]
    return Body(content, files, (start, start + len(inserted)))  # type: ignore[arg-type]


class _Marks:
    """What stands in the text as a mark, in order."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.items: list[FileLink | AnswerSlot] = []

    def json(self, value: Any) -> bytes:
        """`value`, which is `ready`, as JSON."""
        return orjson.dumps(value, self._write, _LEFT_TO_US)

    def pieces(self, value: Any) -> list[bytes]:
        """The same, cut where the marks stand."""
        return self.json(value).split(self.text.encode())

    def _write(self, value: Any) -> str:
        if isinstance(value, datetime):
            return date_text(value)
        self.items.append(value)
        return f"{value.url}?token={self.text}" if isinstance(value, FileLink) else self.text


def text(value: Any) -> str:
    """`JSON.stringify(value)`."""
    return _Marks("").json(ready(value)).decode()


def written(value: Members) -> Any:
    """`value`, which has no place for anything that comes later, as a part of payloads that is written once for all of them."""
    return orjson.Fragment(_Marks("").json(value))


def ready(value: Any) -> Any:
    """What `orjson` writes as JavaScript would, but for what it asks for: dates, links and slots.

    First, by exact type, what nearly all values are: they are many.
    """
    kind = type(value)
    if kind in READY:
        return value
    if kind is dict:
        return {key: item if type(item) in READY else ready(item) for key, item in _javascript_order(value)}
    if kind is list:
        return [item if type(item) in READY else ready(item) for item in value]
    return _ready_other(value)


def _ready_other(value: Any) -> Any:
    match value:
        case bool() | str() | datetime():
            return value
        case Mapping():
            return {str(key): ready(item) for key, item in _javascript_order(value)}
        case list() | tuple():
            return [ready(item) for item in value]
        case int():
            return int(value) if abs(value) <= _LARGEST_EXACT_INTEGER else _number(float(value))
        case float():
            return _number(value)
        case DatetimeMS():
            return _far_date_text(int(value))
        case bytes():
            return base64.b64encode(value).decode()
        case _:  # ObjectId and other BSON values that do not occur in livechat documents
            return str(value)


@lru_cache(maxsize=1024)  # a message, its room and its updates have the same dates
def date_text(value: datetime) -> str:
    """`2026-11-23T08:00:00.120Z`, as `Date.prototype.toISOString` gives it. Without a zone it is in UTC."""
    text = value.isoformat("T", "milliseconds")
    if value.tzinfo is not None and not text.endswith("+00:00"):
        text = value.astimezone(UTC).isoformat("T", "milliseconds")
    return f"{text[:_DATE_LENGTH]}Z"


def _far_date_text(milliseconds: int) -> str | None:
    """A date outside the years 1 to 9999, which Python cannot hold; beyond what JavaScript can hold either: null."""
    if abs(milliseconds) > _FARTHEST_DATE:
        return None
    # The calendar repeats every 400 years.
    near = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=milliseconds % _CYCLE)
    year = near.year + (milliseconds // _CYCLE) * 400
    sign = "-" if year < 0 else "+"
    shown = f"{year:04d}" if 0 <= year <= 9999 else f"{sign}{abs(year):06d}"
    return f"{shown}{date_text(near)[4:]}"


def _javascript_order(value: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    """A JavaScript object lists keys that are array indices first, rising, and then the others in their order."""
    if not value or min(value) > "9\U0010ffff":  # no key begins with a digit, nor with anything before digits
        return value.items()
    indices = sorted((key for key in value if _is_index(key)), key=int)
    return [(key, value[key]) for key in (*indices, *(key for key in value if not _is_index(key)))]


def _is_index(key: str) -> bool:
    return len(key) <= 10 and key.isascii() and key.isdigit() and str(int(key)) == key and int(key) < 2**32 - 1


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
