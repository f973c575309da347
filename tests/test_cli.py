"""The command line as a person meets it: texts, streams, exit codes."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import structlog
from click.testing import CliRunner, Result
from jsonschema import Draft202012Validator
from ruamel.yaml import YAML

from daemon.app import App
from daemon.cli import main
from daemon.compose.payload.schemas import payload_schema
from daemon.config.example import example
from daemon.config.file import load
from daemon.model import EventType, Profile
from daemon.outbox.lock import Lock
from daemon.outbox.writer import connect

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LIVECHAT_RELAY_"):
            monkeypatch.delenv(name)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments, prog_name="livechat-relay")


def relay(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A process of its own."""
    command = [sys.executable, "-m", "daemon", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=cwd, env=environment, check=False)  # noqa: S603


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A configuration that could run, with nothing of it outside `tmp_path`; MongoDB is not there."""
    return write(
        tmp_path / "config.yaml",
        "mongodb: {uri: 'mongodb://127.0.0.1:1/?replicaSet=rs0'}\n"
        f"outbox: {{url: 'sqlite:///{tmp_path}/outbox.db'}}\n"
        "endpoints: {crm: {url: 'http://127.0.0.1:1/'}}\n"
        "serve: {listen: '127.0.0.1:0'}\n",
    )


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Lock]:
    with Lock(tmp_path / "outbox.db") as lock:
        yield lock


class TestHelp:
    @pytest.mark.parametrize("option", ["--help", "-h"])
    def test_it_names_the_commands(self, option: str) -> None:
        result = invoke(option)
        assert result.exit_code == 0
        for command in ("run", "config", "demo", "listen", "test-endpoint"):
            assert command in result.output

    @pytest.mark.parametrize(
        "command",
        [
            ["run"],
            ["config"],
            ["config", "example"],
            ["config", "explain"],
            ["config", "schema"],
            ["demo"],
            ["listen"],
            ["test-endpoint"],
        ],
        ids=" ".join,
    )
    def test_every_command_has_one(self, command: list[str]) -> None:
        result = invoke(*command, "--help")
        assert result.exit_code == 0
        assert f"Usage: livechat-relay {' '.join(command)}" in result.output

    def test_the_version(self) -> None:
        assert version("rocketchat-livechat-relay") in invoke("--version").output

    def test_as_a_module_it_has_the_same_name(self, tmp_path: Path) -> None:
        result = relay("--help", cwd=tmp_path)
        assert result.returncode == 0
        assert result.stdout.startswith("Usage: livechat-relay ")

    @pytest.mark.parametrize("arguments", [["walk"], ["run", "--faster"], ["demo", "--seconds", "0"]])
    def test_wrong_usage_is_2(self, arguments: list[str]) -> None:
        assert invoke(*arguments).exit_code == 2


class TestConfigExample:
    def test_it_is_what_the_repository_ships(self) -> None:
        result = invoke("config", "example")
        assert result.exit_code == 0
        assert result.stdout == example() == (ROOT / "config.yaml").read_text(encoding="utf-8")


class TestConfigSchema:
    @staticmethod
    def printed(*options: str) -> Any:
        result = invoke("config", "schema", *options)
        assert (result.exit_code, result.stderr) == (0, "")
        return json.loads(result.stdout)

    def test_it_is_one(self) -> None:
        Draft202012Validator.check_schema(self.printed())

    def test_the_example_is_as_it_says(self) -> None:
        Draft202012Validator(self.printed()).validate(YAML(typ="safe").load(example()))

    @pytest.mark.parametrize(
        "lines",
        [
            pytest.param("timeout: 20s", id="duration"),
            pytest.param("retry: {wait: [10s, 1m]}", id="list of waits"),
            pytest.param("retry: {wait: 10s}", id="one wait"),
            pytest.param("success: '200'", id="status as text"),
            pytest.param("success: 200", id="status as number"),
        ],
    )
    def test_what_is_accepted_is_as_it_says(self, lines: str, tmp_path: Path) -> None:
        text = f"endpoints: {{crm: {{url: 'https://x', {lines}}}}}\n"
        load(write(tmp_path / "config.yaml", text))
        Draft202012Validator(self.printed()).validate(YAML(typ="safe").load(text))

    @pytest.mark.parametrize(
        "text",
        [
            "{}",
            "endpoints: {}",
            "endpoints: {crm: {}}",
            "endpoints: {crm: {url: 'https://x', ulr: x}}",
            "endpoints: {crm: {url: 'https://x', retry: {tries: 0}}}",
            "endpoints: {crm: {url: 'https://x', events: [Massage]}}",
            "{endpoints: {crm: {url: 'https://x'}}, mongo: {}}",
            "{endpoints: {crm: {url: 'https://x'}}, log: {level: loud}}",
        ],
    )
    def test_an_editor_can_find_faults_with_it(self, text: str) -> None:
        assert not Draft202012Validator(self.printed()).is_valid(YAML(typ="safe").load(text))

    def test_every_key_says_what_it_is(self) -> None:
        schema = self.printed()
        sections = [schema, *(section for section in schema["$defs"].values() if "properties" in section)]
        assert len(sections) >= 10
        silent = [
            name
            for section in sections
            for name, key in section["properties"].items()
            if not (key.get("description") or schema["$defs"].get(key.get("$ref", "").rpartition("/")[2], {}).get("description"))
        ]
        assert silent == []

    @pytest.mark.parametrize("profile", list(Profile), ids=str)
    @pytest.mark.parametrize("event", list(EventType), ids=str)
    def test_of_a_payload(self, event: EventType, profile: Profile) -> None:
        assert self.printed("--payload", event.value, "--profile", profile.value) == payload_schema(event, profile)

    def test_guide_is_the_profile_that_is_meant(self) -> None:
        assert self.printed("--payload", "Message") == payload_schema(EventType.MESSAGE, Profile.GUIDE)

    @pytest.mark.parametrize("release", ["6.0", "6.5.3", "8.0.0"])
    def test_of_a_release(self, release: str) -> None:
        options = ("--payload", "LivechatSession", "--profile", "native", "--server-version", release)
        assert self.printed(*options) == payload_schema(EventType.SESSION, Profile.NATIVE, release)

    @pytest.mark.parametrize(
        "options",
        [("--payload", "Massage"), ("--payload", "message"), ("--payload", "Message", "--profile", "rocket"), ("--payload",)],
        ids=["unknown", "lower case", "profile", "no name"],
    )
    def test_wrong_usage_is_2_and_names_what_there_is(self, options: tuple[str, ...]) -> None:
        result = invoke("config", "schema", *options)
        assert (result.exit_code, result.stdout) == (2, "")
        assert "--payload" in result.stderr or "'guide', 'native'" in result.stderr

    @pytest.mark.parametrize("release", ["newest", "6", "5.4.0"])
    def test_no_release_that_there_can_be(self, release: str) -> None:
        assert invoke("config", "schema", "--payload", "Message", "--server-version", release).exit_code == 2


class TestRun:
    def test_every_fault_of_the_configuration_at_once_on_standard_error(self, tmp_path: Path) -> None:
        text = "mongo: {}\nlog: {level: loud}\nendpoints: {crm: {retry: {tries: 0}}}\n"
        path = write(tmp_path / "bad.yaml", text)
        result = invoke("run", "-c", str(path))
        assert result.exit_code == 2
        assert result.stdout == ""
        assert result.stderr.startswith(f"error: {path}: 4 faults\n")
        for key in ("mongo (line 1)", "log.level (line 2)", "endpoints.crm.url", "endpoints.crm.retry.tries (line 3)"):
            assert f"  {key}" in result.stderr
        assert "\nhint: " in result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize("arguments", [["-c", "nowhere.yaml"], []], ids=["named", "default"])
    def test_no_configuration(self, tmp_path: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        result = invoke("run", *arguments)
        assert result.exit_code == 2
        assert (arguments or ["config.yaml"])[-1] in result.stderr
        assert "livechat-relay config example" in result.stderr

    def test_a_folder_is_no_configuration(self, tmp_path: Path) -> None:
        assert invoke("run", "-c", str(tmp_path)).exit_code == 2

    def test_an_outbox_that_another_relay_has(self, config: Path, held: Lock, tmp_path: Path) -> None:
        result = relay("run", "-c", str(config), cwd=tmp_path)
        assert result.returncode == 1
        assert f"process {os.getpid()} on {socket.gethostname()}" in result.stderr
        assert "\nhint: stop that one first" in result.stderr
        assert "Traceback" not in result.stderr

    def test_an_address_that_another_process_has(self, config: Path, tmp_path: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            write(config, config.read_text(encoding="utf-8").replace("127.0.0.1:0", address))
            result = relay("run", "-c", str(config), cwd=tmp_path)
        assert result.returncode == 1
        assert f"error: serve.listen: cannot listen on {address}" in result.stderr
        assert "Traceback" not in result.stderr

    def test_a_connection_string_that_cannot_be_one(self, config: Path, tmp_path: Path) -> None:
        write(config, config.read_text(encoding="utf-8").replace("mongodb://127.0.0.1:1", "postgres://user:hunter2@host"))
        result = relay("run", "-c", str(config), cwd=tmp_path)
        assert result.returncode == 2
        assert "mongodb.uri" in result.stderr
        assert "hunter2" not in result.stdout + result.stderr
        assert "Traceback" not in result.stderr

    @pytest.mark.parametrize("grouped", [False, True], ids=["alone", "in a group"])
    def test_a_defect_ends_in_one_line_of_the_log(self, config: Path, monkeypatch: pytest.MonkeyPatch, grouped: bool) -> None:
        async def broken(*_: object) -> None:
            error = KeyError("what a visitor wrote")
            raise ExceptionGroup("a loop", [error]) if grouped else error

        monkeypatch.setattr(App, "run", broken)
        before, handlers, level = structlog.get_config(), logging.root.handlers[:], logging.root.level
        try:
            result = invoke("run", "-c", str(config))
        finally:
            structlog.configure(**before)
            logging.root.handlers[:] = handlers
            logging.root.setLevel(level)
        assert result.exit_code == 1
        assert result.stderr == ""
        (line,) = map(json.loads, result.stdout.splitlines())
        assert (line["event"], line["level"], line["stage"]) == ("relay.crashed", "error", "app")
        assert "KeyError" in json.dumps(line["exception"])
        assert "report it" in line["hint"]
        assert "visitor" not in result.stdout

    def test_why_it_cannot_start_is_in_the_log_too(self, config: Path, held: Lock, tmp_path: Path) -> None:
        result = relay("run", "-c", str(config), cwd=tmp_path)
        (line,) = (line for line in map(json.loads, result.stdout.splitlines()) if line["level"] == "error")
        assert line["event"] == "relay.failed"
        assert line["hint"].startswith("stop that one first")

    @pytest.mark.parametrize("number", ["TERM", "INT"])
    def test_a_signal_ends_it_well_although_mongodb_is_away(self, config: Path, tmp_path: Path, number: str) -> None:
        command = [sys.executable, "-m", "daemon", "run", "-c", str(config)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT, text=True) as process:  # noqa: S603
            assert process.stdout is not None
            for line in process.stdout:
                if "capture.unreachable" in line or "relay.starting" in line:
                    break
            subprocess.run(["kill", f"-{number}", str(process.pid)], check=True)  # noqa: S603, S607
            assert process.wait(timeout=5) == 0
            assert "relay.stopped" in process.stdout.read()


class TestDeliveries:
    def test_they_can_be_looked_at_while_credentials_are_away(self, config: Path, tmp_path: Path) -> None:
        """systemd takes credentials away when the service stops; the outbox is there all the same."""
        write(config, config.read_text(encoding="utf-8").replace("'127.0.0.1:0'", "'127.0.0.1:0', api_token_file: /run/gone"))
        connect(tmp_path / "outbox.db").close()
        result = invoke("deliveries", "list", "-c", str(config), "--json")
        assert (result.exit_code, result.output) == (0, "")
        assert invoke("run", "-c", str(config)).exit_code == 2

    def test_a_time_that_is_none(self, config: Path) -> None:
        result = invoke("deliveries", "list", "-c", str(config), "--since", "yesterday")
        assert result.exit_code == 2
        assert "neither a time" in result.stderr
