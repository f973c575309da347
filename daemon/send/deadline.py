"""A time limit that many requests share."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any


class Deadline:
    """Ends what a task does inside it with `TimeoutError` when it takes longer than `seconds`, as `asyncio.timeout` does.

    It is for many tasks at once, each inside it once at a time, and has one timer for all of them: since all have the same
    time, the one that began first is due first. A timer for each would cost a tenth of a request.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        # When each is due, in the order in which they began, and how often its task was cancelled before.
        self._due: dict[asyncio.Task[Any], tuple[float, int]] = {}
        self._late: dict[asyncio.Task[Any], int] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        loop = asyncio.get_running_loop()
        task, due = _this_task(), loop.time() + self._seconds
        self._due[task] = due, task.cancelling()
        if self._timer is None:
            self._timer = loop.call_at(due, self._look, loop)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        task = _this_task()
        if self._due.pop(task, None) is not None:
            return
        # Whoever else cancelled the task gets `CancelledError`.
        if task.uncancel() <= self._late.pop(task) and kind is asyncio.CancelledError:
            raise TimeoutError from error

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Cancel those whose time is over, and wait for the next one."""
        self._timer = None
        now = loop.time()
        while self._due:
            task, (due, cancelled) = next(iter(self._due.items()))
            if due > now:
                self._timer = loop.call_at(due, self._look, loop)
                return
            del self._due[task]
            self._late[task] = cancelled
            task.cancel()


def _this_task() -> asyncio.Task[Any]:
    task = asyncio.current_task()
    if task is None:
        raise RuntimeError("a deadline is for tasks")
    return task
