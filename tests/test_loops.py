"""Loops that run side by side."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from daemon.errors import DaemonError
from daemon.loops import Loops


async def forever() -> None:
    await asyncio.Event().wait()


async def test_the_first_that_fails_ends_the_others_in_order() -> None:
    stop, order = asyncio.Event(), list[str]()

    async def fails() -> None:
        raise DaemonError("broken", hint="mend it")

    async def drains() -> None:
        await stop.wait()
        await asyncio.sleep(0)
        order.append("drained")

    with capture_logs() as logs, pytest.raises(DaemonError, match="broken"):
        await Loops({"a": fails, "b": drains}, stop).run(lambda: order.append("told"))
    assert order == ["told", "drained"]
    assert [(line["event"], line["loop"]) for line in logs] == [("loop.failed", "a")]


async def test_a_loop_that_ends_by_itself_is_an_error() -> None:
    async def ends() -> None:
        pass

    with pytest.raises(DaemonError, match="the loop 'a' ended by itself"):
        await Loops({"a": ends}, asyncio.Event()).run(lambda: None)


async def test_what_takes_longer_than_grace_is_cancelled() -> None:
    stop = asyncio.Event()
    stop.set()
    async with asyncio.timeout(5):
        await Loops({"a": forever}, stop, grace_s=0.01).run(lambda: None)


async def test_a_defect_is_raised_as_it_is() -> None:
    async def defect() -> None:
        raise KeyError("x")

    with pytest.raises(ExceptionGroup) as caught:
        await Loops({"a": defect, "b": forever}, asyncio.Event()).run(lambda: None)
    assert isinstance(caught.value.exceptions[0], KeyError)
