"""`livechat-relay deliveries`, beside a relay that holds the outbox."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from daemon.cli import main
from daemon.model import Delivered
from daemon.outbox.sqlite import SqliteOutbox
from tests.commands.conftest import Command
from tests.outbox.events import OK, TWO, commit, event, look, settle

pytestmark = pytest.mark.usefixtures("outbox")


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def listed(command: Command, *options: str) -> list[str]:
    result = command("deliveries", "list", "--json", *options)
    assert result.exit_code == 0, result.stderr
    return [line["event_id"] for line in lines(result.stdout)]


@pytest.mark.parametrize(
    ("options", "want"),
    [
        pytest.param(["--state", "dead"], ["dead"], id="state"),
        pytest.param(["--state", "dead", "--state", "delivered"], ["delivered", "dead"], id="states"),
        pytest.param(["--state", "pending"], ["retried", "waiting-1", "waiting-2"], id="owed to what is configured"),
        pytest.param(["--state", "orphaned"], ["orphan-1", "orphan-2", "orphan-3"], id="orphaned"),
        pytest.param(["--state", "intent", "--state", "skipped"], ["intended", "unreadable"], id="intent, skipped"),
        pytest.param(["--endpoint", "old"], ["orphan-1", "orphan-2", "orphan-3"], id="endpoint"),
        pytest.param(["--type", "LivechatSession"], ["intended", "orphan-3"], id="type"),
        pytest.param(["--session", "waiting room"], ["waiting-1", "waiting-2"], id="session"),
        pytest.param(["--session", "waiting room", "--limit", "1"], ["waiting-1"], id="limit"),
        pytest.param(["dead", "waiting-2"], ["dead", "waiting-2"], id="ids"),
        pytest.param(["--since", "2000-01-01", "--state", "dead"], ["dead"], id="since"),
        pytest.param(["--until", "2000-01-01T00:00:00Z"], [], id="until"),
    ],
)
def test_filters(command: Command, options: list[str], want: list[str]) -> None:
    assert listed(command, *options) == want


def test_a_table_by_default(command: Command) -> None:
    result = command("deliveries", "list", "--limit", "3")
    rows = result.stdout.splitlines()
    assert rows[0].split() == ["endpoint", "state", "happened", "tries", "next", "try", "event", "reason"]
    assert "dead" in result.stdout
    assert "answered 400, which is final" in result.stdout
    assert rows[-1] == "3 of 11; --limit shows more, filters show others"


def test_orphaned_is_told_as_such(command: Command) -> None:
    states = {line["event_id"]: line["state"] for line in lines(command("deliveries", "list", "--json").stdout)}
    assert states["orphan-1"] == states["orphan-3"] == "orphaned"
    assert states["waiting-1"] == "pending"


def test_show_tells_every_attempt_and_the_payload_on_demand(command: Command) -> None:
    result = command("deliveries", "show", "dead")
    assert "answered 400" in result.stdout
    assert "0.500" in result.stdout
    assert "hello" not in result.stdout
    assert "hello" in command("deliveries", "show", "dead", "--body").stdout
    (found,) = lines(command("deliveries", "show", "dead", "--json", "--body").stdout)
    assert found["payload"] == {"said": "hello"}
    assert [(attempt["number"], attempt["status"], attempt["answer"]) for attempt in found["history"]] == [(1, 400, "no")]


def test_show_of_nothing_says_where_ids_are(command: Command) -> None:
    result = command("deliveries", "show", "nowhere")
    assert (result.exit_code, "deliveries list" in result.stderr) == (1, True)


def test_without_an_outbox_it_says_where_it_looked(config: Path) -> None:
    config.write_text(config.read_text(encoding="utf-8").replace("outbox.db", "other.db"), encoding="utf-8")
    result = CliRunner().invoke(main, ["deliveries", "list", "-c", str(config)])
    assert (result.exit_code, "there is no outbox at" in result.stderr, "outbox.url" in result.stderr) == (1, True, True)


def test_export_has_everything(command: Command) -> None:
    found = lines(command("deliveries", "export", "--state", "dead", "--state", "delivered").stdout)
    assert [(line["event_id"], line["payload"], len(line["history"])) for line in found] == [
        ("delivered", {"said": "hello"}, 1),
        ("dead", {"said": "hello"}, 1),
    ]


async def test_retry_owes_what_is_dead_again(command: Command, outbox: SqliteOutbox) -> None:
    result = command("deliveries", "retry", "--state", "dead")
    assert (result.exit_code, result.stdout.split(" ")[0]) == (0, "1")
    claimed, _ = await outbox.claim("crm", 10, 10)
    assert [(d.event_id, d.attempt, d.failures) for d in claimed if d.event_id == "dead"] == [("dead", 2, 0)]


def test_retry_of_what_is_suspended_ends_the_outage(command: Command, config: Path) -> None:
    outbox_file = config.with_name("outbox.db")
    assert look(outbox_file, "SELECT count(*) FROM endpoints WHERE down_since IS NOT NULL") == [1]
    assert command("deliveries", "retry", "--state", "suspended").stdout.startswith("1 ")
    assert look(outbox_file, "SELECT count(*) FROM endpoints WHERE down_since IS NOT NULL") == [0]
    assert listed(command, "--state", "suspended") == []


async def test_cancel_leaves_what_is_in_flight(command: Command, outbox: SqliteOutbox) -> None:
    (in_flight,) = [d for d in (await outbox.claim("crm", 10, 0))[0] if d.session == "waiting room"]
    result = command("deliveries", "cancel", "--session", "waiting room", "--reason", "asked to")
    assert (result.exit_code, result.stdout.strip()) == (0, "1 cancelled")
    assert "1 left as they are: in flight" in result.stderr
    assert listed(command, "--state", "cancelled") == ["waiting-2"]
    await settle(outbox, in_flight, OK, Delivered())
    assert command("deliveries", "retry", "waiting-2").stdout.startswith("1 ")


@pytest.mark.parametrize("action", ["retry", "cancel"])
def test_what_changes_something_needs_a_filter(command: Command, action: str) -> None:
    result = command("deliveries", action)
    assert (result.exit_code, "narrow with an option" in result.stderr) == (2, True)


class TestMove:
    async def test_takes_what_is_owed_in_order_and_the_history(self, command: Command, outbox: SqliteOutbox) -> None:
        result = command("deliveries", "move", "--from", "old", "--to", "crm")
        assert (result.exit_code, result.stdout.split(" ")[0]) == (0, "3")
        assert listed(command, "--state", "orphaned") == []
        order = []
        for _ in range(3):
            for delivery in (await outbox.claim("crm", 10, 0))[0]:
                if delivery.session == "orphan room":
                    order.append(delivery.event_id)
                    await settle(outbox, delivery, OK, Delivered())
        assert order == ["orphan-1", "orphan-2"]  # the third has no body yet
        await outbox.composed("orphan-3", {TWO["crm"]: event("x").bodies[TWO["crm"]]})
        assert [d.event_id for d in (await outbox.claim("crm", 10, 0))[0] if d.session == "orphan room"] == ["orphan-3"]

    async def test_what_the_new_one_knows_is_not_sent_twice(self, command: Command, outbox: SqliteOutbox, config: Path) -> None:
        both = {"old": TWO["crm"], "crm": TWO["crm"]}
        await outbox.append(commit(event("shared", "shared room", endpoints=both)))
        result = command("deliveries", "move", "--from", "old", "--to", "crm")
        assert result.stdout.startswith("3 ")
        assert "1 left as they are: crm has them already" in result.stderr
        rows = look(config.with_name("outbox.db"), "SELECT endpoint, state FROM deliveries WHERE session = 'shared room'")
        assert sorted(rows) == [("crm", "pending"), ("old", "cancelled")]

    async def test_a_settled_row_keeps_its_attempts(self, command: Command, outbox: SqliteOutbox) -> None:
        for delivery in (await outbox.claim("old", 10, 10))[0]:
            await settle(outbox, delivery, OK, Delivered())
        command("deliveries", "move", "--from", "old", "--to", "crm")
        (found,) = lines(command("deliveries", "show", "orphan-1", "--json").stdout)
        assert (found["endpoint"], found["state"], len(found["history"])) == ("crm", "delivered", 1)

    async def test_a_session_in_flight_is_left_out(self, command: Command, outbox: SqliteOutbox) -> None:
        (in_flight,) = (await outbox.claim("old", 1, 0))[0]
        result = command("deliveries", "move", "--from", "old", "--to", "crm")
        assert result.stdout.startswith("0 ")
        assert "3 left as they are" in result.stderr
        await settle(outbox, in_flight, OK, Delivered())
        assert command("deliveries", "move", "--from", "old", "--to", "crm").stdout.startswith("3 ")

    @pytest.mark.parametrize(
        ("old", "new", "text"),
        [("crm", "crm", "crm is still in the configuration"), ("old", "new", "no such endpoint; there are crm")],
    )
    def test_wrong_names(self, command: Command, old: str, new: str, text: str) -> None:
        result = command("deliveries", "move", "--from", old, "--to", new)
        assert (result.exit_code, text in result.stderr) == (2, True)
