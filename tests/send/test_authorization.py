"""Who the relay says it is: one Authorization, from wherever the secret is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.send.conftest import Post, Receiver, endpoint

BASIC = {"username": "relay", "password": "s3cret"}


@pytest.mark.parametrize(
    ("settings", "sent"),
    [
        pytest.param({"bearer_token": "abc.def"}, "Bearer abc.def", id="bearer"),
        pytest.param({"basic_auth": BASIC}, "Basic cmVsYXk6czNjcmV0", id="basic"),
        pytest.param({"basic_auth": {**BASIC, "password": "pä:ss"}}, "Basic cmVsYXk6cMOkOnNz", id="basic, UTF-8"),
        pytest.param({"headers": {"Authorization": "Token x"}}, "Token x", id="a scheme of its own"),
    ],
)
async def test_it_is_sent(receiver: Receiver, post: Post, settings: dict[str, Any], sent: str) -> None:
    await post(receiver.url, **settings)
    assert receiver.requests[0].headers.getall("Authorization") == [sent]


@pytest.mark.parametrize(
    ("settings", "header", "sent"),
    [
        pytest.param({"bearer_token_file": "{}"}, "Authorization", "Bearer abc", id="bearer"),
        pytest.param({"basic_auth": {"username": "u", "password_file": "{}"}}, "Authorization", "Basic dTphYmM=", id="basic"),
        pytest.param({"header_files": {"Authorization": "{}"}}, "Authorization", "abc", id="a header"),
        pytest.param({"header_files": {"X-Api-Key": "{}"}}, "X-Api-Key", "abc", id="another header"),
        pytest.param({"secret_token_file": "{}"}, "X-RocketChat-Livechat-Token", "abc", id="token"),
    ],
)
@pytest.mark.parametrize("folder", ["/", "${CREDENTIALS_DIRECTORY}/"], ids=["path", "credential of systemd"])
async def test_it_can_come_from_a_file(
    receiver: Receiver, post: Post, secret_file: Path, folder: str, *, settings: dict[str, Any], header: str, sent: str
) -> None:
    path = f"{folder}{secret_file.name}" if "$" in folder else str(secret_file)
    await post(receiver.url, **_with_path(settings, path))
    assert receiver.requests[0].headers.getall(header) == [sent]


@pytest.fixture
def secret_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the directory that systemd gives to a service."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    file = tmp_path / "secret"
    file.write_text("abc\n")
    return file


def _with_path(settings: Any, path: str) -> Any:
    if isinstance(settings, dict):
        return {key: _with_path(value, path) for key, value in settings.items()}
    return settings.replace("{}", path)


@pytest.mark.parametrize(
    ("user", "sent"),
    [
        ("user:p%40ss@", "Basic dXNlcjpwQHNz"),
        ("user@", "Basic dXNlcjo="),
        (":pass@", "Basic OnBhc3M="),
        ("z:%C3%A9@", "Basic ejrDqQ=="),
    ],
)
async def test_user_and_password_of_a_url_are_a_header_and_not_in_the_address(
    receiver: Receiver, post: Post, user: str, sent: str
) -> None:
    url = f"{receiver.url}/h?a=b@c".replace("http://", f"http://{user}")
    await post(url)
    assert receiver.requests[0].headers.getall("Authorization") == [sent]
    assert endpoint(url).address == f"{receiver.url}/h?a=b@c"
