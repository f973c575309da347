"""The systemd unit, as systemd itself reads it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from daemon.config.root import Config
from daemon.config.types import parse_duration

UNIT = Path(__file__).parents[2] / "systemd" / "livechat-relay.service"
_WORST_EXPOSURE = 1.5

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here (Debian: systemd)"
)


def settings() -> dict[str, list[str]]:
    """Every setting of the unit; the last value of a list is the one that counts for most of them."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text(encoding="utf-8").splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            found.setdefault(name, []).append(value)
    return found


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = ["systemd-analyze", "--no-pager", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)  # noqa: S603


@needs_systemd
def test_systemd_finds_no_fault(tmp_path: Path) -> None:
    """With a command that is there; the rest as it is shipped, the commented credentials switched on."""
    text = UNIT.read_text(encoding="utf-8").replace("/opt/livechat-relay/bin/livechat-relay", sys.executable)
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace("#LoadCredential", "LoadCredential"), encoding="utf-8")
    result = analyze("verify", str(copy))
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


@needs_systemd
def test_it_is_hardened() -> None:
    result = analyze("security", "--offline=true", str(UNIT))
    exposure = re.search(r"Overall exposure level for livechat-relay.service: ([\d.]+)", result.stdout)
    assert exposure is not None, result.stderr
    assert float(exposure[1]) <= _WORST_EXPOSURE


def test_it_ends_by_itself_before_systemd_kills_it() -> None:
    """Requests in flight get their grace, then there is time to close."""
    grace = Config(endpoints={"crm": {"url": "http://x"}}).relay.grace
    (timeout,) = settings()["TimeoutStopSec"]
    assert (parse_duration(timeout) - grace).total_seconds() >= 15


def test_a_wrong_configuration_is_not_started_again_and_again() -> None:
    assert settings()["RestartPreventExitStatus"] == ["2"]


def test_the_state_is_where_the_configuration_puts_it() -> None:
    config = Config(endpoints={"crm": {"url": "http://x"}})
    (folder,) = settings()["StateDirectory"]
    assert config.outbox.path.parent == Path("/var/lib") / folder
