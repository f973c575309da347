"""The keys of a receiver: what is accepted, and faults that help without quoting a secret."""

from __future__ import annotations

import base64
import os
import subprocess
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any, ClassVar

import pytest
import trustme
from ruamel.yaml import YAML

from daemon.config.file import load
from daemon.config.root import Config
from daemon.config.types import signing_key
from daemon.errors import ConfigurationError

SECRET = "hunter2hunter2hunter2hunter2"
WHSEC = "whsec_" + base64.b64encode(SECRET.encode()).decode()
BASIC = {"username": "relay", "password": SECRET}
Read = Callable[..., Config]
Faults = Callable[..., str]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LIVECHAT_RELAY_") or name == "CREDENTIALS_DIRECTORY":
            monkeypatch.delenv(name)


@pytest.fixture
def read(tmp_path: Path) -> Read:
    def load_it(*, sections: dict[str, Any] | None = None, files: bool = True, **keys: Any) -> Config:
        path = tmp_path / "config.yaml"
        with path.open("w") as file:
            YAML().dump({"endpoints": {"crm": {"url": "https://crm.example.org/hook", **keys}}, **(sections or {})}, file)
        return load(path, read_secrets=files)

    return load_it


@pytest.fixture
def faults(read: Read) -> Faults:
    """What is said; never a secret."""

    def said(**keys: Any) -> str:
        with pytest.raises(ConfigurationError) as error:
            read(**keys)
        text = f"{error.value}\n{error.value.hint}"
        for secret in (SECRET, base64.b64encode(SECRET.encode()).decode(), base64.b64encode(SECRET.encode()).decode()[:12]):
            assert secret not in text
        return text

    return said


class TestSigningSecrets:
    @pytest.mark.parametrize("length", [24, 25, 26, 32, 64])
    @pytest.mark.parametrize("strip", ["", "="], ids=["padded", "not padded"])
    def test_keys(self, length: int, strip: str) -> None:
        key = bytes(range(length))
        assert signing_key("whsec_" + base64.b64encode(key).decode().rstrip(strip)) == key

    @pytest.mark.parametrize(
        ("secret", "said"),
        [
            pytest.param(SECRET, "begins with whsec_", id="no prefix"),
            pytest.param("whsk_" + WHSEC[6:], "begins with whsec_", id="another prefix"),
            pytest.param("WHSEC_" + WHSEC[6:], "begins with whsec_", id="capitals"),
            pytest.param(WHSEC[:-4] + "!!!!", "is base64", id="no base64"),
            pytest.param(WHSEC.replace("_", "_ "), "is base64", id="a space"),
            pytest.param("whsec_" + WHSEC[6:] + "ä", "is base64", id="letters beyond ASCII"),
            pytest.param("whsec_", "24 to 64 bytes, this one 0", id="empty"),
            pytest.param("whsec_" + base64.b64encode(b"x" * 23).decode(), "24 to 64 bytes, this one 23", id="too short"),
            pytest.param("whsec_" + base64.b64encode(b"x" * 65).decode(), "24 to 64 bytes, this one 65", id="too long"),
        ],
    )
    def test_faults(self, faults: Faults, tmp_path: Path, secret: str, said: str) -> None:
        assert said in faults(signing_secrets=[WHSEC, secret])
        (tmp_path / "secrets").write_text(f"{WHSEC}\n{secret}\n")
        text = faults(signing_secrets_file=f"{tmp_path}/secrets")
        assert f"endpoints.crm.signing_secrets_file: line 2 of {tmp_path}/secrets: " in text
        assert said in text

    def test_not_printed(self, read: Read) -> None:
        config = read(signing_secrets=[WHSEC], bearer_token=SECRET)
        assert config.endpoints["crm"].signing_keys("crm") == (SECRET.encode(),)
        for text in (repr(config), config.model_dump_json(), str(config.model_dump())):
            assert SECRET not in text
            assert WHSEC not in text

    def test_from_the_environment(self, read: Read, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVECHAT_RELAY_ENDPOINTS__CRM__SIGNING_SECRETS", f'["{WHSEC}"]')
        monkeypatch.setenv("LIVECHAT_RELAY_ENDPOINTS__CRM__BASIC_AUTH__USERNAME", "relay")
        monkeypatch.setenv("LIVECHAT_RELAY_ENDPOINTS__CRM__BASIC_AUTH__PASSWORD", "12345")
        crm = read().endpoints["crm"]
        assert crm.signing_keys("crm") == (SECRET.encode(),)
        assert crm.request_headers("crm") == {"Authorization": "Basic cmVsYXk6MTIzNDU="}


class TestAuthorization:
    WAYS: ClassVar[dict[str, dict[str, Any]]] = {
        "user and password in the url": {"url": f"https://relay:{SECRET}@crm.example.org/"},
        "bearer_token": {"bearer_token": SECRET},
        "basic_auth": {"basic_auth": BASIC},
        "Authorization in headers": {"headers": {"authorization": SECRET}},
        "Authorization in header_files": {"header_files": {"AUTHORIZATION": "/x"}},
    }

    @pytest.mark.parametrize("first", WAYS)
    @pytest.mark.parametrize("second", WAYS)
    def test_at_most_one(self, read: Read, faults: Faults, first: str, second: str) -> None:
        keys = {**self.WAYS[first], **self.WAYS[second]}
        if first == second:
            assert read(files=False, **keys).endpoints["crm"].authorization == first
        else:
            said = faults(**keys)
            assert "endpoints.crm" in said
            assert (first in said and second in said) or "the header authorization is given twice" in said

    @pytest.mark.parametrize(
        ("keys", "said"),
        [
            pytest.param(
                {"bearer_token": SECRET, "bearer_token_file": "/x"}, "bearer_token or bearer_token_file, not both", id="bearer"
            ),
            pytest.param({"signing_secrets": [WHSEC], "signing_secrets_file": "/x"}, "not both", id="signing"),
            pytest.param({"basic_auth": {"username": "x"}}, "give password or password_file", id="no password"),
            pytest.param({"basic_auth": {**BASIC, "password_file": "/x"}}, "one of them", id="two passwords"),
            pytest.param({"basic_auth": {**BASIC, "username": "a:b"}}, "a username with a colon", id="colon"),
            pytest.param({"basic_auth": {**BASIC, "user": "a"}}, "did you mean `username`?", id="misspelled"),
            pytest.param({"tls": {"cafile": "a"}}, "did you mean `ca_file`?", id="misspelled, tls"),
            pytest.param({"bearer_token": ""}, "endpoints.crm.bearer_token (line 4): ", id="empty"),
            pytest.param({"bearer_token": f"{SECRET}\n"}, "characters that a header cannot carry", id="line break"),
            pytest.param({"headers": {"X-A": "1"}, "header_files": {"x-a": "/x"}}, "the header x-a is given twice", id="twice"),
            pytest.param(
                {"headers": {"webhook-id": "1"}}, "'webhook-id' is not a header name that can be set", id="of signatures"
            ),
            pytest.param({"header_files": {"Host": "/x"}}, "'Host' is not a header name that can be set", id="own header"),
        ],
    )
    def test_faults(self, faults: Faults, keys: dict[str, Any], said: str) -> None:
        assert said in faults(**keys)


class TestFiles:
    FILES: ClassVar[dict[str, Any]] = {
        "secret_token_file": "{}/token",
        "signing_secrets_file": "{}/signing",
        "bearer_token_file": "{}/bearer",
        "header_files": {"X-A": "{}/a", "X-B": "{}/b"},
        "tls": {"ca_file": "{}/ca"},
    }

    @staticmethod
    def within(value: Any, folder: object) -> Any:
        if isinstance(value, dict):
            return {key: TestFiles.within(item, folder) for key, item in value.items()}
        return value.replace("{}", str(folder))

    def test_all_that_cannot_be_read_are_named(self, faults: Faults, tmp_path: Path) -> None:
        said = faults(**self.within(self.FILES, tmp_path))
        for key in (
            "secret_token_file",
            "signing_secrets_file",
            "bearer_token_file",
            "header_files.X-A",
            "header_files.X-B",
            "tls.ca_file",
        ):
            assert f"  endpoints.crm.{key}: cannot read {tmp_path}/" in said
        assert "6 faults" in said

    def test_commands_that_need_no_secret_do_not_read_them(self, read: Read, tmp_path: Path) -> None:
        keys = self.within(self.FILES, "${CREDENTIALS_DIRECTORY}")
        assert read(files=False, **keys).endpoints["crm"].secret_token_file == Path("${CREDENTIALS_DIRECTORY}/token")

    def test_credentials_of_systemd(self, read: Read, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "uri").write_text("mongodb://x/\n")
        (tmp_path / "token").write_text("t0ken\n")
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
        uri = {"mongodb": {"uri_file": "${CREDENTIALS_DIRECTORY}/uri"}}
        config = read(secret_token_file="${CREDENTIALS_DIRECTORY}/token", sections=uri)
        assert config.endpoints["crm"].token("crm") == "t0ken"
        assert config.mongodb.connection_string() == "mongodb://x/"

    def test_credentials_without_systemd(self, faults: Faults) -> None:
        said = faults(secret_token_file="${CREDENTIALS_DIRECTORY}/token", tls={"ca_file": "${CREDENTIALS_DIRECTORY}/ca"})
        for key in ("secret_token_file", "tls.ca_file"):
            assert f"endpoints.crm.{key}: ${{CREDENTIALS_DIRECTORY}}/" in said
        assert "LoadCredential=" in said

    def test_a_password_may_have_what_a_token_may_not(self, read: Read, tmp_path: Path) -> None:
        (tmp_path / "password").write_text("pä ss\n")
        crm = read(basic_auth={"username": "u", "password_file": f"{tmp_path}/password"}).endpoints["crm"]
        assert crm.request_headers("crm")["Authorization"] == "Basic " + base64.b64encode("u:pä ss".encode()).decode()

    def test_a_token_of_two_lines(self, faults: Faults, tmp_path: Path) -> None:
        (tmp_path / "bearer").write_text(f"{SECRET}\n{SECRET}\n")
        said = faults(bearer_token_file=f"{tmp_path}/bearer")
        assert "endpoints.crm.bearer_token_file" in said
        assert "on one line" in said


class TestTls:
    @pytest.fixture
    def files(self, tmp_path: Path) -> dict[str, str]:
        authority = trustme.CA()
        issued, another = authority.issue_cert("a.example.org"), authority.issue_cert("b.example.org")
        authority.cert_pem.write_to_path(f"{tmp_path}/ca")
        issued.cert_chain_pems[0].write_to_path(f"{tmp_path}/cert")
        issued.private_key_pem.write_to_path(f"{tmp_path}/key")
        another.private_key_pem.write_to_path(f"{tmp_path}/other_key")
        (tmp_path / "text").write_text(SECRET)
        (tmp_path / "folder").mkdir()
        command = [
            "openssl",
            "pkey",
            "-aes256",
            "-passout",
            "pass:x",
            "-in",
            f"{tmp_path}/key",
            "-out",
            f"{tmp_path}/encrypted_key",
        ]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        return {file.name: str(file) for file in tmp_path.iterdir()}

    def test_good_ones(self, read: Read, files: dict[str, str]) -> None:
        tls = {"ca_file": files["ca"], "certificate_file": files["cert"], "key_file": files["key"]}
        assert read(tls=tls).endpoints["crm"].tls.context("x").check_hostname

    @pytest.mark.parametrize(
        ("tls", "said"),
        [
            pytest.param({"ca_file": "text"}, "tls.ca_file: {text} holds no certificates", id="no authority"),
            pytest.param({"ca_file": "key"}, "tls.ca_file: {key} holds no certificates", id="a key for an authority"),
            pytest.param({"ca_file": "folder"}, "tls.ca_file: cannot read {folder}: ", id="a folder"),
            pytest.param({"key_file": "key"}, "key_file needs certificate_file", id="key alone"),
            pytest.param({"certificate_file": "cert"}, "no certificate with its key", id="certificate without key"),
            pytest.param({"certificate_file": "cert", "key_file": "other_key"}, "no certificate with its key", id="another key"),
            pytest.param({"certificate_file": "cert", "key_file": "encrypted_key"}, "is not encrypted", id="encrypted key"),
            pytest.param({"certificate_file": "cert", "key_file": "text"}, "no certificate with its key", id="no key"),
            pytest.param({"certificate_file": "text", "key_file": "key"}, "no certificate with its key", id="no certificate"),
        ],
    )
    def test_faults(self, faults: Faults, files: dict[str, str], tls: dict[str, str], said: str) -> None:
        text = faults(tls={key: files[name] for key, name in tls.items()})
        assert said.format(**files) in text

    def test_a_missing_key_is_named(self, faults: Faults, files: dict[str, str]) -> None:
        said = faults(tls={"certificate_file": files["cert"], "key_file": "/nowhere/key"})
        assert "endpoints.crm.tls.key_file: cannot read /nowhere/key: No such file or directory" in said

    def test_for_plain_http_it_is_a_mistake(self, faults: Faults, files: dict[str, str]) -> None:
        assert "tls is for https" in faults(url="http://crm.example.org/", tls={"ca_file": files["ca"]})


class TestSend:
    def test_networks(self, read: Read) -> None:
        send = read(sections={"send": {"allow": ["169.254.7.0/24", "192.0.2.7"], "deny": ["10.0.0.0/8", "fd00::/8"]}}).send
        assert send.allow == (ip_network("169.254.7.0/24"), ip_network("192.0.2.7/32"))
        assert send.deny == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))

    @pytest.mark.parametrize(
        ("network", "said"),
        [
            ("10.0.0.1/8", "write a network such as"),
            ("localhost", "write a network such as"),
            ("10.0.0.0/33", "write a network such as"),
            (7, "write a network such as"),
            ("::ffff:10.0.0.0/104", "write it as an IPv4 network"),
        ],
    )
    def test_faults(self, faults: Faults, network: object, said: str) -> None:
        text = faults(sections={"send": {"deny": [network]}})
        assert "send.deny.0" in text
        assert said in text
