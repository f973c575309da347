"""The rules and the dashboard speak of metrics and commands that there are, and the rules fire when they should."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import click
import pytest
from ruamel.yaml import YAML

from daemon.cli import main
from daemon.metrics import Metrics

ROOT = Path(__file__).parents[2]
RULES = ROOT / "monitoring" / "alerts.yml"
DASHBOARD = ROOT / "monitoring" / "grafana-dashboard.json"
PROCESS = {"process_resident_memory_bytes", "process_cpu_seconds_total", "process_open_fds", "process_max_fds"}
OPLOG = {"livechat_relay_capture_oplog_window_seconds", "livechat_relay_capture_oplog_left_seconds"}
_METRIC = re.compile(r"\b(?:livechat_relay|process)_\w+")


def shown() -> set[str]:
    """Every name that a scrape can hold."""
    metrics = Metrics()
    metrics.expect_endpoint("crm")
    metrics.endpoint_up.labels("crm")
    metrics.reads.labels("rocketchat_room")
    samples = {sample.name for family in metrics.registry.collect() for sample in family.samples}
    return samples | OPLOG


def rules() -> list[dict[str, Any]]:
    groups = YAML(typ="safe").load(RULES)["groups"]
    return [rule for group in groups for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return found


def expressions() -> Iterator[str]:
    for panel in dashboard()["panels"]:
        yield from (target["expr"] for target in panel.get("targets", ()))
    yield from (variable["definition"] for variable in dashboard()["templating"]["list"] if "definition" in variable)
    yield from (note["expr"] for note in dashboard()["annotations"]["list"] if "expr" in note)


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("promtool is not there: apt-get install prometheus")
    return subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603


class TestRules:
    def test_prometheus_takes_them(self) -> None:
        checked = promtool("check", "rules", str(RULES))
        assert checked.returncode == 0, checked.stdout + checked.stderr

    def test_they_fire_when_they_should(self) -> None:
        tested = promtool("test", "rules", str(Path(__file__).with_name("alerts_test.yml")))
        assert tested.returncode == 0, tested.stdout + tested.stderr

    def test_each_is_tested(self) -> None:
        tests = Path(__file__).with_name("alerts_test.yml").read_text(encoding="utf-8")
        assert [rule["alert"] for rule in rules() if tests.count(rule["alert"]) < 2] == []

    def test_each_says_what_to_do(self) -> None:
        for rule in rules():
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"]["summary"], rule["alert"]
            assert re.search(r"`[^`]+`", rule["annotations"]["description"]), rule["alert"]

    def test_they_measure_what_there_is(self) -> None:
        for rule in rules():
            assert set(_METRIC.findall(rule["expr"])) - shown() == set(), rule["alert"]


def commands(text: str) -> list[list[str]]:
    """The calls of `livechat-relay` in a text for people, with values for what they leave open."""
    calls = re.findall(r"`(?:livechat-relay )((?:deliveries|run|config|demo)[^`]*)`", text)
    return [shlex.split(re.sub(r"\{\{.*?\}\}|<\w+>", "x", call).replace("...", "")) for call in calls]


def parse(arguments: list[str]) -> None:
    """Raises what the command line would."""
    command: click.Command = main
    while isinstance(command, click.Group):
        name, *arguments = arguments
        command = command.commands[name]
    with command.make_context(command.name, arguments):
        pass


@pytest.mark.parametrize("path", ["monitoring/alerts.yml", "docs/logs.md"])
def test_the_commands_they_name_can_be_typed(path: str) -> None:
    found = commands((ROOT / path).read_text(encoding="utf-8"))
    assert len(found) >= 3
    for arguments in found:
        parse(arguments)


class TestDashboard:
    def test_it_shows_what_there_is(self) -> None:
        used = {name for expression in expressions() for name in _METRIC.findall(expression)}
        assert used - shown() - PROCESS == set()

    def test_it_shows_all_of_it(self) -> None:
        used = {name for expression in expressions() for name in _METRIC.findall(expression)}
        ours = {name for name in shown() if name.startswith("livechat_relay_")}
        families = {re.sub(r"_(bucket|sum|count)$", "", name) for name in ours}
        assert families - {re.sub(r"_bucket$", "", name) for name in used} == set()

    def test_every_panel_has_a_unit_and_says_what_it_is(self) -> None:
        panels = [panel for panel in dashboard()["panels"] if panel["type"] != "row"]
        assert len(panels) > 25
        for panel in panels:
            assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
            assert 20 <= len(panel["description"]) <= 200, panel["title"]
            assert panel["datasource"]["uid"] == "${datasource}", panel["title"]
            assert all(target["datasource"]["uid"] == "${datasource}" for target in panel["targets"])

    def test_the_data_source_is_chosen_by_whoever_imports_it(self) -> None:
        assert (
            dashboard()["templating"]["list"][0] | {"query": "prometheus", "type": "datasource"}
            == dashboard()["templating"]["list"][0]
        )
        assert dashboard()["schemaVersion"] >= 38

    def test_rows(self) -> None:
        rows = [panel["title"] for panel in dashboard()["panels"] if panel["type"] == "row"]
        assert rows == ["Capture", "Compose", "Outbox", "Relay by endpoint", "Process"]

    def test_no_panel_lies_on_another(self) -> None:
        panels = dashboard()["panels"]
        assert len({panel["id"] for panel in panels}) == len(panels)
        places = [panel["gridPos"] for panel in panels]
        assert all(place["x"] + place["w"] <= 24 for place in places)
        for one, two in combinations(places, 2):
            apart_x = one["x"] + one["w"] <= two["x"] or two["x"] + two["w"] <= one["x"]
            apart_y = one["y"] + one["h"] <= two["y"] or two["y"] + two["h"] <= one["y"]
            assert apart_x or apart_y, (one, two)

    def test_prometheus_can_read_every_expression(self, tmp_path: Path) -> None:
        replaced = [
            expression.replace("$__rate_interval", "5m")
            .replace("$job", ".*")
            .replace("$instance", ".*")
            .replace("$endpoint", ".*")
            for expression in expressions()
            if not expression.startswith("label_values")
        ]
        assert not [expression for expression in replaced if "$" in expression]
        rules = [{"record": f"panel:number{number}", "expr": expression} for number, expression in enumerate(replaced)]
        with (tmp_path / "rules.yml").open("w", encoding="utf-8") as file:
            YAML().dump({"groups": [{"name": "panels", "rules": rules}]}, file)
        checked = promtool("check", "rules", str(tmp_path / "rules.yml"))
        assert checked.returncode == 0, checked.stdout + checked.stderr
