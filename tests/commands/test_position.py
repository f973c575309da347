"""`livechat-relay position`."""

from __future__ import annotations

import json
from pathlib import Path

from bson.timestamp import Timestamp

from daemon.metrics import Metrics
from daemon.model import Position, StateRow
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import FakeClock
from tests.commands.conftest import Command
from tests.outbox.events import commit, look


async def stopped(config: Path, position: Position) -> None:
    """An outbox with folded state that no relay holds."""
    outbox = SqliteOutbox(config.with_name("outbox.db"), clock=FakeClock(), metrics=Metrics())
    await outbox.append(commit(states=[StateRow("room", "r", {"_id": "r"})], position=position))
    await outbox.close()


async def test_show(command: Command, config: Path) -> None:
    await stopped(config, Position(Timestamp(1_700_000_000, 1), {"_data": "8265"}))
    assert "2023-11-14 22:13:20 UTC" in command("position", "show").stdout
    found = json.loads(command("position", "show", "--json").stdout)
    assert (found["cluster_time"], found["token"]) == ("2023-11-14T22:13:20Z", "8265")


async def test_set_reads_from_there_and_drops_folded_state(command: Command, config: Path) -> None:
    await stopped(config, Position(Timestamp(1_700_000_000, 1), {"_data": "8265"}))
    result = command("position", "set", "2023-11-14T20:00:00Z", "--yes")
    assert result.exit_code == 0
    outbox = config.with_name("outbox.db")
    assert look(outbox, "SELECT seconds, increment, token FROM position") == [(1_699_992_000, 0, None)]
    assert look(outbox, "SELECT count(*) FROM states") == [0]


async def test_set_asks_first(command: Command, config: Path) -> None:
    await stopped(config, Position(Timestamp(1_700_000_000, 1)))
    result = command("position", "set", "now")
    assert (result.exit_code, "Position now: 2023-11-14 22:13:20 UTC" in result.stderr) == (1, True)
    assert look(config.with_name("outbox.db"), "SELECT seconds FROM position") == [1_700_000_000]


async def test_a_time_to_come_is_refused(command: Command, config: Path) -> None:
    await stopped(config, Position(Timestamp(1_700_000_000, 1)))
    assert "yet to come" in command("position", "set", "2099-01-01", "--yes").stderr


def test_set_while_a_relay_runs_is_refused(command: Command, outbox: SqliteOutbox, config: Path) -> None:
    result = command("position", "set", "now", "--yes")
    assert result.exit_code == 1
    assert "is in use by another relay" in result.stderr
    assert look(config.with_name("outbox.db"), "SELECT seconds FROM position") == [1_700_000_000]
