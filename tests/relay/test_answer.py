"""What of an endpoint's answer comes back in later payloads."""

from __future__ import annotations

import orjson
import pytest

from daemon.model import EventType
from daemon.relay.answer import AnswerMode, answer_to_keep

MODES: tuple[AnswerMode, ...] = ("off", "text", "object")
DEEP = b'{"data":' + b"[" * 500 + b"]" * 500 + b"}"


@pytest.mark.parametrize("body", [b"", b"ok", b'{"data":{"a":1}}'], ids=["empty", "text", "object"])
def test_off_keeps_nothing(body: bytes) -> None:
    assert answer_to_keep("off", EventType.MESSAGE, body) is None


@pytest.mark.parametrize("mode", MODES)
def test_answers_to_offline_messages_are_not_kept(mode: AnswerMode) -> None:
    for body in (b"", b"ok", b'{"data":1}'):
        assert answer_to_keep(mode, EventType.OFFLINE_MESSAGE, body) is None


@pytest.mark.parametrize("event_type", [event for event in EventType if event is not EventType.OFFLINE_MESSAGE], ids=str)
def test_answers_to_everything_else_are(event_type: EventType) -> None:
    assert answer_to_keep("text", event_type, b"ok") == b'"ok"'
    assert answer_to_keep("object", event_type, b'{"data":1}') == b"1"


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b"ok", "ok"),
        (b'{"data": 1}', '{"data": 1}'),
        (b" \n", " \n"),
        ("Grüße 😀".encode(), "Grüße 😀"),
        (b'say "hi" \\ \x00', 'say "hi" \\ \x00'),
        (b"a\xffb", "a\ufffdb"),
        ("ü".encode()[:1], "\ufffd"),
        (b"\xef\xbb\xbfok", "\ufeffok"),
    ],
    ids=["text", "JSON", "blank", "letters", "quotes", "no UTF-8", "cut within a letter", "byte order mark"],
)
def test_as_text(body: bytes, kept: str) -> None:
    answer = answer_to_keep("text", EventType.MESSAGE, body)

    assert answer
    assert orjson.loads(answer) == kept


def test_an_empty_text_takes_the_earlier_answer_away() -> None:
    assert answer_to_keep("text", EventType.MESSAGE, b"") == b""


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        (b'{"data":{"id":7,"b":[1,null]}}', b'{"id":7,"b":[1,null]}'),
        (b'{"data":"text","other":1}', b'"text"'),
        (b'{"data":[1]}', b"[1]"),
        (b'{"data":true}', b"true"),
        (b'{"data":0.5}', b"0.5"),
        (b'{"data":{}}', b"{}"),
        (b'{"data":[]}', b"[]"),
        (' {"data" : "ü😀"} '.encode(), '"ü😀"'.encode()),
    ],
    ids=["object", "text", "list", "true", "number", "empty object", "empty list", "blanks"],
)
def test_as_object(body: bytes, kept: bytes) -> None:
    assert answer_to_keep("object", EventType.MESSAGE, body) == kept


@pytest.mark.parametrize(
    "body",
    [
        b"", b"ok", b'{"data":', b'{"other":1}', b'{"data":null}', b'{"data":0}', b'{"data":""}', b'{"data":false}',
        b'[{"data":1}]', b'"data"', b"null", b"\xff", b'{"data":"\xff"}', b'{"data":NaN}', DEEP,
    ],
    ids=[
        "empty", "text", "cut", "no data", "null", "zero", "empty text", "false", "list", "only a text", "only null", "no UTF-8",
        "no UTF-8 inside", "no number", "too deep",
    ],
)  # fmt: skip
def test_no_object_leaves_the_earlier_answer(body: bytes) -> None:
    assert answer_to_keep("object", EventType.MESSAGE, body) is None
