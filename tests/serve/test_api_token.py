"""Where the token of the API comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.config.file import load
from daemon.config.root import Config
from daemon.errors import ConfigurationError

TOKEN = "0123456789abcdef"


def config(tmp_path: Path, serve: str) -> Config:
    path = tmp_path / "config.yaml"
    path.write_text(f"endpoints: {{crm: {{url: 'http://x'}}}}\nserve: {{{serve}}}\n", encoding="utf-8")
    return load(path)


def test_none(tmp_path: Path) -> None:
    assert config(tmp_path, "").serve.token() == ""


def test_from_the_configuration_and_never_printed(tmp_path: Path) -> None:
    found = config(tmp_path, f"api_token: '{TOKEN}'")
    assert found.serve.token() == TOKEN
    assert TOKEN not in repr(found)


def test_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(f"{TOKEN}\n", encoding="utf-8")
    assert config(tmp_path, f"api_token_file: {tmp_path}/token").serve.token() == TOKEN


@pytest.mark.parametrize(
    ("serve", "content", "words"),
    [
        ("api_token: short", None, "16 characters"),
        (f"api_token: '{TOKEN}', api_token_file: /x", None, "not both"),
        ("api_token_file: {file}", "short", "16 characters"),
        ("api_token_file: {file}", "", "is empty"),
        ("api_token_file: {file}", None, "cannot read"),
    ],
    ids=["short", "both", "short in the file", "empty file", "no file"],
)
def test_what_cannot_be_one_is_told_before_anything_starts(tmp_path: Path, serve: str, content: Any, words: str) -> None:
    file = tmp_path / "token"
    if content is not None:
        file.write_text(content, encoding="utf-8")
    with pytest.raises(ConfigurationError, match=words) as caught:
        config(tmp_path, serve.replace("{file}", str(file)))
    assert "serve" in str(caught.value)
