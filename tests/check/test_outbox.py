"""The outbox as check finds it: absent, in use, full, damaged, and with a backlog."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from daemon.check import outbox as check
from daemon.check.findings import Finding, Status
from daemon.check.outbox import check_outbox
from daemon.metrics import Metrics
from daemon.model import Answered, Dead, Delivered, Profile, Suspended, Unreachable
from daemon.outbox.lock import Lock
from daemon.outbox.sqlite import SqliteOutbox
from tests.check.build import config
from tests.clocks import FakeClock
from tests.outbox.events import POSITION, commit, event, settle

OK, WARNING, FAILURE = Status.OK, Status.WARNING, Status.FAILURE


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


def look(path: Path, clock: FakeClock, **outbox: Any) -> dict[str, Finding]:
    """Findings by their name."""
    findings, _ = check_outbox(config(outbox={"url": f"sqlite:///{path}", "max_size": "1MB", **outbox}), clock)
    return {finding.check: finding for finding in findings}


async def fill(path: Path, clock: FakeClock, *outcomes: str) -> None:
    """One event for each: delivered, dead, suspended, owed, or for an endpoint that is not configured."""
    outbox = SqliteOutbox(path, clock=clock, metrics=Metrics())
    for number, outcome in enumerate(outcomes):
        endpoint = "old" if outcome == "orphaned" else "crm"
        await outbox.append(commit(event(f"e{number}", f"room{number}", endpoints={endpoint: Profile.GUIDE})))
        if outcome in {"owed", "orphaned"}:
            continue
        ((delivery, *_), _) = await outbox.claim("crm", 1, 1)
        match outcome:
            case "delivered":
                await settle(outbox, delivery, Answered(200, b"", 0.1), Delivered())
            case "dead":
                await settle(outbox, delivery, Answered(422, b"", 0.1), Dead("answered 422"))
            case "suspended":
                await settle(outbox, delivery, Unreachable("refused", 0.1), Suspended("10 tries failed"))
    await outbox.close()


def test_before_the_first_start(path: Path, clock: FakeClock) -> None:
    """Nothing is made: it would belong to whoever runs the command."""
    found = look(path, clock)
    assert {finding.status for finding in found.values()} == {OK}
    assert "is not there yet" in found["outbox.file"].found
    assert list(path.parent.iterdir()) == []


async def test_in_order(path: Path, clock: FakeClock) -> None:
    await fill(path, clock, "delivered")
    findings, place = check_outbox(config(outbox={"url": f"sqlite:///{path}"}), clock)
    assert {finding.status for finding in findings} == {OK}
    assert place.position == POSITION
    assert not place.running


async def test_beside_a_relay(path: Path, clock: FakeClock) -> None:
    outbox = SqliteOutbox(path, clock=clock, metrics=Metrics())
    found = look(path, clock)
    assert found["outbox.relay"].found.startswith("a relay runs on this outbox (process ")
    await outbox.close()
    assert look(path, clock)["outbox.relay"].found == "no relay runs on this outbox"


async def test_looking_does_not_keep_a_relay_from_starting(path: Path, clock: FakeClock) -> None:
    await fill(path, clock)
    look(path, clock)
    Lock(path).release()


def test_folder_is_missing(path: Path, clock: FakeClock) -> None:
    found = look(path.parent / "nowhere" / "outbox.db", clock)
    assert found["outbox.folder"].status is WARNING
    assert "install -d" in str(found["outbox.folder"].remedy)


def test_folder_is_not_writable(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    found = look(path, clock)
    assert found["outbox.folder"].status is FAILURE
    assert "may not write there" in found["outbox.folder"].found
    assert "sudo -u livechat-relay" in str(found["outbox.folder"].remedy)


def test_too_little_space(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(path.parent)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=999_999))
    found = look(path, clock)["outbox.space"]
    assert found.status is WARNING
    assert "1000.0 kB free" in found.found


async def test_others_may_read_it(path: Path, clock: FakeClock) -> None:
    await fill(path, clock)
    await asyncio.to_thread(path.chmod, 0o644)
    found = look(path, clock)["outbox.owner"]
    assert found.status is WARNING
    assert "mode 0644" in found.found
    assert "chmod 600" in str(found.remedy)


async def test_full(path: Path, clock: FakeClock) -> None:
    await fill(path, clock)
    found = look(path, clock, max_size="10kB")["outbox.size"]
    assert found.status is FAILURE
    assert "reading pauses" in found.found


def damage(path: Path, content: bytes | None) -> None:
    whole = path.read_bytes()
    path.write_bytes(content or whole[:4096] + b"\x17" * 20_000 + whole[24_096:])


@pytest.mark.parametrize("content", [pytest.param(b"not SQLite" * 500, id="another file"), pytest.param(None, id="torn")])
async def test_damaged(path: Path, clock: FakeClock, content: bytes | None) -> None:
    await fill(path, clock, *["delivered"] * 3)
    await asyncio.to_thread(damage, path, content)
    found = look(path, clock)["outbox.file"]
    assert found.status is FAILURE
    assert "damaged" in found.found
    assert found.remedy


@pytest.mark.parametrize(
    ("version", "status", "says"),
    [
        pytest.param(99, FAILURE, "written by a newer livechat-relay", id="newer"),
        pytest.param(0, OK, "at the relay's next start", id="older"),
    ],
)
async def test_other_schema(path: Path, clock: FakeClock, version: int, status: Status, says: str) -> None:
    await fill(path, clock)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"PRAGMA user_version = {version}")
    (found,) = (finding for finding in look(path, clock).values() if "schema" in finding.found and says in finding.found)
    assert found.status is status


async def test_long_look_is_cut(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(path, clock, *["delivered"] * 30)
    monkeypatch.setattr(check, "_STEPS", 1)
    monkeypatch.setattr(check, "_QUICK_CHECK_S", -1.0)
    found = look(path, clock)
    assert found["outbox.file"].status is OK
    assert "what could be looked at" in found["outbox.file"].found
    assert found["backlog.owed"].status is OK


async def test_backlog(path: Path, clock: FakeClock) -> None:
    await fill(path, clock, "dead", "suspended", "orphaned")
    clock.advance(timedelta(hours=3).total_seconds())
    found = look(path, clock)
    assert found["backlog.owed"].status is WARNING
    assert found["backlog.owed"].found == "down for 3 hours; 1 event owed, the oldest 3 hours old"
    assert found["backlog.dead"].status is WARNING
    assert "deliveries list --state dead --endpoint crm" in str(found["backlog.dead"].remedy)
    assert found["backlog.orphaned"].subject == "old"
    assert "deliveries cancel --endpoint old" in str(found["backlog.orphaned"].remedy)


async def test_refused_type(path: Path, clock: FakeClock) -> None:
    await fill(path, clock, *["dead"] * 5)
    found = look(path, clock)["backlog.refused"]
    assert (found.subject, found.status) == ("crm", WARNING)
    assert "answers 422 to every Message" in found.found
    assert "endpoints.crm.retry.final" in str(found.remedy)
