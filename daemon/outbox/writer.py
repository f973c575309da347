"""Group commit: what is asked for while a commit runs goes into the next one, together."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from daemon.errors import OutboxError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.outbox.schema import migrate

log = get_logger("outbox")

T = TypeVar("T")
_MOST_IN_A_COMMIT = 500
_PATIENCE_MS = 10_000  # while another process writes to the file, until that is said


class _Job:
    """One thing to do: `work` on the connection, or, with `items`, together with whatever else asks for the same work."""

    __slots__ = ("error", "future", "items", "kept", "long", "result", "work")

    def __init__(self, work: Callable[..., Any], items: Sequence[Any], future: asyncio.Future[Any], *, long: bool) -> None:
        self.work, self.items, self.future, self.long = work, items, future, long
        self.result: Any = None
        self.error: BaseException | None = None
        self.kept = False

    def resolve(self) -> None:
        """Tell whoever asked."""
        if self.future.done():
            return
        if self.error is None:
            self.future.set_result(self.result)
        elif isinstance(self.error, StopIteration):  # no future takes it
            self.future.set_exception(RuntimeError(f"StopIteration: {self.error}"))
        else:
            self.future.set_exception(self.error)


class Writer:
    """Runs work on the outbox's only writing connection, for one event loop. Work is done in the order it was asked for.

    What is asked for is answered after the commit is on disk. Should the file not take it, everybody in the commit gets
    `OutboxError`, and nothing of it is kept. Work that raises gets its own error, and takes nobody with it. Should the writer
    itself fail, everybody who asked and who asks later gets `OutboxError`: nobody waits for ever.

    Short work is done by the event loop itself: a thread would pass the interpreter's lock to and fro for every step of every
    statement, which costs more than the statements. What waits for the disk or for another process, and what may take long, is
    done by a thread.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._metrics = metrics
        self._path = path
        self._connection = connect(path)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="outbox-writer")
        self._thread.submit(lambda: None).result()  # if it cannot be started, let that be known now
        self._jobs: list[_Job] = []
        self._idle = asyncio.Event()
        self._idle.set()
        self._closed = False
        self._failure: OutboxError | None = None
        self.waiting = False
        """Another process is writing to the file, and this one waits for it."""

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Do `work`, however long it takes, in a transaction; its result comes when it is durable."""
        return self._ask(work, (), long=True)

    def run_short(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """The same for work that touches few rows."""
        return self._ask(work, (), long=False)

    def run_together(self, work: Callable[[sqlite3.Connection, Sequence[T]], None], item: T) -> asyncio.Future[None]:
        """The same for short work that is done once for all items of a commit, at the place of the first of them. `work` is a
        function that lives as long as the writer.
        """
        return self._ask(work, (item,), long=False)

    async def close(self) -> None:
        """Finish what was asked for, then close the file."""
        self._closed = True
        await self._idle.wait()
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._connection.close)
        except RuntimeError:  # the thread is gone
            self._connection.close()
        self._thread.shutdown()

    def _ask(self, work: Callable[..., Any], items: Sequence[Any], *, long: bool) -> asyncio.Future[Any]:
        if self._closed:
            raise OutboxError(f"the outbox {self._path} is closed", hint="this is a defect of the relay: please report it")
        loop = asyncio.get_running_loop()
        job = _Job(work, items, loop.create_future(), long=long)
        self._jobs.append(job)
        if self._idle.is_set():
            self._idle.clear()
            loop.call_soon(self._next)
        return job.future

    def _next(self) -> None:
        """Begin the next commit, with what was asked for until now."""
        jobs, self._jobs = self._jobs[:_MOST_IN_A_COMMIT], self._jobs[_MOST_IN_A_COMMIT:]
        if not jobs:
            self._idle.set()
            return
        if self._failure is not None:
            self._tell(jobs, self._failure)
            return
        began: float | None = None
        error: BaseException | None = None
        if not any(job.long for job in jobs):
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                began = time.perf_counter()
                self._do(jobs)
            except BaseException as raised:  # noqa: BLE001 - whoever asked has to know, whatever it is
                held = began is None and _is_busy(raised)  # the thread waits for the file
                error = None if held else raised
        try:
            committing = asyncio.get_running_loop().run_in_executor(self._thread, self._commit, jobs, began, error)
        except Exception as failure:  # noqa: BLE001 - the thread is gone, or cannot be told
            self._tell(jobs, failure)
        else:
            committing.add_done_callback(lambda committed: self._tell(jobs, committed.exception()))

    def _tell(self, jobs: list[_Job], failure: BaseException | None) -> None:
        try:
            if failure is not None:
                self._fail(jobs, failure)
            for job in jobs:
                job.resolve()
        finally:
            asyncio.get_running_loop().call_soon(self._next)  # after those who are told now: they may ask for more

    def _commit(self, jobs: list[_Job], began: float | None = None, error: BaseException | None = None) -> None:
        """In the thread: commit what was done since `began`, or do it first, or give it up because of `error`."""
        try:
            if error is not None:
                raise error  # noqa: TRY301 - what follows is the same
            if began is None:
                self._begin()
                began = time.perf_counter()
                self._do(jobs)
            self._connection.execute("COMMIT")
        except BaseException as raised:  # noqa: BLE001 - whoever asked has to know, whatever it is
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(raised, sqlite3.Error) and not isinstance(raised, sqlite3.IntegrityError | sqlite3.DataError):
                for job in jobs:
                    job.error = write_error(self._path, raised)
            elif len(jobs) == 1:
                jobs[0].error = raised
            else:  # one of them cannot be done: the others are not to suffer
                for job in jobs:
                    self._commit([job])
        else:
            self._metrics.commit_duration.observe(time.perf_counter() - began)
            self._metrics.commits.inc()
            for job in jobs:
                job.kept = True

    def _begin(self) -> None:
        """Begin, however long somebody else holds the file: a command that was suspended, a shell that was left open."""
        self._connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        try:
            while True:
                try:
                    self._connection.execute("BEGIN IMMEDIATE")
                except sqlite3.OperationalError as error:
                    if not _is_busy(error) or self._closed:
                        raise
                    self.waiting = True
                    log.warning("outbox.busy", file=str(self._path), reason="another process is writing to it", next="waiting")
                else:
                    return
        finally:
            self.waiting = False
            self._connection.execute("PRAGMA busy_timeout = 0")

    def _do(self, jobs: list[_Job]) -> None:
        together: dict[Callable[..., Any], list[Any]] = {}
        for job in jobs:
            if job.items:
                together.setdefault(job.work, []).extend(job.items)
        for job in jobs:
            if not job.items:
                job.result = job.work(self._connection)
            elif (items := together.pop(job.work, None)) is not None:
                job.work(self._connection, items)

    def _fail(self, jobs: list[_Job], failure: BaseException) -> None:
        """Nothing can be kept any more: those who asked get to know, and all who will."""
        first, self._failure = self._failure is None, self._failure or write_error(self._path, failure)
        for job in jobs:
            if not job.kept:
                job.error = self._failure
        if first:
            log.critical("outbox.writer_failed", error=f"{type(failure).__name__}: {failure}", next="the relay ends")


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for writing and bring it to this version. Raises `OutboxError` when that cannot be."""
    try:
        # Payloads hold what visitors wrote. SQLite gives its side files the rights of this one.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
        connection.execute(f"PRAGMA busy_timeout = {_PATIENCE_MS}")
        # Both take effect in a new file only. Where events come one by one a commit writes many pages for a few bytes on each.
        connection.execute("PRAGMA page_size = 2048")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        (mode,) = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise OutboxError(
                f"the file system of {path} has no shared memory, which SQLite needs for its write-ahead log",
                hint="put the outbox on a local disk: name a file there in outbox.url",
            )
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")  # pages: 4 MB
        connection.execute("PRAGMA cache_size = -16000")
        migrate(connection, str(path))
        connection.execute("PRAGMA busy_timeout = 0")  # from here on the event loop has it
    except (sqlite3.Error, OSError) as error:
        raise write_error(path, error) from error
    return connection


def write_error(path: Path, error: BaseException) -> OutboxError:
    """The error with what helps."""
    # What Python's module raises by itself has no name of SQLite's.
    if getattr(error, "sqlite_errorname", None) in ("SQLITE_NOTADB", "SQLITE_CORRUPT"):
        return OutboxError(
            f"{path} is no outbox, or a damaged one: {error}",
            hint="name another file in outbox.url, or put a copy of the outbox back in its place",
        )
    if _is_busy(error):
        return OutboxError(
            f"the outbox {path} is held by another process: {error}",
            hint="`fuser -v` on the file names it: a shell of sqlite3, a backup, a command that was suspended",
        )
    return OutboxError(
        f"the outbox {path} cannot be used: {error}",
        hint="check that its folder exists, that the file belongs to the relay's user, and that the disk is not full",
    )


def _is_busy(error: BaseException) -> bool:
    # Python gives extended codes; the lower byte is the kind.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
