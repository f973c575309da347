"""One writer thread with group commit: what is asked for while a commit runs goes into the next one, together."""

from __future__ import annotations

import asyncio
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from daemon.errors import OutboxError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.outbox.schema import migrate

log = get_logger("outbox")

T = TypeVar("T")
_MOST_IN_A_COMMIT = 500
_GATHERING_S = 0.0003  # a commit that follows right on another waits so long for more to do: fewer, larger ones cost less


class _Job:
    """One thing to do: `work` on the connection, or, with `items`, together with whatever else asks for the same work."""

    __slots__ = ("future", "items", "loop", "work")

    def __init__(
        self, work: Callable[..., Any], items: Sequence[Any], loop: asyncio.AbstractEventLoop, future: asyncio.Future[Any]
    ) -> None:
        self.work, self.items, self.loop, self.future = work, items, loop, future

    def resolve(self, result: Any, error: BaseException | None) -> None:
        if self.future.done():
            return
        if error is not None:
            self.future.set_exception(error)
        else:
            self.future.set_result(result)


def _tell(jobs: list[_Job], results: list[Any], error: BaseException | None = None) -> None:
    """Wake whoever asked, all at once: waking an event loop from a thread costs more than all the rest of it."""
    jobs = list(jobs)

    def resolve() -> None:
        for job, result in zip(jobs, results, strict=True):
            job.resolve(result, error)

    if jobs:
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            jobs[0].loop.call_soon_threadsafe(resolve)


class Writer:
    """Runs work on the outbox's only writing connection, for one event loop. Work is done in the order it was asked for.

    `run` returns after the commit is on disk. Should the file not take it, everybody in the commit gets `OutboxError`, and
    nothing of it is kept. Work that raises gets its own error, and takes nobody with it. Should the thread itself fail, everybody
    who asked and who asks later gets `OutboxError`: nobody waits for ever.
    """

    def __init__(self, path: Path, metrics: Metrics) -> None:
        self._metrics = metrics
        self._path = path
        self._connection = connect(path)
        self._closed = False
        self.waiting = False
        """Another process is writing to the file, and this one waits for it."""
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._work, name="outbox-writer", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[sqlite3.Connection], T]) -> asyncio.Future[T]:
        """Do `work` in a transaction; its result comes when it is durable."""
        return self._ask(work, ())

    def run_together(self, work: Callable[[sqlite3.Connection, Sequence[T]], None], item: T) -> asyncio.Future[None]:
        """The same for work that is done once for all items of a commit, at the place of the first of them. `work` is a function
        that lives as long as the writer.
        """
        return self._ask(work, (item,))

    def _ask(self, work: Callable[..., Any], items: Sequence[Any]) -> asyncio.Future[Any]:
        if self._closed:
            raise OutboxError(f"the outbox {self._path} is closed", hint="this is a defect of the relay: please report it")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[Any] = loop.create_future()
        self._jobs.put(_Job(work, items, loop, future))
        return future

    def close(self) -> None:
        """Finish what was asked for, then close the file."""
        self._closed = True
        self._jobs.put(None)
        self._thread.join()
        self._connection.close()

    def _work(self) -> None:
        taken: list[_Job] = []
        try:
            while self._take(taken):
                self._commit(taken)
            self._commit(taken)
        except BaseException as error:  # noqa: BLE001 - whoever asked has to know, whatever it is
            try:
                log.critical("outbox.writer_failed", error=f"{type(error).__name__}: {error}", next="the relay ends")
            finally:
                self._refuse(taken, write_error(self._path, error))

    def _take(self, taken: list[_Job]) -> bool:
        """Wait for work and take what there is; False when it is the last."""
        taken.clear()
        if not self._jobs.empty():
            time.sleep(_GATHERING_S)
        job = self._jobs.get()
        while job is not None:
            taken.append(job)
            if len(taken) == _MOST_IN_A_COMMIT:
                return True
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return True
        return False

    def _refuse(self, jobs: list[_Job], error: OutboxError) -> None:
        """Nothing can be kept any more: say so to everybody, until closed."""
        _tell(jobs, [None] * len(jobs), error)
        while not (self._closed and self._jobs.empty()):
            following = self._jobs.get()
            if following is not None:
                _tell([following], [None], error)

    def _begin(self) -> None:
        """Begin, however long somebody else holds the file: a command that was suspended, a shell that was left open."""
        while True:
            try:
                self._connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as error:
                if getattr(error, "sqlite_errorcode", None) != sqlite3.SQLITE_BUSY or self._closed:
                    raise
                self.waiting = True
                log.warning("outbox.busy", file=str(self._path), reason="another process is writing to it", next="waiting")
            else:
                self.waiting = False
                return

    def _commit(self, jobs: list[_Job]) -> None:
        if not jobs:
            return
        try:
            self._begin()
            with self._metrics.commit_duration.time():
                results = self._do(jobs)
                self._connection.execute("COMMIT")
        except BaseException as error:  # noqa: BLE001 - whoever asked has to know, whatever it is
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            if isinstance(error, sqlite3.Error) and not isinstance(error, sqlite3.IntegrityError | sqlite3.DataError):
                _tell(jobs, [None] * len(jobs), write_error(self._path, error))
            elif len(jobs) == 1:
                _tell(jobs, [None], error)
            else:  # one of them cannot be done: the others are not to suffer
                for job in jobs:
                    self._commit([job])
            return
        self._metrics.commits.inc()
        _tell(jobs, results)

    def _do(self, jobs: list[_Job]) -> list[Any]:
        together: dict[Callable[..., Any], list[Any]] = {}
        for job in jobs:
            if job.items:
                together.setdefault(job.work, []).extend(job.items)
        results = []
        for job in jobs:
            if not job.items:
                results.append(job.work(self._connection))
                continue
            items = together.pop(job.work, None)
            results.append(None if items is None else job.work(self._connection, items))
        return results


def connect(path: Path) -> sqlite3.Connection:
    """Open the file for writing and bring it to this version. Raises `OutboxError` when that cannot be."""
    try:
        # Payloads hold what visitors wrote. SQLite gives its side files the rights of this one.
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
        path.chmod(0o600)
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=512)
        connection.execute("PRAGMA busy_timeout = 10000")
        # Both take effect in a new file only. Where events come one by one a commit writes many pages for a few bytes on each.
        connection.execute("PRAGMA page_size = 2048")
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA wal_autocheckpoint = 2000")  # pages: 4 MB
        connection.execute("PRAGMA cache_size = -16000")
        migrate(connection, str(path))
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
    if getattr(error, "sqlite_errorname", None) == "SQLITE_BUSY":
        return OutboxError(
            f"the outbox {path} is held by another process: {error}",
            hint="`fuser -v` on the file names it: a shell of sqlite3, a backup, a command that was suspended",
        )
    return OutboxError(
        f"the outbox {path} cannot be used: {error}",
        hint="check that its folder exists, that the file belongs to the relay's user, and that the disk is not full",
    )
