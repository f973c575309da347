from __future__ import annotations

import json
import math
import re
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import orjson
import pytest
from bson import Binary, Int64, ObjectId
from bson.datetime_ms import DatetimeMS
from hypothesis import example, given, settings
from hypothesis import strategies as st

from daemon.compose import json_text
from daemon.compose.json_text import FileLink, date_text, encode, text

LINK = FileLink("https://chat.example.org/file-upload/f1/a.png", "room1", "user1", "f1")


def written(value: Any) -> str:
    return encode({"v": value}).content.decode().removeprefix('{"v":').removesuffix("}")


# Numbers: what `JSON.stringify` gives in Node 20.
@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, "0"),
        (-1, "-1"),
        (10.0, "10"),
        (-10.0, "-10"),
        (0.0, "0"),
        (-0.0, "0"),
        (2472.225, "2472.225"),
        (0.1 + 0.2, "0.30000000000000004"),
        (-0.5, "-0.5"),
        (0.00001234, "0.00001234"),
        (0.000001, "0.000001"),
        (1.5e-6, "0.0000015"),
        (-1.5e-6, "-0.0000015"),
        (9.999e-7, "9.999e-7"),
        (1e-7, "1e-7"),
        (1.5e-7, "1.5e-7"),
        (-1.5e-7, "-1.5e-7"),
        (5e-324, "5e-324"),
        (1e15, "1000000000000000"),
        (1e16, "10000000000000000"),
        (1.5e16, "15000000000000000"),
        (9.5e20, "950000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (-123456789012345680000.0, "-123456789012345680000"),
        (1e21, "1e+21"),
        (-1e21, "-1e+21"),
        (1.5e300, "1.5e+300"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (2.0**53, "9007199254740992"),
        (2.0**53 + 2, "9007199254740994"),
        (2**53 - 1, "9007199254740991"),
        (2**53, "9007199254740992"),
        (2**53 + 1, "9007199254740992"),
        (-(2**53) - 1, "-9007199254740992"),
        (2**53 + 3, "9007199254740996"),
        (123456789012345678, "123456789012345680"),
        (2**63 - 1, "9223372036854776000"),
        (-(2**63), "-9223372036854776000"),
        (Int64(5), "5"),
        (Int64(2**60), "1152921504606847000"),
        (math.nan, "null"),
        (math.inf, "null"),
        (-math.inf, "null"),
        (True, "true"),
        (False, "false"),
    ],
    ids=repr,
)
def test_numbers_as_javascript_writes_them(number: float, expected: str) -> None:
    assert written(number) == expected


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63), 2**63 - 1))
@settings(max_examples=300)
@example(1e21)
@example(1e-7)
def test_every_number_is_read_back_as_the_same_double(number: float) -> None:
    content = written(number)

    assert float(content) == float(number)
    # No digits but those that matter, exponents only where JavaScript has them.
    plain, exponent = r"-?(0|[1-9]\d{0,20})(\.\d*[1-9])?", r"-?[1-9](\.\d*[1-9])?e(-([7-9]|[1-9]\d+)|\+(2[1-9]|[3-9]\d|\d{3}))"
    assert re.fullmatch(f"{plain}|{exponent}", content)


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        (datetime(2026, 11, 23, 8, 0, 0, 120000, tzinfo=UTC), "2026-11-23T08:00:00.120Z"),
        (datetime(2026, 11, 23, tzinfo=UTC), "2026-11-23T00:00:00.000Z"),
        (datetime(2026, 11, 23, 23, 59, 59, 999999, tzinfo=UTC), "2026-11-23T23:59:59.999Z"),
        (datetime(1969, 12, 31, 23, 59, 59, 1000, tzinfo=UTC), "1969-12-31T23:59:59.001Z"),
        (datetime(2026, 1, 1, 0, 30, tzinfo=timezone(timedelta(hours=1))), "2025-12-31T23:30:00.000Z"),
        (datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=-5, minutes=-30))), "2026-01-01T05:30:00.000Z"),
        (datetime(999, 1, 2, tzinfo=UTC), "0999-01-02T00:00:00.000Z"),
        (datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00.000Z"),
        (datetime(9999, 12, 31, tzinfo=UTC), "9999-12-31T00:00:00.000Z"),
        (datetime(2026, 11, 23, 8, 0, 0, 120999), "2026-11-23T08:00:00.120Z"),  # noqa: DTZ001 - as transcripts have them
    ],
    ids=[
        "milliseconds",
        "midnight",
        "cut, not rounded",
        "before 1970",
        "east",
        "west",
        "three digits",
        "first",
        "last",
        "no zone",
    ],
)
def test_dates_as_javascript_writes_them(date: datetime, expected: str) -> None:
    assert date_text(date) == expected
    assert written(date) == f'"{expected}"'


@pytest.mark.parametrize(
    ("since_1970", "expected"),
    [
        (-62_198_755_200_000, '"-000001-01-01T00:00:00.000Z"'),
        (253_402_300_800_000, '"+010000-01-01T00:00:00.000Z"'),
        (2**62, "null"),
    ],
    ids=["before year 1", "after year 9999", "beyond JavaScript's dates"],
)
def test_dates_that_python_does_not_know(since_1970: int, expected: str) -> None:
    assert written(DatetimeMS(since_1970)) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", '""'),
        ("Grüße, ¿qué tal? 你好", '"Grüße, ¿qué tal? 你好"'),
        ("😀👩‍👩‍👧", '"😀👩‍👩‍👧"'),
        ('say "hi" \\ bye', '"say \\"hi\\" \\\\ bye"'),
        ("a/b</script>&'", '"a/b</script>&\'"'),
        ("\b\t\n\f\r", '"\\b\\t\\n\\f\\r"'),
        ("\x00\x01\x1f", '"\\u0000\\u0001\\u001f"'),
        ("\x7f\x80\x9f", '"\x7f\x80\x9f"'),
        ("\u2028\u2029\ufeff", '"\u2028\u2029\ufeff"'),
    ],
    ids=["empty", "letters", "emoji", "quotes", "no HTML escapes", "short escapes", "control", "DEL and C1", "separators"],
)
def test_texts_as_javascript_writes_them(value: str, expected: str) -> None:
    assert written(value) == expected
    assert encode({value: 1}).content.decode() == f"{{{expected}:1}}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ([], "[]"),
        ({}, "{}"),
        ((1, 2.0), "[1,2]"),
        ([1.0, [None, {"a": [math.nan]}]], '[1,[null,{"a":[null]}]]'),
        (ObjectId("65f000000000000000000001"), '"65f000000000000000000001"'),
        (b"\x00\xff", '"AP8="'),
        (Binary(b"ab", 5), '"YWI="'),
    ],
    ids=["null", "array", "object", "tuple", "nested", "object id", "bytes", "binary"],
)
def test_other_values(value: object, expected: str) -> None:
    assert written(value) == expected


def test_keys_keep_their_order_at_every_depth() -> None:
    body = encode({"z": 1, "a": {"y": 1, "b": 2}, "m": [{"x": 1, "c": 2}]})

    assert body.content == b'{"z":1,"a":{"y":1,"b":2},"m":[{"x":1,"c":2}]}'
    assert body.files == ()


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([], "[]"),
        ([{"type": "section", "n": 1.0, "at": datetime(2026, 1, 1, tzinfo=UTC)}],
        '[{"type":"section","n":1,"at":"2026-01-01T00:00:00.000Z"}]'), ("ü", '"ü"'),
    ],
    ids=["empty", "blocks", "text"],
)  # fmt: skip
def test_text_is_the_json_of_a_value(value: object, expected: str) -> None:
    assert text(value) == expected


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), PLAIN, max_size=4))
@settings(max_examples=50)
def test_a_payload_is_read_back_as_it_was(payload: dict[str, Any]) -> None:
    body = encode(payload)

    read = json.loads(body.content, parse_int=float)  # as JavaScript does: 36435299343379310 is a double
    assert read == payload
    assert orjson.loads(body.content).keys() == payload.keys()
    assert body.files == ()
    pairs = json.loads(body.content, parse_int=float, object_pairs_hook=lambda found: ("object", found))
    assert pairs == in_javascript(payload)


def in_javascript(value: Any) -> Any:
    """`value` with its objects as lists of pairs, in the order in which JavaScript has them."""
    if isinstance(value, list):
        return [in_javascript(item) for item in value]
    if not isinstance(value, dict):
        return value
    indices = {key: int(key) for key in value if re.fullmatch("0|[1-9][0-9]{0,9}", key) and int(key) < 2**32 - 1}
    pairs = sorted(value.items(), key=lambda pair: (pair[0] not in indices, indices.get(pair[0], 0)))
    return ("object", [(key, in_javascript(item)) for key, item in pairs])


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        (["b", "a"], ["b", "a"]),
        (["b", "10", "9", "a", "0"], ["0", "9", "10", "b", "a"]),
        (["z", "01", "1.0", "-1", "1e3", " 1", "1"], ["1", "z", "01", "1.0", "-1", "1e3", " 1"]),
        (["4294967295", "4294967294", "a"], ["4294967294", "4294967295", "a"]),
        (["4294967296", "99999999999999999999", "5"], ["5", "4294967296", "99999999999999999999"]),
        (["²", "٣", "7"], ["7", "²", "٣"]),
    ],
    ids=["words", "numbers", "nearly numbers", "largest index", "beyond", "other digits"],
)
def test_keys_that_are_indices_come_first_as_in_javascript(keys: list[str], expected: list[str]) -> None:
    value = dict.fromkeys(keys, 1)

    assert list(json.loads(encode(value).content)) == expected
    assert list(json.loads(encode({"a": [{"b": value}]}).content)["a"][0]["b"]) == expected


def test_a_key_of_very_many_digits() -> None:
    encode({"9" * 5000: 1})


# Links to protected files.


def test_a_link_ends_where_its_token_belongs() -> None:
    body = encode({"before": "x", "link": LINK, "after": 1})

    assert body.content == b'{"before":"x","link":"https://chat.example.org/file-upload/f1/a.png?token=","after":1}'
    assert body.files == ((body.content.index(b'","after"'), "room1", "user1", "f1"),)


@pytest.mark.parametrize("before", ["", "Grüße 你好 😀", '"\\\n\x00\u2028', "?token="], ids=["none", "wide", "escaped", "alike"])
def test_places_are_counted_in_bytes(before: str) -> None:
    body = encode({before: before, "link": LINK})

    ((offset, *_),) = body.files
    assert body.content[:offset].endswith(b"a.png?token=")
    assert body.content[offset:] == b'"}'


def test_several_links_in_the_order_of_the_text() -> None:
    site = "https://chat.example.org"
    links = [FileLink(f"{site}/file-upload/f{number}/ü 😀", "room1", f"user{number}", f"f{number}") for number in range(3)]
    body = encode({"messages": [{"file": {"deep": [links[0]]}}, {"text": "日本"}, links[1]], "last": links[2]})

    assert [file for _, *file in body.files] == [["room1", f"user{number}", f"f{number}"] for number in range(3)]
    offsets = [offset for offset, *_ in body.files]
    assert offsets == sorted(offsets)
    for number, offset in enumerate(offsets):
        assert body.content[:offset].decode().endswith(f"/f{number}/ü 😀?token=")
        assert body.content[offset:].startswith(b'"')


def test_the_same_link_twice_is_two_places() -> None:
    body = encode({"one": LINK, "two": LINK})

    assert len(body.files) == 2
    assert body.content.count(b"?token=") == 2


@given(st.lists(st.text('?token=0123456789abcdef"\\ é😀', max_size=40) | st.just(LINK), max_size=6))
@settings(max_examples=100)
def test_no_text_is_taken_for_the_place_of_a_token(values: list[str | FileLink]) -> None:
    body = encode({"values": values})

    read = [value if isinstance(value, str) else f"{value.url}?token=" for value in values]
    assert orjson.loads(body.content) == {"values": read}
    assert len(body.files) == values.count(LINK)
    for offset, *file in body.files:
        assert body.content[:offset].endswith(b"/file-upload/f1/a.png?token=")
        assert file == ["room1", "user1", "f1"]


def test_a_text_that_looks_like_a_mark_is_a_text() -> None:
    # Even someone who learned a mark can do nothing with it.
    forged = f"{LINK.url}?token={json_text._MARK}"
    body = encode({"text": forged, "link": LINK})

    assert orjson.loads(body.content) == {"text": forged, "link": f"{LINK.url}?token="}
    assert len(body.files) == 1
