"""listen: as a process, until it is interrupted."""

from __future__ import annotations

import base64
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from daemon.clock import SystemClock
from daemon.model import Answered
from daemon.send.client import Sender
from tests.commands.conftest import invoke
from tests.send.conftest import BODY, DELIVERY, endpoint

WHSEC = "whsec_" + base64.b64encode(b"k" * 32).decode()
ROOT = Path(__file__).parents[2]


@contextmanager
def listening(*options: str) -> Iterator[tuple[str, list[str]]]:
    """Where it listens; and, after the end, what it printed."""
    command = [sys.executable, "-u", "-m", "daemon", "listen", "--port", "0", *options]
    printed: list[str] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT) as process:  # noqa: S603
        assert process.stdout is not None
        first = process.stdout.readline()
        try:
            yield first.removeprefix("listening on ").partition(" ")[0], printed
        finally:
            process.send_signal(signal.SIGINT)
            printed += process.stdout.read().splitlines()
            assert process.wait(timeout=10) == 0


async def test_from_start_to_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("s3cret\n")
    options = ("--token-file", f"{tmp_path}/token", "--signing-secret", WHSEC, "--status", "503", "--fail-every", "2")
    with listening(*options, "--no-bodies", "--save", f"{tmp_path}/saved") as (url, printed):
        section = endpoint(url, secret_token="s3cret", signing_secrets=[WHSEC])
        async with Sender("crm", section, clock=SystemClock()) as sender:
            outcomes = [await sender.post(DELIVERY, BODY) for _ in range(3)]
        async with Sender("crm", endpoint(url), clock=SystemClock()) as sender:
            outcomes.append(await sender.post(DELIVERY, BODY))
    assert [outcome.status for outcome in outcomes if isinstance(outcome, Answered)] == [200, 503, 200, 401]
    assert isinstance(outcomes[3], Answered)
    assert outcomes[3].answer == b"token missing, signature missing\n"
    assert printed[-1] == "4 requests: 2 accepted, 1 failed, 1 refused with 401; 3 of all were duplicates"
    assert sum("token ok  signature ok" in line for line in printed) == 3
    assert any("token missing  signature missing" in line for line in printed)
    assert len(list((tmp_path / "saved").iterdir())) == 4
    assert "s3cret" not in "\n".join(printed)


async def test_a_delay_and_bodies() -> None:
    with listening("--delay", "300ms") as (url, printed):
        async with Sender("crm", endpoint(url), clock=SystemClock()) as sender:
            outcome = await sender.post(DELIVERY, BODY)
    assert isinstance(outcome, Answered)
    assert outcome.duration_s >= 0.3
    assert '    "name": "Zoë 👋"' in printed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--token", "a", "--token-file", __file__), "not both"),
        (("--signing-secret", "hunter2"), "begins with whsec_"),
        (("--delay", "2"), "a duration is a number and a unit"),
        (("--status", "42"), "200<=x<=599"),
        (("--fail-every", "0"), "x>=1"),
        (("--token-file", "/nowhere"), "does not exist"),
    ],
)
def test_wrong_usage_is_2(options: tuple[str, ...], said: str) -> None:
    result = invoke("listen", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert "hunter2" not in result.output


def test_an_empty_token_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\n")
    result = invoke("listen", "--token-file", tmp_path / "token")
    assert result.exit_code == 2
    assert f"--token-file: {tmp_path}/token is empty" in result.stderr
