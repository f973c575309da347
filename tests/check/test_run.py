"""The whole: everything is looked at, whatever fails; the command's output and exit codes."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from daemon.check import mongodb, run
from daemon.check.findings import Finding, Status, failure, ok
from daemon.check.run import run_checks
from daemon.clock import SystemClock
from daemon.commands.check import print_table
from daemon.config.file import load
from daemon.demo.receiver import Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, running, write_config
from tests.flow.traffic import Database

ROOT = Path(__file__).parents[2]
CHECKS = {
    "configuration.file", "mongodb.server", "mongodb.members", "mongodb.majority", "mongodb.clock", "mongodb.oplog",
    "mongodb.rights", "rocketchat.version", "rocketchat.livechat", "rocketchat.webhook", "rocketchat.offline",
    "rocketchat.file_links", "endpoint.connection", "outbox.folder", "outbox.space", "outbox.relay", "outbox.file",
}  # fmt: skip


async def check(config: Path, *arguments: str) -> tuple[int, str, str]:
    """The command in a process of its own: exit code, standard output and errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    command = (sys.executable, "-m", "daemon", "check", "-c", str(config), *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=pipe, env=environment)
    out, err = await process.communicate()
    return process.returncode or 0, out.decode(), err.decode()


async def test_everything_is_looked_at(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """Stopped and running: a relay beside it notices nothing."""
    await traffic.load_initial(database)
    await database["rocketchat_statistics"].insert_one({"version": "7.2.0", "createdAt": 1})
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        before = await run_checks(load(config), config, SystemClock())
        assert {finding.check for finding in before} == CHECKS
        assert not [finding for finding in before if finding.status is Status.FAILURE]
        assert not (tmp_path / "outbox.db").exists()
        async with running(config) as app:
            beside = await run_checks(load(config), config, SystemClock())
            assert app.health.not_ready() is None
        assert {finding.check for finding in beside} == CHECKS | {"outbox.owner", "backlog.owed"}
        (oplog,) = (finding for finding in beside if finding.check == "mongodb.oplog")
        assert "reading stands" in oplog.found
        assert receiver.exchanges == []
    assert all(bool(finding.remedy) == (finding.status is not Status.OK) for finding in [*before, *beside])


async def test_command(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """A table for people, the same as JSON for machines; warnings are no failure."""
    await traffic.load_initial(database)
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        (table_code, table, _), (code, text, errors) = await asyncio.gather(check(config), check(config, "--json"))
    assert (table_code, code, errors) == (0, 0, "")
    told = json.loads(text)
    assert told["status"] == "warning"
    for finding in told["findings"]:
        assert set(finding) == {"check", "subject", "status", "found", "remedy"}
        assert finding["check"] in table
    (webhook,) = (finding for finding in told["findings"] if finding["check"] == "rocketchat.webhook")
    assert webhook["status"] == "warning"
    assert "→ clear the webhook URL" in table


@pytest.mark.parametrize("columns", [80, 200])
def test_table_fits_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    found = " ".join(f"[word{number}]" for number in range(40))
    print_table([failure("endpoint.connection", found, "mend it", subject="e" * 63), ok("mongodb.server", "MongoDB 6.0.5")])
    out = capsys.readouterr().out
    assert max(len(line) for line in out.splitlines()) <= columns
    assert [word for word in found.split() if word not in out] == []
    assert "→ mend it" in out
    assert out.splitlines()[-1] == "1 failure, 1 ok"


async def test_failures_do_not_hide_each_other(tmp_path: Path) -> None:
    """Neither MongoDB nor the endpoint are there, and nor is the folder of the outbox."""
    config = write_config(
        tmp_path,
        uri="mongodb://user:pa55@127.0.0.1:9/?replicaSet=rs0&serverSelectionTimeoutMS=200",
        database="rocketchat",
        url="http://127.0.0.1:9/?key=pa55",
        outbox={"url": f"sqlite:///{tmp_path}/nowhere/outbox.db"},
    )
    code, out, errors = await check(config, "--json")
    assert (code, errors) == (1, "")
    told = json.loads(out)
    assert told["status"] == "failure"
    failed = {finding["check"] for finding in told["findings"] if finding["status"] == "failure"}
    assert failed == {"mongodb.server", "endpoint.connection"}
    assert "pa55" not in out


async def test_configuration_that_cannot_be_loaded(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("endpoints: {}\n", encoding="utf-8")
    code, out, errors = await check(config)
    assert (code, out) == (2, "")
    assert "endpoints" in errors
    assert "hint:" in errors


async def test_connection_string_that_cannot_be_one(tmp_path: Path) -> None:
    config = write_config(tmp_path, uri="mongodb://h:port/", database="rocketchat", url="http://127.0.0.1:9/")
    findings = await run_checks(load(config), config, SystemClock())
    (uri,) = (finding for finding in findings if finding.check.startswith("mongodb."))
    assert (uri.check, uri.status) == ("mongodb.uri", Status.FAILURE)


async def test_database_without_rocketchat(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    config = write_config(tmp_path, uri=f"{mongodb_uri}&foo=1", database=database.name, url="http://127.0.0.1:9/")
    findings = await run_checks(load(config), config, SystemClock())
    found = {finding.check: finding for finding in findings}
    assert found["rocketchat.settings"].status is Status.FAILURE
    assert "mongodb.database" in str(found["rocketchat.settings"].remedy)
    assert found["mongodb.server"].status is Status.OK
    assert found["mongodb.uri"].status is Status.WARNING
    assert "foo" in found["mongodb.uri"].found


async def test_check_that_breaks_is_a_finding(
    mongodb_uri: str, database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A defect in one, a time-out in another: the rest is told all the same."""

    async def broken(*_: Any) -> list[Finding]:
        raise KeyError("lastWrite")

    async def slow(*_: Any) -> list[Finding]:
        await asyncio.Event().wait()
        return [failure("never", "", "")]

    monkeypatch.setattr(run, "_LONGEST_CHECK_S", 3.0)
    monkeypatch.setattr(mongodb, "check_clock", broken)
    monkeypatch.setattr(run, "check_rights", slow)
    await traffic.load_initial(database)
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/")
    found = {finding.check: finding for finding in await run_checks(load(config), config, SystemClock())}
    assert "the check itself failed: KeyError" in found["mongodb.clock"].found
    assert "no result within 3 seconds" in found["mongodb.rights"].found
    assert found["rocketchat.livechat"].status is Status.OK
    assert found["outbox.folder"].status is Status.OK
