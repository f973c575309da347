"""An outbox in a folder of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import pytest_asyncio

from daemon.metrics import Metrics
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import FakeClock

Reopen = Callable[[], SqliteOutbox]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest_asyncio.fixture
async def outbox(path: Path, clock: FakeClock, metrics: Metrics) -> AsyncIterator[SqliteOutbox]:
    opened = SqliteOutbox(path, clock=clock, metrics=metrics)
    yield opened
    await opened.close()
