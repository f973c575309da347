"""The file: who may open it, of which version it is, who may read it, and what is said when it cannot be used."""

# ruff: noqa: ASYNC240 - a look at a small local file blocks nobody

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from daemon.errors import OutboxError
from daemon.metrics import Metrics
from daemon.outbox.lock import Lock
from daemon.outbox.schema import MIGRATIONS, VERSION
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import FakeClock
from tests.outbox.events import commit, event, look

# Another relay: takes the outbox, claims one event, says so, and waits until it is killed.
HOLDER = """
import asyncio, sys
from pathlib import Path
from daemon.clock import SystemClock
from daemon.metrics import Metrics
from daemon.outbox.sqlite import SqliteOutbox
from tests.outbox.events import commit, event

async def main() -> None:
    outbox = SqliteOutbox(Path(sys.argv[1]), clock=SystemClock(), metrics=Metrics())
    await outbox.append(commit(event("m1", "a"), event("m2", "b")))
    await outbox.claim("crm", 1, 1)
    print("holding", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A second relay that has the outbox and a request in flight."""
    root = Path(__file__).parents[2]
    with subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, cwd=root) as process:  # noqa: S603 - itself
        assert process.stdout is not None
        assert process.stdout.readline() == b"holding\n"
        yield process
        process.kill()


def open_outbox(path: Path) -> SqliteOutbox:
    return SqliteOutbox(path, clock=FakeClock(), metrics=Metrics())


async def refused(path: Path) -> OutboxError:
    with pytest.raises(OutboxError) as error:
        open_outbox(path)
    assert error.value.hint
    return error.value


class TestVersion:
    async def test_a_new_file_is_of_this_version(self, outbox: SqliteOutbox, path: Path) -> None:
        assert look(path, "PRAGMA user_version") == [VERSION]
        assert look(path, "PRAGMA journal_mode") == ["wal"]

    @pytest.mark.parametrize("newer", [VERSION + 1, 2**31 - 1])
    async def test_a_newer_file_is_refused_and_left_alone(self, path: Path, newer: int) -> None:
        look(path, f"PRAGMA user_version = {newer}")
        error = await refused(path)
        assert str(newer) in str(error)
        assert "newer" in str(error)
        assert look(path, "PRAGMA user_version") == [newer]
        assert look(path, "SELECT count(*) FROM sqlite_master") == [0]
        with Lock(path):
            pass  # a refused file is not left locked

    async def test_an_older_file_is_brought_to_this_version(self, path: Path) -> None:
        look(path, "PRAGMA user_version = 0")
        path.touch()
        outbox = open_outbox(path)
        await outbox.append(commit(event("m1")))
        await outbox.close()
        assert look(path, "PRAGMA user_version") == [VERSION]

    async def test_a_file_of_version_1_goes_on_where_it_was_left(self, path: Path) -> None:
        """One delivery in flight at its second try, one pending, one that waits for its body."""
        with closing(sqlite3.connect(path)) as old:
            old.executescript(MIGRATIONS[0])
            for sequence, (state, tries) in enumerate((("pending", 2), ("pending", 0), ("intent", 0)), start=1):
                old.execute("INSERT INTO events VALUES (?, ?, 'Message', ?, 0, 0, 0)", [sequence, f"m{sequence}", f"r{sequence}"])
                old.execute("INSERT INTO bodies VALUES (?, 'guide', '{}', '[[], null]')", [sequence])
                row = [sequence, f"r{sequence}", state, tries, max(0, tries - 1)]
                old.execute("INSERT INTO deliveries VALUES ('crm', ?, ?, 'guide', ?, ?, ?, 0, NULL, NULL, NULL)", row)
                due = 0 if row[2:4] == ["pending", 0] else None
                old.execute("INSERT INTO lanes VALUES ('crm', ?, ?, ?, 0)", [f"r{sequence}", sequence, due])
            for number, outcome in ((1, "timeout"), (2, None)):
                old.execute(
                    "INSERT INTO attempts (endpoint, sequence, number, started_at, outcome) VALUES ('crm', 1, ?, 0, ?)",
                    [number, outcome],
                )
            old.execute("PRAGMA user_version = 1")
            old.commit()
        outbox = open_outbox(path)
        try:
            assert await outbox.recover() == 0
            claimed, _ = await outbox.claim("crm", 10, 10)
        finally:
            await outbox.close()
        assert [(delivery.event_id, delivery.attempt, delivery.failures) for delivery in claimed] == [("m1", 3, 1), ("m2", 1, 0)]
        assert look(path, "SELECT number, outcome FROM attempts") == [(1, "timeout"), (2, "interrupted")]
        assert look(path, "PRAGMA user_version") == [VERSION]

    async def test_opening_again_changes_nothing(self, path: Path) -> None:
        for expected in (0, 1):
            outbox = open_outbox(path)
            claimed, _ = await outbox.claim("crm", 10, 10)
            assert len(claimed) == expected
            await outbox.append(commit(event("m1")))
            await outbox.close()

    async def test_a_migration_that_fails_is_refused_and_changes_nothing(self, path: Path) -> None:
        look(path, "CREATE TABLE events (mine TEXT)")
        await refused(path)
        assert look(path, "SELECT name FROM sqlite_master") == ["events"]
        assert look(path, "PRAGMA user_version") == [0]


class TestLock:
    async def test_the_same_process_cannot_open_it_twice(self, outbox: SqliteOutbox, path: Path) -> None:
        error = await refused(path)
        assert f"process {os.getpid()}" in str(error)
        assert "outbox.url" in error.hint

    async def test_it_is_free_again_after_close(self, path: Path) -> None:
        for _ in range(3):
            await open_outbox(path).close()

    async def test_another_process_is_named_and_its_death_frees_the_file(
        self, path: Path, holder: subprocess.Popen[bytes]
    ) -> None:
        assert f"process {holder.pid} on " in str(await refused(path))
        holder.send_signal(signal.SIGKILL)
        holder.wait(timeout=5)

        outbox = open_outbox(path)
        try:
            assert await outbox.recover() == 1
            claimed, _ = await outbox.claim("crm", 10, 10)
            assert sorted((delivery.event_id, delivery.attempt) for delivery in claimed) == [("m1", 2), ("m2", 1)]
        finally:
            await outbox.close()

    async def test_others_may_read_while_it_is_held(self, outbox: SqliteOutbox, path: Path) -> None:
        await outbox.append(commit(event("m1")))
        assert look(path, "SELECT id FROM events") == ["m1"]

    def test_the_holder_is_rewritten_not_appended(self, path: Path) -> None:
        for _ in range(2):
            with Lock(path):
                assert path.with_name("outbox.db.lock").read_text().count("process") == 1

    def test_a_lock_file_without_a_name_in_it_still_refuses(self, path: Path) -> None:
        with Lock(path):
            path.with_name("outbox.db.lock").write_text("")
            with pytest.raises(OutboxError, match="another process"):
                Lock(path)


class TestWhoMayRead:
    async def test_the_file_is_for_its_owner_alone(self, path: Path) -> None:
        with umask(0o022):
            outbox = open_outbox(path)
            await outbox.append(commit(event("m1")))
            mode = stat.S_IMODE(path.stat().st_mode)
            await outbox.close()
        assert mode == 0o600

    async def test_a_file_that_others_may_read_is_closed_to_them(self, path: Path) -> None:
        path.touch(mode=0o644)
        path.chmod(0o644)
        await open_outbox(path).close()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600

    async def test_so_is_the_write_ahead_log(self, path: Path) -> None:
        with umask(0o022):
            outbox = open_outbox(path)
            await outbox.append(commit(event("m1")))
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.glob("outbox.db-*")}
            await outbox.close()
        assert modes == {"outbox.db-wal": 0o600, "outbox.db-shm": 0o600}


class TestUnusable:
    async def test_no_folder(self, tmp_path: Path) -> None:
        error = await refused(tmp_path / "missing" / "outbox.db")
        assert str(tmp_path / "missing") in str(error)
        assert "outbox.url" in error.hint

    async def test_a_folder_that_may_not_be_written(self, tmp_path: Path) -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        folder.chmod(0o500)
        with someone_else():
            error = await refused(folder / "outbox.db")
        assert "Permission denied" in str(error)

    async def test_the_parent_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        await refused(tmp_path / "file" / "outbox.db")

    async def test_the_path_is_a_folder(self, path: Path) -> None:
        path.mkdir()
        await refused(path)
        with Lock(path):
            pass  # not left locked

    @pytest.mark.parametrize(
        "content",
        [
            pytest.param(b"garbage " * 1000, id="text"),
            pytest.param(b"SQLite format 3\x00" + b"\xff" * 4096, id="damaged header"),
        ],
    )
    async def test_something_else_is_refused_and_left_as_it_is(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        error = await refused(path)
        assert str(path) in str(error)
        assert path.read_bytes() == content

    async def test_a_busy_file_is_waited_for(self, outbox: SqliteOutbox, path: Path) -> None:
        other = sqlite3.connect(path, isolation_level=None)
        try:
            other.execute("BEGIN IMMEDIATE")
            append = asyncio.ensure_future(outbox.append(commit(event("m1"))))
            done, _ = await asyncio.wait([append], timeout=0.2)
            assert not done
            other.execute("ROLLBACK")
            await append
        finally:
            other.close()
        assert look(path, "SELECT id FROM events") == ["m1"]


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


@contextmanager
def someone_else() -> Iterator[None]:
    """Root may write everywhere, so look at it with the eyes of another user."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
