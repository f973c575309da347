"""Configurations, the command line without the relay's environment, and an outbox with something of everything."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from daemon.cli import main
from daemon.metrics import Metrics
from daemon.model import Dead, Delivered, Outcome, RetryAt, Suspended, Verdict
from daemon.outbox.sqlite import SqliteOutbox
from tests.clocks import START, FakeClock
from tests.outbox.events import DOWN, OK, ONLY_CRM, REFUSED, commit, event, intent, settle, skipped

Command = Callable[..., Result]
Write = Callable[..., Path]
OLD = {"old": ONLY_CRM["crm"]}


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LIVECHAT_RELAY_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """A configuration with the endpoint `crm` of these keys, and other sections."""

    def write_it(*, sections: dict[str, Any] | None = None, **keys: Any) -> Path:
        path = tmp_path / "config.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML().dump({"endpoints": {"crm": {"url": "https://crm.example.org/hook", **keys}}, **(sections or {})}, file)
        return path

    return write_it


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="livechat-relay")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "config.yaml"
    text = (
        "mongodb: {uri: 'mongodb://127.0.0.1:1/?replicaSet=rs0'}\n"
        f"outbox: {{url: 'sqlite:///{tmp_path}/outbox.db'}}\n"
        "endpoints: {crm: {url: 'http://127.0.0.1:1/'}}\n"
    )
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def command(config: Path) -> Command:
    """Runs a command with the configuration."""

    def run(*arguments: str) -> Result:
        return CliRunner(catch_exceptions=False).invoke(main, [*arguments, "-c", str(config)])

    return run


@pytest_asyncio.fixture
async def outbox(config: Path) -> AsyncIterator[SqliteOutbox]:
    """An event in each state, named after it, each in a session of its own; `waiting-1` and `waiting-2` in one."""
    opened = SqliteOutbox(config.with_name("outbox.db"), clock=FakeClock(), metrics=Metrics())
    verdicts: dict[str, tuple[Outcome, Verdict]] = {
        "delivered": (OK, Delivered()),
        "dead": (REFUSED, Dead("answered 400, which is final")),
        "suspended": (DOWN, Suspended("10 tries failed")),
        "retried": (DOWN, RetryAt(START + timedelta(hours=1))),
    }
    await opened.append(commit(*(event(name, f"{name} room", content=b'{"said": "hello"}') for name in verdicts)))
    claimed, _ = await opened.claim("crm", 10, 10)
    for delivery in claimed:
        await settle(opened, delivery, *verdicts[delivery.event_id])
    await opened.append(
        commit(
            event("waiting-1", "waiting room"),
            event("waiting-2", "waiting room"),
            intent("intended", "intended room"),
            skipped("unreadable", "cannot be composed: ValueError: odd", "odd room"),
            event("orphan-1", "orphan room", endpoints=OLD),
            event("orphan-2", "orphan room", endpoints=OLD),
            intent("orphan-3", "orphan room", endpoints=OLD),
        )
    )
    yield opened
    await opened.close()
