"""Loops that run side by side: the first that fails ends all of them, in order."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping

from daemon.errors import DaemonError, first_error
from daemon.log import get_logger

log = get_logger("app")

Loop = Callable[[], Awaitable[None]]


class Loops:
    """Run every loop until `stop` is set; then each may finish what it has in hand within `grace_s` (None: as long as it takes).

    A loop that cannot go on sets `stop` itself: requests in flight would only be sent again after the next start. `run` raises
    its `DaemonError` when all have ended. Errors of the loops in `told` were logged already.
    """

    def __init__(
        self, loops: Mapping[str, Loop], stop: asyncio.Event, *, grace_s: float | None = None, told: Collection[str] = ()
    ) -> None:
        self._loops = loops
        self._stop = stop
        self._grace_s = grace_s
        self._told = told
        self._failure: DaemonError | None = None

    async def run(self, stopping: Callable[[], None]) -> None:
        """See the class. `stopping` is called when the loops are to end."""
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._guard(name, loop), name=name) for name, loop in self._loops.items()]
            await self._stop.wait()
            stopping()
            _, late = await asyncio.wait(tasks, timeout=self._grace_s)
            for task in late:
                note = "what was in flight is sent again after the next start"
                log.warning("relay.grace_over", loop=task.get_name(), note=note)
                task.cancel()
        if self._failure is not None:
            raise self._failure

    async def _guard(self, name: str, loop: Loop) -> None:
        try:
            await loop()
        except DaemonError as error:
            self._fail(name, error)
        except BaseExceptionGroup as group:
            errors, others = group.split(DaemonError)
            if others is not None or errors is None:
                raise
            self._fail(name, first_error(errors))
        else:
            if not self._stop.is_set():
                hint = "this is a defect of the relay: please report it"
                self._fail(name, DaemonError(f"the loop {name!r} ended by itself", hint=hint))

    def _fail(self, name: str, error: DaemonError) -> None:
        if self._failure is None:
            if name not in self._told:
                log.error("loop.failed", loop=name, error=str(error), hint=error.hint)
            self._failure = error
        self._stop.set()
