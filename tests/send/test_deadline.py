from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from daemon.send.deadline import Deadline

_SHORT_S = 0.05
_LONG_S = 20.0


async def late(deadline: Deadline) -> float:
    """Wait inside `deadline` for too long; gives how long that was."""
    began = time.monotonic()
    with pytest.raises(TimeoutError), deadline:
        await asyncio.sleep(_LONG_S)
    return time.monotonic() - began


async def test_everyone_has_the_whole_time() -> None:
    deadline = Deadline(_SHORT_S)
    tasks = []
    for _ in range(5):
        tasks.append(asyncio.create_task(late(deadline)))
        await asyncio.sleep(_SHORT_S / 3)
    for took in await asyncio.gather(*tasks):
        assert _SHORT_S * 0.9 < took < _LONG_S / 4


async def test_what_ends_in_time_is_left_alone() -> None:
    deadline = Deadline(_SHORT_S)

    async def quick() -> int:
        with deadline:
            await asyncio.sleep(0)
        await asyncio.sleep(_SHORT_S * 3)  # the time is over, and this is not inside
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling()

    assert list(await asyncio.gather(quick(), quick())) == [0, 0]


async def test_an_error_inside_is_the_error_outside() -> None:
    with pytest.raises(ValueError, match="mine"), Deadline(_LONG_S):
        raise ValueError("mine")


async def test_one_task_can_be_late_again_and_again() -> None:
    deadline = Deadline(_SHORT_S)
    for _ in range(3):
        await late(deadline)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_task_that_swallowed_a_cancellation_before_is_late_like_any_other() -> None:
    async def swallow() -> float:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(_LONG_S)
        return await late(Deadline(_SHORT_S))

    task = asyncio.create_task(swallow())
    await asyncio.sleep(0)
    task.cancel()
    assert await task < _LONG_S / 4


async def test_whoever_cancels_is_obeyed_also_when_the_time_is_over() -> None:
    deadline = Deadline(_SHORT_S)

    async def wait() -> None:
        with deadline:
            await asyncio.sleep(_LONG_S)

    for wait_s in (0.0, _SHORT_S * 2):
        task = asyncio.create_task(wait())
        await asyncio.sleep(0)
        time.sleep(wait_s)  # noqa: ASYNC251 - so that both come in one turn of the loop
        asyncio.get_running_loop().call_later(0, task.cancel)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_nothing_is_left_when_all_is_done() -> None:
    deadline = Deadline(_SHORT_S)
    await late(deadline)
    with deadline:
        pass
    async with asyncio.timeout(_LONG_S):
        while deadline._timer is not None:  # noqa: ASYNC110 - a timer has no event
            await asyncio.sleep(_SHORT_S / 5)
    assert not deadline._due
