"""A configuration file, the command line, and no environment of the relay."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from ruamel.yaml import YAML

from daemon.cli import main

Write = Callable[..., Path]


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
