"""Starts the relay for a test: `python -m tests.faults.launcher run -c config.yaml`.

The relay itself knows nothing of tests. Here its process gets, before it begins,

- a crash point (FAULTS_CRASH=name:n): it kills itself (SIGKILL) when it passes that point for the n-th time;
- a wall clock that can be set from outside (FAULTS_CLOCK=file with seconds to add). Monotonic time stays as it is.
"""

from __future__ import annotations

import asyncio
import ctypes
import inspect
import os
import signal
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import orjson

from daemon.cli import main
from daemon.clock import SystemClock
from daemon.outbox import entries, lanes
from daemon.outbox.sqlite import SqliteOutbox
from daemon.send.client import Sender

HIT = "fault.crash_point"
_SET_PARENT_DEATH_SIGNAL = 1


def _always(_arguments: tuple[Any, ...], _result: Any) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Point:
    """A function, and which of its calls count; the crash comes after it did its work, or with `before` instead of it."""

    owner: Any
    name: str
    counts: Callable[[tuple[Any, ...], Any], bool] = _always
    before: bool = False


POINTS = {
    "after_append_before_commit": Point(entries, "append", lambda arguments, _: bool(arguments[1].events)),
    "after_commit_before_wake_up": Point(SqliteOutbox, "append", lambda arguments, _: bool(arguments[1].events)),
    "after_claim": Point(SqliteOutbox, "claim", lambda _, result: bool(result[0])),
    "after_request_before_settle": Point(Sender, "post"),
    "after_settle": Point(SqliteOutbox, "settle"),
    "before_body_is_kept": Point(SqliteOutbox, "composed", before=True),
    "while_recovering": Point(lanes, "recover"),
}


def arm(name: str, passages: int) -> None:
    """Let this process kill itself at the `passages`-th passage of a crash point."""
    point = POINTS[name]
    original = getattr(point.owner, point.name)
    left = passages

    def passed(arguments: tuple[Any, ...], result: Any) -> None:
        nonlocal left
        if not point.counts(arguments, result):
            return
        left -= 1
        if left == 0:
            os.write(1, orjson.dumps({"event": HIT, "point": name}) + b"\n")
            os.kill(os.getpid(), signal.SIGKILL)

    async def wait_for(*arguments: Any, **named: Any) -> Any:
        if point.before:
            passed(arguments, None)
        result = await original(*arguments, **named)
        if not point.before:
            passed(arguments, result)
        return result

    def call(*arguments: Any, **named: Any) -> Any:
        result = original(*arguments, **named)
        if isinstance(result, asyncio.Future):
            result.add_done_callback(lambda done: None if done.cancelled() else passed(arguments, done.result()))
        else:
            passed(arguments, result)
        return result

    mock.patch.object(point.owner, point.name, wait_for if inspect.iscoroutinefunction(original) else call).start()


def shift_clock(file: Path) -> None:
    """Let the relay's wall clock be off by the seconds in `file`, read each time."""
    original = SystemClock.now

    def now(clock: SystemClock) -> datetime:
        return original(clock) + timedelta(seconds=float(file.read_text(encoding="ascii") or 0))

    mock.patch.object(SystemClock, "now", now).start()


def die_with_parent() -> None:
    """A harness that is killed leaves no relay behind."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_SET_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)


if __name__ == "__main__":
    die_with_parent()
    if "FAULTS_CRASH" in os.environ:
        crash_point, _, times = os.environ["FAULTS_CRASH"].partition(":")
        arm(crash_point, int(times))
    if "FAULTS_CLOCK" in os.environ:
        shift_clock(Path(os.environ["FAULTS_CLOCK"]))
    main()
