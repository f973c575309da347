"""What is in hand when the relay stops."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from unittest.mock import AsyncMock, MagicMock

from bson.timestamp import Timestamp

from daemon.clock import SystemClock
from daemon.flow import Intake
from daemon.metrics import Metrics
from daemon.model import Batch, Commit, Position
from tests.flow.harness import eventually

BEGINNING = Position(Timestamp(1_800_000_000, 1))


async def test_what_is_being_kept_is_kept_before_the_stop_is_over() -> None:
    """Else a reload would begin at the position before, with folded state of the one after."""

    async def batches(position: Position) -> AsyncGenerator[Batch, None]:
        yield Batch((), position, idle=False)
        await asyncio.Event().wait()

    composer, outbox, kept = MagicMock(), AsyncMock(), asyncio.get_running_loop().create_future()
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
    done, _ = await asyncio.wait([running], timeout=0.2)
    assert not done
    kept.set_result(None)
    await asyncio.wait_for(running, 5)
