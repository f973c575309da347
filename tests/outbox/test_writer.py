"""The writer thread: nobody who waits for it waits for ever, whatever happens to it."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import OutboxError
from daemon.metrics import Metrics
from daemon.outbox.writer import Writer

_PATIENCE_S = 5


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    opened = Writer(tmp_path / "outbox.db", Metrics())
    yield opened
    closing = threading.Thread(target=opened.close, daemon=True)
    closing.start()
    closing.join(_PATIENCE_S)
    assert not closing.is_alive(), "close waits for ever"


class NoRollback:
    """A connection that cannot roll back."""

    in_transaction = True

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def execute(self, statement: str, *arguments: Any) -> Any:
        if statement == "ROLLBACK":
            raise sqlite3.OperationalError("disk I/O error")
        return self._connection.execute(statement, *arguments)

    def close(self) -> None:
        self._connection.close()


async def ask(writer: Writer, work: Any) -> Any:
    return await asyncio.wait_for(writer.run(work), _PATIENCE_S)


def fail(_: sqlite3.Connection) -> None:
    raise ValueError("no")


async def test_a_rollback_that_fails_is_told_to_everybody_now_and_later(writer: Writer) -> None:
    writer._connection = NoRollback(writer._connection)  # type: ignore[assignment]
    with pytest.raises(OutboxError, match="disk I/O error"):
        await ask(writer, fail)
    for _ in range(3):
        with pytest.raises(OutboxError, match="disk I/O error"):
            await ask(writer, lambda connection: connection.execute("SELECT 1").fetchone())


async def test_all_of_a_commit_are_told(writer: Writer) -> None:
    held, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        held.set()
        go_on.wait(_PATIENCE_S)

    first = asyncio.ensure_future(writer.run(hold))
    await asyncio.to_thread(held.wait, _PATIENCE_S)
    writer._connection = NoRollback(writer._connection)  # type: ignore[assignment]
    rest = [asyncio.ensure_future(writer.run(work)) for work in (lambda _: 1, fail, lambda _: 3)]
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(_PATIENCE_S):
        await first
        results = await asyncio.gather(*rest, return_exceptions=True)
    assert [type(result) for result in results] == [OutboxError] * 3


def test_a_loop_that_is_closed_takes_nobody_with_it(writer: Writer) -> None:
    """Whoever asked is gone; what was asked for is kept, and the next one is served."""
    held, go_on = threading.Event(), threading.Event()

    def hold(connection: sqlite3.Connection) -> None:
        connection.execute("CREATE TABLE kept (one)")
        held.set()
        go_on.wait(_PATIENCE_S)

    async def leave() -> None:
        asyncio.ensure_future(writer.run(hold))  # noqa: RUF006 - given up with the loop
        await asyncio.to_thread(held.wait, _PATIENCE_S)

    asyncio.run(leave())
    go_on.set()

    async def look() -> Any:
        return await ask(writer, lambda connection: connection.execute("SELECT count(*) FROM kept").fetchone())

    assert asyncio.run(look()) == (0,)


async def test_what_fails_in_the_last_commit_does_not_hold_up_closing(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "outbox.db", Metrics())
    held, go_on = threading.Event(), threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        held.set()
        go_on.wait(_PATIENCE_S)

    first = asyncio.ensure_future(writer.run(hold))
    await asyncio.to_thread(held.wait, _PATIENCE_S)
    writer._connection = NoRollback(writer._connection)  # type: ignore[assignment]
    last = asyncio.ensure_future(writer.run(fail))
    await asyncio.sleep(0)
    closing = asyncio.ensure_future(asyncio.to_thread(writer.close))
    while not writer._closed:  # noqa: ASYNC110 - set in another thread
        await asyncio.sleep(0.001)
    go_on.set()
    async with asyncio.timeout(_PATIENCE_S):
        await first
        with pytest.raises(OutboxError):
            await last
        await closing
