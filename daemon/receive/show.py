"""What came, for a person: a line or three for each request, then its body."""

from __future__ import annotations

import json
import re
from typing import Any

from rich.console import Console
from rich.highlighter import JSONHighlighter
from rich.text import Text

from daemon.receive.checks import Check
from daemon.receive.server import Known, Request

_LONGEST_TEXT = 60
_MOST_LINES = 120
_LONGEST_RAW = 2000
# Visitors write what is shown: nothing of it moves the cursor, or turns the direction of what follows.
_CONTROLS = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def show(request: Request, console: Console, *, bodies: bool) -> None:
    """Print a request and what it is answered."""
    console.print(_headline(request), soft_wrap=True)
    console.print(_proofs(request), soft_wrap=True)
    if request.note:
        console.print(Text(f"  {_line(request.note)}", "red"), soft_wrap=True)
    summary = summarise(request.payload)
    if summary:
        console.print(Text(f"  {_line(summary)}", "bold"), soft_wrap=True)
    if bodies and request.body:
        console.print(_body(request), soft_wrap=True)
    console.print()


def _headline(request: Request) -> Text:
    good = 200 <= request.status < 300
    payload = request.payload if isinstance(request.payload, dict) else {}
    line = Text(f"{request.at:%H:%M:%S} #{request.number} ", "dim")
    line.append(_line(str(payload.get("type", f"{request.method} {request.path}"))), "bold cyan")
    if "_id" in payload:
        line.append(f"  session {_line(str(payload['_id']))}")
    for name in ("Attempt", "Sequence"):
        if value := request.headers.get(f"X-Livechat-Relay-{name}"):
            line.append(f"  {name.lower()} {_line(value)}")
    line.append(f"  {len(request.body)} bytes  ")
    line.append(f"-> {request.status}", "green" if good else "bold red")
    return line


def _proofs(request: Request) -> Text:
    line = Text("  ")
    if request.event_id:
        line.append(f"event {_line(request.event_id)}  ")
    for name, check in (("token", request.token), ("signature", request.signature)):
        style = "green" if check is Check.OK else "dim" if check.passed else "bold red"
        line.append(f"{name} {check}  ", style)
    if request.known is not Known.NEW:
        line.append(request.known, "bold yellow" if request.known is Known.DUPLICATE else "yellow")
    line.rstrip()
    return line


def summarise(payload: Any) -> str:
    """Who and what, in one line; empty when it is no payload of livechat."""
    if not isinstance(payload, dict):
        return ""
    visitor = _member(payload, "visitor", "name") or _member(payload, "visitor", "username")
    parts = [f"visitor {visitor}"] if visitor else []
    if agent := _member(payload, "agent", "username"):
        parts.append(f"agent {agent}")
    messages = payload.get("messages")
    if isinstance(messages, list) and messages:
        only = messages[0] if len(messages) == 1 and isinstance(messages[0], dict) else {}
        count = "1 message" if len(messages) == 1 else f"{len(messages)} messages"
        parts.append(f'"{_shortened(str(only["msg"]))}"' if only.get("msg") else count)
    elif "message" in payload:
        parts.append(f'"{_shortened(str(payload["message"]))}"')
    return ", ".join(parts)


def _member(payload: dict[str, Any], parent: str, name: str) -> str:
    value = payload.get(parent)
    return _shortened(str(value[name])) if isinstance(value, dict) and value.get(name) else ""


def _shortened(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_TEXT else f"{line[:_LONGEST_TEXT]}..."


def _body(request: Request) -> Text:
    if request.payload is None:
        raw = _plain(request.body[:_LONGEST_RAW].decode("utf-8", "replace"))
        return Text(f"  no JSON: {raw}", "red")
    try:
        text = JSONHighlighter()(_plain(json.dumps(request.payload, indent=2, ensure_ascii=False)))
    except RecursionError:
        return Text("  JSON that is nested too deep to be shown", "red")
    lines = text.split("\n")
    shown = Text("\n").join(lines[:_MOST_LINES])
    if len(lines) > _MOST_LINES:
        shown.append(f"\n... {len(lines) - _MOST_LINES} more lines; --save keeps whole bodies", "dim")
    return shown


def _line(text: str) -> str:
    return _plain(text).replace("\n", "\\n")


def _plain(text: str) -> str:
    return _CONTROLS.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
