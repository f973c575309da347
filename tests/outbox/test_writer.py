"""The writer: nobody who waits for it waits for ever, whatever happens to it, and it never holds up the event loop."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from daemon.errors import OutboxError
from daemon.metrics import Metrics
from daemon.outbox import writer as writer_module
from daemon.outbox.writer import Writer

_PATIENCE_S = 5


@pytest.fixture
async def writer(tmp_path: Path) -> AsyncIterator[Writer]:
    opened = Writer(tmp_path / "outbox.db", Metrics())
    yield opened
    async with asyncio.timeout(_PATIENCE_S):
        await opened.close()


class NoRollback:
    """A connection that can roll back so often, and then no more."""

    in_transaction = True

    def __init__(self, connection: sqlite3.Connection, rollbacks: int = 0) -> None:
        self._connection = connection
        self._rollbacks = rollbacks

    def execute(self, statement: str, *arguments: Any) -> Any:
        self._rollbacks -= statement == "ROLLBACK"
        if self._rollbacks < 0:
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


async def test_short_work_gets_its_own_result_in_the_order_it_was_asked_for(writer: Writer) -> None:
    await ask(writer, lambda connection: connection.execute("CREATE TABLE kept (one)").rowcount)

    def keep(number: int) -> Callable[[sqlite3.Connection], int]:
        def work(connection: sqlite3.Connection) -> int:
            connection.execute("INSERT INTO kept VALUES (?)", [number])
            return number

        return work

    asked = [writer.run(keep(number)) if number % 3 == 0 else writer.run_short(keep(number)) for number in range(10)]
    assert await asyncio.gather(*asked) == list(range(10))
    assert await ask(writer, lambda connection: connection.execute("SELECT one FROM kept").fetchall()) == [
        (number,) for number in range(10)
    ]


async def test_short_work_is_no_sooner_answered_than_it_is_on_disk(writer: Writer, tmp_path: Path) -> None:
    await ask(writer, lambda connection: connection.execute("CREATE TABLE kept (one)").rowcount)
    with sqlite3.connect(tmp_path / "outbox.db") as other:
        for number in range(20):
            await writer.run_short(lambda connection, number=number: connection.execute("INSERT INTO kept VALUES (?)", [number]))  # type: ignore[misc]
            assert other.execute("SELECT count(*) FROM kept").fetchone() == (number + 1,)
    other.close()


async def test_short_work_that_fails_takes_nobody_with_it(writer: Writer) -> None:
    asked = [writer.run_short(work) for work in (lambda _: 1, fail, lambda _: 3)]
    first, broken, last = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, last) == (1, 3)
    assert isinstance(broken, ValueError)


async def test_an_error_that_no_future_takes_holds_up_nobody(writer: Writer) -> None:
    def stop(_: sqlite3.Connection) -> None:
        raise StopIteration

    asked = [writer.run_short(work) for work in (lambda _: 1, stop, lambda _: 3)]
    async with asyncio.timeout(_PATIENCE_S):
        first, broken, last = await asyncio.gather(*asked, return_exceptions=True)
    assert (first, last) == (1, 3)
    assert isinstance(broken, RuntimeError)


async def test_what_is_kept_is_told_so_whatever_comes_after_it(writer: Writer) -> None:
    """One that fails makes all of the commit be done again, one by one; the second time it cannot even be given up."""
    await ask(writer, lambda connection: connection.execute("CREATE TABLE kept (one)").rowcount)
    connection = NoRollback(writer._connection, rollbacks=1)
    writer._connection = connection  # type: ignore[assignment]
    works = (lambda connection: connection.execute("INSERT INTO kept VALUES (1)").rowcount, fail, lambda _: 3)
    async with asyncio.timeout(_PATIENCE_S):
        first, *rest = await asyncio.gather(*(writer.run_short(work) for work in works), return_exceptions=True)
    assert first == 1
    assert [type(result) for result in rest] == [OutboxError] * 2


async def test_a_writer_without_its_thread_tells_everybody_and_can_be_closed(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "outbox.db", Metrics())
    writer._thread.shutdown()
    async with asyncio.timeout(_PATIENCE_S):
        for _ in range(2):
            with pytest.raises(OutboxError, match="shutdown"):
                await writer.run_short(lambda _: 1)
        await writer.close()
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None, timeout=0)
    other.execute("BEGIN IMMEDIATE")  # nothing was left locked
    other.close()


async def test_long_work_and_only_that_is_done_in_a_thread(writer: Writer) -> None:
    here = threading.get_ident()
    assert await writer.run(lambda _: threading.get_ident()) != here
    assert await writer.run_short(lambda _: threading.get_ident()) == here


async def test_a_file_that_another_process_holds_does_not_hold_up_the_loop(
    writer: Writer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "_PATIENCE_MS", 1000)
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    for _ in range(2):  # after long work too
        other.execute("BEGIN IMMEDIATE")
        asked = writer.run_short(lambda _: "done")
        async with asyncio.timeout(_PATIENCE_S):
            while not writer.waiting:
                began = time.monotonic()
                await asyncio.sleep(0.001)
                assert time.monotonic() - began < 0.5
        assert not asked.done()
        other.execute("ROLLBACK")
        async with asyncio.timeout(_PATIENCE_S):
            assert await asked == "done"
        assert not writer.waiting
        await ask(writer, lambda _: "long")
    other.close()


async def test_closing_ends_the_wait_for_another_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writer_module, "_PATIENCE_MS", 200)
    writer = Writer(tmp_path / "outbox.db", Metrics())
    other = sqlite3.connect(tmp_path / "outbox.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    asked = [writer.run_short(lambda _: "done") for _ in range(50)]
    async with asyncio.timeout(2):  # they wait together, not one after the other
        await writer.close()
        results = await asyncio.gather(*asked, return_exceptions=True)
    said = " is held by another process: database is locked"
    assert [str(result).partition("outbox.db")[2] for result in results] == [said] * 50
    other.close()


def test_a_file_system_without_shared_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    connect = sqlite3.connect

    def without_shared_memory(path: Path, **arguments: Any) -> Any:
        return connect(f"file:{path}?vfs=unix-dotfile", uri=True, **arguments)

    monkeypatch.setattr(sqlite3, "connect", without_shared_memory)
    with pytest.raises(OutboxError, match="shared memory") as error:
        Writer(tmp_path / "outbox.db", Metrics())
    assert "local disk" in error.value.hint


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
    closing = asyncio.ensure_future(writer.close())
    await asyncio.sleep(0)
    go_on.set()
    async with asyncio.timeout(_PATIENCE_S):
        await first
        with pytest.raises(OutboxError):
            await last
        await closing
