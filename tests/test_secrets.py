"""What counts as a secret of a configuration."""

from __future__ import annotations

from pathlib import Path

from daemon.config.root import Config
from daemon.config.secrets import secrets_of


def secrets(**sections: object) -> set[str]:
    return {
        secret for secret in secrets_of(Config.model_validate({"endpoints": {"crm": {"url": "https://x"}}} | sections)) if secret
    }


def endpoint(**keys: object) -> dict[str, object]:
    return {"crm": {"url": "https://x", **keys}}


def test_none() -> None:
    assert secrets() == set()


def test_of_mongodb_the_password_as_it_is_written_and_as_it_is_meant() -> None:
    found = secrets(mongodb={"uri": "mongodb://reader:p%40ss%2Fword@a:1,b:2/?replicaSet=rs0"})
    assert found == {"reader:p%40ss%2Fword", "reader:p@ss/word", "p%40ss%2Fword", "p@ss/word"}


def test_of_an_endpoint_token_headers_user_password_and_query() -> None:
    found = secrets(
        endpoints=endpoint(
            url="https://user:pass%20word@crm.example.org/hook?key=a%2Bb&as=1",
            secret_token="the token",
            headers={"X-Auth": "Bearer abcdef", "X-Key": "the key"},
        )
    )
    assert "user" not in found, "a name, which may be an ordinary word"
    assert found >= {
        "user:pass%20word",
        "pass%20word",
        "pass word",
        "a+b",
        "a%2Bb",
        "the token",
        "Bearer abcdef",
        "abcdef",
        "the key",
    }
    assert not {secret for secret in found if "crm.example.org" in secret or "hook" in secret}


def test_a_user_without_a_password_is_a_key() -> None:
    assert secrets(endpoints=endpoint(url="https://sk_live_1@crm.example.org/a@b")) == {"sk_live_1"}


def test_of_files_and_the_intake(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from a file\n")
    (tmp_path / "uri").write_text("mongodb://reader:from-another@host/\n")
    found = secrets(
        mongodb={"uri_file": tmp_path / "uri"},
        endpoints=endpoint(secret_token_file=tmp_path / "token"),
        intake={"enabled": True, "secret_token": "of the intake"},
    )
    assert found >= {"from a file", "from-another", "of the intake"}


def test_a_file_that_cannot_be_read_is_somebody_elses_error(tmp_path: Path) -> None:
    assert secrets(endpoints=endpoint(secret_token_file=tmp_path / "missing")) == set()
