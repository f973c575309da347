"""Read back what Rocket.Chat's `sendMessageToChannel` wrote for an offline message.

The post is text in the server's language (labels from Rocket.Chat's i18n files), one label per line, each line ended by
a blank and a line feed::

    <header>:
    <Sent_from>: host                  only if the form named one
    <Visitor_Name>: name               "undefined" if the form sent none
    <Visitor_Email>: address
    <Department>: department's name    only if one was chosen and found
    <Message>: text, as many lines as the visitor typed

Nothing is escaped, so host, name and text can hold line ends and labels of their own. How that is read:

- A label counts only at the start of a line that follows blank + line feed.
- A reading is an e-mail line directly followed by the message line, or by a department line and then the message line.
  The name is all that stands before it, whatever it holds: of several e-mail lines the last one is the sender. The text
  is all that follows: of several message lines the first one counts.
- A name or host that holds blank + line feed is doubtful. The widget's single-line inputs cannot produce it, so the
  request was made by hand and may have put the line end into another field, or a label is unknown here.
- Several readings (the text, too, holds an e-mail line followed by a message line) are doubtful, and the first with an
  address is taken: everyone can paste a post into the text, but only a request made by hand can put one into the name.
"""

import functools
import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

_SENT_FROM = "Sent_from"
_NAME = "Visitor_Name"
_EMAIL = "Visitor_Email"
_DEPARTMENT = "Department"
_MESSAGE = "Message"
_ROLES = (_SENT_FROM, _NAME, _EMAIL, _DEPARTMENT, _MESSAGE)

_LINE_END = " \n"
# Only the form of the header counts: its wording changes most often and tells nothing that the other labels do not.
_HEADER = re.compile(r"[^\n]{1,200}: \n")
_ANY_LABEL = re.compile(r"[^:\n]{1,80}: ")
_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")

_TAILS = ((_EMAIL, _MESSAGE), (_EMAIL, _DEPARTMENT, _MESSAGE))
# Best first: a department is more common than a text whose first line ends with a blank and whose second has a label.
_LAYOUTS = (
    (_NAME, _EMAIL, _DEPARTMENT, _MESSAGE),
    (_NAME, _EMAIL, _MESSAGE),
    (_SENT_FROM, _NAME, _EMAIL, _DEPARTMENT, _MESSAGE),
    (_SENT_FROM, _NAME, _EMAIL, _MESSAGE),
)

_Spans = dict[str, slice]
_FindValue = Callable[[str, int], int | None]
"""Given a role and the start of a line: where the value begins, if the line has a label of that role."""


@dataclass(frozen=True, slots=True)
class OfflineMessage:
    """What the visitor sent; `doubtful` if another request could have led to the same post."""

    name: str | None
    email: str
    message: str
    department: str | None
    host: str | None
    doubtful: bool


def looks_like_offline_post(message: Mapping[str, Any]) -> bool:
    """Whether the document has the form `sendMessageToChannel` gives it; the text is not looked at."""
    author = message.get("u")
    return (
        message.get("groupable") is False  # hardly another message has it, so that they cost no more than this
        and isinstance(author, Mapping)
        and author.get("_id") == "rocket.cat"
        and author.get("name") is None
        and message.get("t") is None
        and isinstance(message.get("msg"), str)
    )


def parse_offline_post(text: str, language: str | None) -> OfflineMessage | None:
    """Return the message, or None if the text is not an offline message's post. Never raises.

    `language` is the server's setting. Labels of all other languages are tried next, as the setting may have changed
    since; then the form of the lines alone, as a newer release may use labels unknown here. Last, line ends inside the
    e-mail and the department are accepted: a doubtful message is better than a lost one.
    """
    header = _HEADER.match(text)
    if header is None:
        return None
    post = _Post(text, header.end())
    return (
        _read_labelled(post, _patterns_for(language or "en"))
        or _read_labelled(post, _patterns_for(None))
        or _read_unlabelled(post)
        or _read_labelled(post, _patterns_for(None), loosely=True)
    )


class _Post:
    """The text and the places where a line, and so a label, can start."""

    def __init__(self, text: str, first: int) -> None:
        self.text = text
        self.first = first
        self.starts = [found.end() for found in re.finditer(_LINE_END, text)]
        self.end = len(text) - len(_LINE_END) if text.endswith(_LINE_END) else len(text)

    def lines_after(self, value: int) -> list[int]:
        """Starts of the lines after the value that begins here; the value may itself begin with a line feed."""
        return [start for start in self.starts if start >= value + len(_LINE_END)]

    def walk(self, start: int, roles: tuple[str, ...], find_value: _FindValue) -> _Spans | None:
        """Where the values of adjacent lines with these roles are. The message is the rest, all others are one line."""
        spans = {}
        for role in roles:
            value = find_value(role, start)
            if value is None:
                return None
            end = self.end if role == _MESSAGE else self.text.find(_LINE_END, value)
            if end < 0:
                return None
            spans[role] = slice(value, end)
            start = end + len(_LINE_END)
        return spans

    def build(self, spans: _Spans, *, doubtful: bool) -> OfflineMessage:
        values = {role: self.text[span] for role, span in spans.items()}
        return OfflineMessage(
            name=None if values[_NAME] == "undefined" else values[_NAME],
            email=values[_EMAIL],
            message=values[_MESSAGE],
            department=values.get(_DEPARTMENT),
            host=values.get(_SENT_FROM),
            doubtful=doubtful,
        )


def _read_labelled(post: _Post, patterns: Mapping[str, re.Pattern[str]], *, loosely: bool = False) -> OfflineMessage | None:
    def find_value(role: str, start: int) -> int | None:
        label = patterns[role].match(post.text, start)
        return label.end() if label else None

    host = find_value(_SENT_FROM, post.first)
    names = _find_lines(_NAME, [post.first] if host is None else post.lines_after(host), find_value)
    if not names:
        return None
    name_start, name = names[0]
    emails = _find_lines(_EMAIL, post.lines_after(name), find_value)
    if loosely:
        readings = _read_loosely(post, emails, find_value)
    else:
        walks = ((start, post.walk(start, roles, find_value)) for start, _ in emails for roles in _TAILS)
        readings = [(start, spans) for start, spans in walks if spans is not None]
    if not readings:
        return None
    email_start, spans = next((found for found in readings if "@" in post.text[found[1][_EMAIL]]), readings[0])
    spans[_NAME] = slice(name, email_start - len(_LINE_END))
    if host is not None:
        spans[_SENT_FROM] = slice(host, name_start - len(_LINE_END))
    broken = any(_LINE_END in post.text[spans[role]] for role in (_NAME, _SENT_FROM) if role in spans)
    return post.build(spans, doubtful=loosely or broken or len(readings) > 1)


def _find_lines(role: str, starts: Iterable[int], find_value: _FindValue) -> list[tuple[int, int]]:
    """Start and value of each line with a label of that role."""
    return [(start, value) for start in starts if (value := find_value(role, start)) is not None]


def _read_loosely(post: _Post, emails: list[tuple[int, int]], find_value: _FindValue) -> list[tuple[int, _Spans]]:
    """The first message line after an e-mail line, with the last e-mail line before it and what stands between them."""
    if not emails:
        return []
    messages = _find_lines(_MESSAGE, post.lines_after(emails[0][1]), find_value)
    if not messages:
        return []
    message_start, message = messages[0]
    end = message_start - len(_LINE_END)
    email_start, email = next(found for found in reversed(emails) if found[1] <= end)
    spans = {_EMAIL: slice(email, end), _MESSAGE: slice(message, post.end)}
    departments = _find_lines(_DEPARTMENT, post.lines_after(email), find_value)
    if departments and departments[0][1] <= end:
        start, department = departments[0]
        spans |= {_EMAIL: slice(email, start - len(_LINE_END)), _DEPARTMENT: slice(department, end)}
    return [(email_start, spans)]


def _read_unlabelled(post: _Post) -> OfflineMessage | None:
    """Read by the form of the lines. A label that is known in any language still has only its own role."""
    if not post.text.endswith(_LINE_END):
        return None
    known = _patterns_for(None)

    def find_value(role: str, start: int) -> int | None:
        label = _ANY_LABEL.match(post.text, start)
        if label is None:
            return None
        roles = [other for other in _ROLES if known[other].fullmatch(label.group())]
        return label.end() if not roles or role in roles else None

    walks = (post.walk(post.first, roles, find_value) for roles in _LAYOUTS)
    readings = [
        spans
        for spans in walks
        if spans is not None
        and _ADDRESS.fullmatch(post.text[spans[_EMAIL]])
        and (_DEPARTMENT not in spans or post.text[spans[_DEPARTMENT]])
    ]
    if not readings:
        return None
    hosted = (spans for spans in readings if _SENT_FROM in spans and "://" in post.text[spans[_SENT_FROM]])
    return post.build(next(hosted, readings[0]), doubtful=len(readings) > 1)


@functools.lru_cache(maxsize=8)
def _patterns_for(language: str | None) -> Mapping[str, re.Pattern[str]]:
    """The labels of one language, its fall-backs and English, as a key may come from any of them; None: of all."""
    labels = _load_labels()
    chain = labels if language is None else (language, language.partition("-")[0], "en")
    found = {role: {label for name in chain for label in labels.get(name, {}).get(role, ())} for role in _ROLES}
    return {role: re.compile(f"(?:{'|'.join(map(re.escape, sorted(texts)))}): ") for role, texts in found.items()}


@functools.cache
def _load_labels() -> dict[str, dict[str, list[str]]]:
    """Labels of all releases, by language and key. A language leaves out what its fall-backs have."""
    content = resources.files("daemon.compose").joinpath("offline_labels.json").read_text(encoding="utf-8")
    labels: dict[str, dict[str, list[str]]] = json.loads(content)
    return labels
