"""What is in hand when the relay stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from unittest.mock import AsyncMock, MagicMock

import pytest
from bson.timestamp import Timestamp

from daemon.clock import SystemClock
from daemon.errors import OutboxError
from daemon.flow import Intake
from daemon.metrics import Metrics
from daemon.model import Batch, Commit, Position
from tests.flow.harness import eventually

BEGINNING = Position(Timestamp(1_800_000_000, 1))


@asynccontextmanager
async def stopped_while_keeping() -> AsyncIterator[tuple[asyncio.Future[None], asyncio.Task[None]]]:
    """An intake that was told to stop while the outbox keeps a batch: the keeping and the intake."""

    async def batches(position: Position) -> AsyncGenerator[Batch, None]:
        yield Batch((), position, idle=False)
        await asyncio.Event().wait()

    kept: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    composer, outbox = MagicMock(), AsyncMock()
    composer.compose = AsyncMock(return_value=Commit(BEGINNING, events=(MagicMock(intent=None),)))
    outbox.size.return_value = 0
    outbox.complete_intents.return_value = []
    outbox.append = MagicMock(return_value=kept)
    intake = Intake(
        stream=MagicMock(batches=batches),
        composer=composer,
        outbox=outbox,
        wake_relay=MagicMock(),
        observer=MagicMock(),
        oplog_left=AsyncMock(),
        max_size=1,
        clock=SystemClock(),
        metrics=Metrics(),
    )
    stopping = asyncio.Event()
    running = asyncio.create_task(intake.run(BEGINNING, stopping))
    await eventually(lambda: outbox.append.called, "a batch that is being kept")
    stopping.set()
    yield kept, running


async def test_what_is_being_kept_is_kept_before_the_stop_is_over() -> None:
    """Else a reload would begin at the position before, with folded state of the one after."""
    async with stopped_while_keeping() as (kept, running):
        done, _ = await asyncio.wait([running], timeout=0.2)
        assert not done
        kept.set_result(None)
        await asyncio.wait_for(running, 5)


async def test_what_cannot_be_kept_is_told_although_the_stop_came_in_between() -> None:
    async with stopped_while_keeping() as (kept, running):
        await asyncio.wait([running], timeout=0.2)
        kept.set_exception(OutboxError("cannot be written", hint="make room"))
        with pytest.raises(ExceptionGroup) as group:
            await asyncio.wait_for(running, 5)
        assert group.group_contains(OutboxError)
