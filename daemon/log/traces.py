"""Exceptions as data: types, places in the source, and their texts only where those are known to be harmless."""

from __future__ import annotations

import sqlite3
import sys
import traceback
from collections.abc import MutableMapping
from typing import Any

from daemon.errors import DaemonError

_MOST_FRAMES = 20
_LONGEST_TEXT = 1000
_HARMLESS = (DaemonError, OSError, sqlite3.Error, MemoryError)  # all others may quote what a visitor wrote

Trace = list[dict[str, Any]]


class Traces:
    """Replaces `exc_info` by `exception`: the error and its causes, the latest first. `with_texts`: of all of them."""

    def __init__(self, *, with_texts: bool) -> None:
        self._with_texts = with_texts

    def __call__(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """The line with its exception as data."""
        error = line.pop("exc_info", None)
        if error is True:
            error = sys.exc_info()
        if isinstance(error, tuple):
            error = error[1]
        if isinstance(error, BaseException):
            line["exception"] = self._chain(error)
        return line

    def _chain(self, error: BaseException) -> Trace:
        chain: Trace = []
        seen: set[int] = set()
        following: BaseException | None = error
        while following is not None and id(following) not in seen:
            seen.add(id(following))
            chain.append(self._one(following))
            following = following.__cause__ or (None if following.__suppress_context__ else following.__context__)
        return chain

    def _one(self, error: BaseException) -> dict[str, Any]:
        frames = traceback.extract_tb(error.__traceback__)[-_MOST_FRAMES:]
        found: dict[str, Any] = {"type": type(error).__name__}
        if self._with_texts or isinstance(error, _HARMLESS):
            found["text"] = str(error)[:_LONGEST_TEXT]
        found["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        if isinstance(error, BaseExceptionGroup):
            found["exceptions"] = [self._chain(member) for member in error.exceptions]
        return found


def as_text(trace: Trace, indent: str = "") -> str:
    """A trace for people."""
    lines: list[str] = []
    for number, error in enumerate(trace):
        lines.append(
            f"{indent}{'because of ' if number else ''}{error['type']}{': ' if error.get('text') else ''}{error.get('text', '')}"
        )
        lines += [f"{indent}  {frame}" for frame in error["frames"]]
        lines += [as_text(member, f"{indent}  | ") for member in error.get("exceptions", ())]
    return "\n".join(lines)
