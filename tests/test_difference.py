"""What differs between two configurations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from daemon.config.difference import difference, keep_fixed, snapshot
from daemon.config.root import Config

URL = "https://crm.example.org/hook/hunter2"


def config(crm: dict[str, Any] | None = None, **sections: Any) -> Config:
    return Config(endpoints={"crm": {"url": URL, **(crm or {})}}, **sections)


def changed(before: Config, after: Config) -> dict[str, list[str]]:
    return difference(snapshot(before), snapshot(after))


def test_nothing() -> None:
    assert changed(config(), config()) == {"added": [], "removed": [], "changed": []}


@pytest.mark.parametrize(
    ("after", "text"),
    [
        (config({"concurrency": 7}), "endpoints.crm.concurrency: 32 -> 7"),
        (config({"timeout": "1m"}), "endpoints.crm.timeout: 20s -> 1m"),
        (config({"retry": {"wait": ["1s", "1m"]}}), "endpoints.crm.retry.wait: 10s -> [1s, 1m]"),
        (config({"departments": ["Sales"]}), "endpoints.crm.departments: [] -> [Sales]"),
        (config(log={"level": "debug"}), "log.level: info -> debug"),
        (config({"secret_token": "hunter2"}), "endpoints.crm.secret_token"),
        (config({"url": "https://me:hunter2@other.example.org"}), "endpoints.crm.url"),
        (config(mongodb={"uri": "mongodb://me:hunter2@host"}), "mongodb.uri"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_values_are_shown_and_secrets_are_not(after: Config, text: str) -> None:
    assert changed(config(), after) == {"added": [], "removed": [], "changed": [text]}


def test_endpoints_that_come_and_go() -> None:
    other = Config(endpoints={"archive": {"url": URL, "secret_token": "hunter2"}})
    found = changed(config(), other)
    assert "endpoints.archive.secret_token" in found["added"]
    assert "endpoints.crm.url" in found["removed"]
    assert "hunter2" not in str(found)


def test_a_header_is_a_secret() -> None:
    before, after = config({"headers": {"X-Key": "hunter1"}}), config({"headers": {"X-Key": "hunter2"}})
    assert changed(before, after)["changed"] == ["endpoints.crm.headers.X-Key"]


def test_what_is_in_a_file_counts(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("hunter1", encoding="utf-8")
    same = config({"secret_token_file": str(secret)})
    before = snapshot(same)
    secret.write_text("hunter2", encoding="utf-8")
    expected = {"added": [], "removed": [], "changed": ["endpoints.crm.secret_token_file (content)"]}
    assert difference(before, snapshot(same)) == expected
    assert "hunter" not in str(before)


def test_what_only_a_start_can_change_is_kept() -> None:
    running = config(serve={"listen": "127.0.0.1:1"})
    wanted = config({"concurrency": 7}, serve={"listen": "127.0.0.1:2", "api_token": "0123456789abcdef"})
    kept, keys = keep_fixed(wanted, running)
    assert keys == ["serve.listen"]
    assert kept.serve.listen == "127.0.0.1:1"
    assert kept.serve.token() == "0123456789abcdef"
    assert kept.endpoints["crm"].concurrency == 7
