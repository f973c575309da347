"""The show itself: what it refuses to begin, what it finds wrong, and what it leaves behind."""

from __future__ import annotations

import asyncio
import io
import random
import stat
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorClient
from rich.console import Console
from ruamel.yaml import YAML

from daemon.clock import SystemClock
from daemon.demo import relay, show
from daemon.demo.documents import Chat
from daemon.demo.ledger import Judgement, Ledger, judge
from daemon.demo.mongod import EmbeddedMongod
from daemon.demo.plan import Traffic
from daemon.demo.receiver import Exchange, Received
from daemon.demo.screen import Moment, Screen, print_summary
from daemon.demo.show import run_demo
from daemon.errors import DaemonError

# A relay that is always ready, never delivers anything, and ends with 3.
DEAF = """
import http.server, re, signal, sys
host, port = re.search(r'listen: "(.*):(.*)"', open(sys.argv[2]).read()).groups()
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


def is_empty(folder: Path) -> bool:
    return not any(folder.iterdir())


def console() -> Console:
    return Console(file=io.StringIO(), width=100)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


async def databases(mongodb_uri: str) -> list[str]:
    client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(mongodb_uri)
    try:
        return [name for name in await client.list_database_names() if name.startswith("livechat_relay_demo")]
    finally:
        client.close()


def stop_when(condition: Callable[[], bool]) -> tuple[asyncio.Event, asyncio.Task[None]]:
    stop = asyncio.Event()

    async def watch() -> None:
        while not condition():  # noqa: ASYNC110 - what is watched has no event
            await asyncio.sleep(0.05)
        stop.set()

    return stop, asyncio.create_task(watch())


async def test_events_that_never_arrive_are_named_and_nothing_is_left_in_mongodb(
    monkeypatch: pytest.MonkeyPatch, mongodb_uri: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(relay, "_RUN", ("-c", DEAF))
    monkeypatch.setattr(show, "_REST_S", 0.3)
    monkeypatch.setenv("LIVECHAT_RELAY_MONGODB__DATABASE", "somewhere_else")
    out = console()
    stop, watch = stop_when(lambda: "Writing" in text_of(out))
    keep = tmp_path / "kept"
    code = await run_demo(seconds=5, mongodb_uri=mongodb_uri, keep=keep, console=out, stop=stop)
    await watch
    shown = text_of(out)
    assert code == 1
    assert "Never arrived:\n  LivechatSessionStart:" in shown
    assert "The relay ended with exit code 3, not 0." in shown
    assert f"Kept in {keep}: config.yaml, relay.log" in shown
    assert stat.S_IMODE((keep / "config.yaml").stat().st_mode) == 0o600, "the URI may have a password"
    config = YAML(typ="safe").load(keep / "config.yaml")
    assert config["mongodb"]["uri"] == mongodb_uri
    assert config["outbox"]["url"] == f"sqlite:///{keep}/outbox.db"
    assert config["endpoints"]["demo"]["retry"] == {"tries": 10, "wait": "1s"}
    assert await databases(mongodb_uri) == []


async def test_the_real_relay_delivers_all_of_it(monkeypatch: pytest.MonkeyPatch, mongodb_uri: str) -> None:
    monkeypatch.setattr(show, "_traffic", lambda seconds: Traffic(sessions=3, offline=2, noise=2))
    monkeypatch.setattr(relay, "RETRY_WAIT_S", 0.1)
    out = console()
    code = await run_demo(seconds=5, mongodb_uri=mongodb_uri, keep=None, console=out, stop=asyncio.Event())
    assert "Everything that was written arrived, in order within each session." in text_of(out), text_of(out)
    assert code == 0
    assert await databases(mongodb_uri) == []


async def test_a_relay_that_does_not_start_is_told_with_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, mongodb_uri: str, tmp_path: Path
) -> None:
    monkeypatch.setattr(relay, "_RUN", ("-c", "print('this and that is wrong'); raise SystemExit(2)"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with pytest.raises(DaemonError, match=r"exit code 2:\nthis and that is wrong") as caught:
        await run_demo(seconds=5, mongodb_uri=mongodb_uri, keep=None, console=console(), stop=asyncio.Event())
    assert "--keep" in caught.value.hint
    assert is_empty(tmp_path)
    assert await databases(mongodb_uri) == []


async def test_a_mongodb_without_replica_set_is_refused() -> None:
    async with EmbeddedMongod(replica_set=False) as standalone:
        with pytest.raises(DaemonError, match="not a replica set"):
            await run_demo(seconds=5, mongodb_uri=standalone.uri, keep=None, console=console(), stop=asyncio.Event())


@pytest.mark.parametrize("uri", ["http://127.0.0.1", "mongodb://user:pa@ss@127.0.0.1", "mongodb://"])
async def test_a_uri_that_is_none_is_refused_without_repeating_its_password(uri: str) -> None:
    with pytest.raises(DaemonError, match="MongoDB cannot be used") as caught:
        await run_demo(seconds=5, mongodb_uri=uri, keep=None, console=console(), stop=asyncio.Event())
    assert "pa@ss" not in str(caught.value)


async def test_a_folder_with_something_in_it_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "outbox.db").touch()
    with pytest.raises(DaemonError, match="is not empty"):
        await run_demo(seconds=5, mongodb_uri=None, keep=tmp_path, console=console(), stop=asyncio.Event())


def a_moment() -> Moment:
    """Two sessions and an offline message; one request failed, one was closed, two were accepted."""
    now = datetime(2026, 1, 1, tzinfo=UTC)
    ledger = Ledger(SystemClock())
    for event, session in (("LivechatSessionStart:a", "a"), ("Message:m", "a"), ("LivechatOfflineMessage:o", "o")):
        with ledger.writing(event, session):
            now = SystemClock().now()
    chance = random.Random(1)  # noqa: S311 - nothing is drawn from it
    chats = [
        Chat(chance=chance, name="Vera", rid="a", agent={"name": "Alice"}, left_open=True),
        Chat(chance=chance, name="[b]Mean[/b]", rid="b", closed=True),
    ]

    def answered(event: str, attempt: int, status: int | None, delay_s: float = 0.0) -> Exchange:
        received = Received(event, attempt, 1, None, b"{}", {}, now + timedelta(milliseconds=40))
        return Exchange(received, status, delay_s)

    exchanges = [
        answered("LivechatSessionStart:a", 1, 500),
        answered("LivechatSessionStart:a", 2, None),
        answered("LivechatSessionStart:a", 3, 200, 1.5),
        answered("LivechatOfflineMessage:o", 1, 200),
    ]
    return Moment("Writing", 3.2, 30, judge(ledger, exchanges), ledger, chats, exchanges)


def test_the_picture_shows_sessions_requests_and_counters() -> None:
    out = Console(file=io.StringIO(), width=100, height=24, force_terminal=True, color_system=None)
    screen = Screen(out)
    with screen.open():
        screen.show(a_moment())
        shown = text_of(out)
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "Vera Alice left open 1 of 2" in lines
    assert "[b]Mean[/b] - closed 0 of 0" in lines
    assert "LivechatSessionStart Vera 1 500" in lines
    assert "LivechatSessionStart Vera 2 closed the connection" in lines
    assert any(line.startswith("LivechatSessionStart Vera 3 200 after 1.5 s") for line in lines)
    assert any(line.startswith("LivechatOfflineMessage (offline form) 1 200") for line in lines)
    assert any("written 3, delivered 2, waiting 1, failed tries 2, duplicates 0" in line for line in lines)
    assert len(lines) <= 24


def test_without_a_terminal_there_is_a_line_every_few_seconds() -> None:
    out = console()
    screen = Screen(out)
    with screen.open():
        for elapsed in (0.0, 0.3, 2.9, 3.1, 3.4, 7.0):
            screen.show(replace(a_moment(), elapsed_s=elapsed))
    assert [line.split()[0] for line in text_of(out).splitlines()] == ["0", "3", "7"]


def test_the_summary_is_content_only_when_nothing_is_wrong() -> None:
    good = Judgement(written=2, delivered=2, latencies_s=[0.01, 2.0])
    assert print_summary(console(), good, 0, [])
    assert print_summary(console(), Judgement(written=0), 0, [])
    assert print_summary(out := console(), Judgement(written=1, delivered=1, strangers=["LeadCapture:m"]), 0, [])
    assert "1 events that this demo does not count (LeadCapture)" in text_of(out)
    assert not print_summary(console(), good, 1, [])
    assert not print_summary(console(), good, None, [])
    assert not print_summary(out := console(), Judgement(written=3, missing=["Message:[a]"]), 0, [])
    assert "Message:[a]" in text_of(out)
    assert not print_summary(out := console(), Judgement(written=99, out_of_order=[f"m{n}" for n in range(99)]), 0, [])
    assert "and 49 more" in text_of(out)
    assert not print_summary(console(), good, 0, ["session 1: no connection"])
