"""What repeats is counted: the first line at once, then one a minute that stands for all the others."""

from __future__ import annotations

import sys
import threading
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from daemon.clock import Clock

EVERY_S = 60.0
_MOST_REASONS = 10  # told apart, for each event and endpoint
_TELL_APART = ("reason", "problem", "status", "error", "library", "message")
_Key = tuple[str, str, str]


@dataclass(slots=True)
class _Seen:
    written_at: float
    lines: int = 0
    last: MutableMapping[str, Any] = field(default_factory=dict)
    method: str = "info"
    counted: int = 0


class Repeats:
    """Lines above `debug` are the same when event, endpoint and reason are.

    One that was written within the last minute is not written again but counted; `say` writes, for each that was, the last of
    them with `repeated`, how many lines it stands for. Their numbers `count` are summed.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._seen: dict[_Key, _Seen] = {}
        self._lock = threading.Lock()  # the outbox's writer logs from a thread of its own

    def __call__(self, _logger: object, method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """Let the line through, or drop and count it."""
        if method == "debug" or "repeated" in line:
            return line
        with self._lock:
            key = self._key(line)
            seen = self._seen.get(key)
            if seen is None:
                self._seen[key] = _Seen(self._clock.monotonic())
                return line
            seen.lines += 1
            seen.counted += line.get("count", 0)
            # The first line had the trace; one kept here would keep alive all that it refers to.
            seen.last = {name: value for name, value in line.items() if name != "exc_info"}
            seen.method = method
        raise structlog.DropEvent

    def say(self, *, everything: bool = False) -> None:
        """Write what was counted and is due; `everything`: also what is not, because the process ends."""
        now = self._clock.monotonic()
        due: list[_Seen] = []
        with self._lock:
            for key, seen in list(self._seen.items()):
                if not everything and now - seen.written_at < EVERY_S:
                    continue
                if seen.lines:
                    due.append(seen)
                    self._seen[key] = _Seen(now)
                else:
                    del self._seen[key]
        for seen in due:
            count = {"count": seen.counted} if seen.counted else {}
            event = seen.last["event"]
            fields = {name: value for name, value in seen.last.items() if name not in ("event", "level")}
            write = getattr(structlog.get_logger(), seen.method)
            write(event, **{**fields, **count, "repeated": seen.lines})

    def _key(self, line: MutableMapping[str, Any]) -> _Key:
        event, endpoint = str(line.get("event")), str(line.get("endpoint", ""))
        reason = " ".join([str(line[name])[:200] for name in _TELL_APART if name in line] + [_error_type(line.get("exc_info"))])
        key = (event, endpoint, reason)
        if key not in self._seen and sum(known[:2] == key[:2] for known in self._seen) >= _MOST_REASONS:
            return (event, endpoint, "")
        return key


def _error_type(exc_info: object) -> str:
    error = sys.exception() if exc_info is True else exc_info[1] if isinstance(exc_info, tuple) else exc_info
    return "" if error is None else type(error).__name__
