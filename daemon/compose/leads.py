"""Recognising a lead: a phone number or an e-mail address in what a visitor writes, by the two patterns of the settings."""

from __future__ import annotations

from functools import lru_cache

import regex

from daemon.log import get_logger

_TIME_LIMIT_S = 0.2  # patterns are the administrator's, texts are anybody's: together they may take for ever
_SPACE = r"[\t\n\v\f\r \xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000\ufeff]"

_OUTSIDE_CLASS = {"$": r"\Z", ".": r"[^\n\r\u2028\u2029]"}
_NAMED_REFERENCE = regex.compile(r"\\k<(\w+)>")
_QUANTIFIER = regex.compile(r"\{\d+(?:,\d*)?\}")

log = get_logger("compose")


def is_lead(text: str, *, phone_pattern: object, email_pattern: object) -> bool:
    """Whether Rocket.Chat captures a lead from `text`. Empty and invalid patterns match nothing, as in current releases."""
    return _matches(phone_pattern, text, 0) or _matches(email_pattern, text, regex.IGNORECASE)


def _matches(pattern: object, text: str, flags: int) -> bool:
    compiled = _compile(pattern, flags) if isinstance(pattern, str) and pattern else None
    if compiled is None:
        return False
    try:
        return compiled.search(text, timeout=_TIME_LIMIT_S) is not None
    except TimeoutError:
        log.warning("compose.lead_pattern_slow", pattern=pattern, note="given up on one message; taken as no lead")
        return False


@lru_cache(maxsize=8)
def _compile(pattern: str, flags: int) -> regex.Pattern[str] | None:
    try:
        return regex.compile(_from_javascript(pattern), flags | regex.ASCII | regex.VERSION0)
    except regex.error as error:
        log.warning("compose.lead_pattern_invalid", pattern=pattern, error=str(error), note="it matches nothing")
        return None


def _from_javascript(pattern: str) -> str:
    r"""The pattern in Python's terms.

    `$` is only the very end, `.` and `\s` are JavaScript's, `{` is a quantifier only where it is one.
    """
    result: list[str] = []
    in_class = False
    position = 0
    while position < len(pattern):
        char, rest = pattern[position], pattern[position:]
        step = 1
        if char == "\\":
            step = len(rest[:2])
            name = None if in_class else _NAMED_REFERENCE.match(rest)
            if name is not None:
                step = name.end()
            result.append(_escape(rest[:2], in_class=in_class) if name is None else f"(?P={name[1]})")
        elif in_class:
            in_class = char != "]"
            # Nested sets are an extension that JavaScript does not know.
            result.append("\\[" if char == "[" else char)
        elif rest.startswith("[^]"):
            step = 3
            result.append("(?s:.)")
        elif rest.startswith("[]"):
            step = 2
            result.append("(?!)")
        else:
            in_class = char == "["
            literal = char == "{" and _QUANTIFIER.match(rest) is None
            result.append("\\{" if literal else _OUTSIDE_CLASS.get(char, char))
        position += step
    return "".join(result)


def _escape(pair: str, *, in_class: bool) -> str:
    if pair == r"\s":
        return _SPACE[1:-1] if in_class else _SPACE
    if pair == r"\S" and not in_class:
        return f"[^{_SPACE[1:]}"
    letter = pair[1:]
    if letter.isalpha() and letter not in "bBdDwWsSnrtvfuxkpPc0":
        return letter  # an escape that means the letter itself
    return pair if letter.isalnum() else f"\\{letter}"
