"""What a person sees of a request."""

from __future__ import annotations

import io
import json
from typing import Any

import orjson
import pytest
from rich.console import Console

from daemon.receive.checks import Check
from daemon.receive.server import Known, Request
from daemon.receive.show import show, summarise
from tests.clocks import START


def printed(body: bytes, *, bodies: bool = True, event_id: str = "Message:m1", colour: bool = False, **changes: Any) -> str:
    try:
        payload = orjson.loads(body)
    except orjson.JSONDecodeError:
        payload = None
    headers = {
        "X-Livechat-Relay-Event-Id": event_id,
        "X-Livechat-Relay-Attempt": "2",
        "X-Livechat-Relay-Sequence": "42",
    }
    request = Request(
        **{
            "number": 7,
            "at": START,
            "method": "POST",
            "path": "/hook",
            "headers": headers,
            "body": body,
            "payload": payload,
            "token": Check.OK,
            "signature": Check.WRONG,
            "known": Known.DUPLICATE,
            "status": 401,
            **changes,
        }
    )
    out = io.StringIO()
    show(request, Console(file=out, force_terminal=colour, width=40, highlight=False), bodies=bodies)
    return out.getvalue()


def test_a_request_in_lines() -> None:
    text = printed(b'{"type":"Message","_id":"room","visitor":{"name":"Zo\xc3\xab"},"messages":[{"msg":"hello\\nyou"}]}')
    lines = text.splitlines()
    assert lines[:3] == [
        "08:00:00 #7 Message  session room  attempt 2  sequence 42  91 bytes  -> 401",
        "  event Message:m1  token ok  signature wrong  DUPLICATE: accepted before",
        '  visitor Zoë, "hello you"',
    ]
    assert json.loads("\n".join(lines[3:]))["messages"] == [{"msg": "hello\nyou"}]


def test_without_bodies() -> None:
    assert len(printed(b'{"type":"Message"}', bodies=False).splitlines()) == 3


def test_colours_on_a_terminal() -> None:
    assert "\x1b[" in printed(b"{}", colour=True)


@pytest.mark.parametrize("colour", [False, True], ids=["file", "terminal"])
@pytest.mark.parametrize("control", ["\x1b]0;x\x07", "\x9b31m", "\x08", "\u202e", "\x7f"], ids=repr)
def test_nothing_that_came_reaches_the_terminal_as_a_command(control: str, *, colour: bool) -> None:
    body = json.dumps(
        {"type": f"a{control}b", "_id": control, "visitor": {"name": control}, "message": control}, ensure_ascii=False
    )
    text = printed(body.encode(), event_id=f"id{control}", colour=colour)
    text += printed(f"no json {control}".encode(), note=control, colour=colour, path=control)
    assert control not in text
    assert "[/red]" in printed(b'{"type":"[/red]"}'), "what looks like markup is text"


def test_a_long_body_is_cut() -> None:
    text = printed(orjson.dumps(list(range(1000))))
    assert len(text.splitlines()) < 140
    assert "882 more lines; --save keeps whole bodies" in text


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON: {"),
        (b"\xff", "no JSON: \ufffd"),
        (b"[" * 1000 + b"]" * 1000, "nested too deep"),
        (b"x" * 100_000, "no JSON: xxx"),
        (b"null", "no JSON: null"),
    ],
)
def test_odd_bodies(body: bytes, said: str) -> None:
    text = printed(body)
    assert said in text
    assert len(text) < 5000


@pytest.mark.parametrize(
    ("payload", "summary"),
    [
        pytest.param({"agent": {"username": "b"}, "messages": [{}, {}]}, "agent b, 2 messages", id="transcript"),
        pytest.param({"visitor": {"username": "guest-1"}, "messages": []}, "visitor guest-1", id="start"),
        pytest.param({"visitor": {"name": "A"}, "message": "help"}, 'visitor A, "help"', id="offline"),
        pytest.param({"messages": [{"msg": "x" * 100}]}, '"' + "x" * 60 + '..."', id="long"),
        pytest.param({"visitor": [], "agent": 3, "messages": {"a": 1}}, "", id="odd"),
        pytest.param({"messages": [3]}, "1 message", id="odd messages"),
        pytest.param({"messages": [{"msg": "", "fileUpload": {}}]}, "1 message", id="a file"),
        pytest.param([1], "", id="a list"),
        pytest.param(None, "", id="nothing"),
    ],
)  # fmt: skip
def test_summaries(payload: Any, summary: str) -> None:
    assert summarise(payload) == summary
