"""test-endpoint: the request of the relay, what came back, and what helps."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from standardwebhooks.webhooks import Webhook

from tests.commands.conftest import Write, invoke

TOKEN, PASSWORD, API_KEY = "t0ken-s3cret", "pass-s3cret", "key-s3cret"
WHSEC = "whsec_" + base64.b64encode(b"signing-s3cret-of-some-length").decode()


@dataclass
class Answering:
    """A receiver in a thread of its own: the command has a loop of its own."""

    url: str = ""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b"taken"
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)


@pytest.fixture
def receiver() -> Iterator[Answering]:
    state = Answering()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"]))
            state.requests.append((self.path, {name.lower(): value for name, value in self.headers.items()}, content))
            self.send_response(state.status)
            for name, value in {"Content-Length": str(len(state.body)), **state.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(state.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the library's name
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        state.url = f"http://127.0.0.1:{server.server_address[1]}/hook"
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield state
        server.shutdown()
        thread.join()


def secretly(url: str) -> dict[str, Any]:
    """An endpoint with a secret of every kind."""
    return {
        "url": f"{url}?key={API_KEY}",
        "secret_token": TOKEN,
        "signing_secrets": [WHSEC],
        "basic_auth": {"username": "relay", "password": PASSWORD},
        "headers": {"X-Api-Key": API_KEY},
    }


class TestSuccess:
    def test_the_request_is_that_of_the_relay_and_shown_without_secrets(self, receiver: Answering, write: Write) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(**secretly(receiver.url)))
        assert result.exit_code == 0, result.output
        ((path, headers, body),) = receiver.requests
        assert path == f"/hook?key={API_KEY}"
        assert headers["x-rocketchat-livechat-token"] == TOKEN
        assert headers["x-api-key"] == API_KEY
        assert headers["authorization"].startswith("Basic ")
        assert Webhook(WHSEC).verify(body, headers)["_id"] == "fasd6f5a4sd6f8a4sdf"
        assert f"POST {receiver.url}\n" in result.stdout
        assert "  X-RocketChat-Livechat-Token: (hidden)\n" in result.stdout
        assert f"  {len(body)} bytes: a sample of LivechatSession\n" in result.stdout
        assert "\n200 OK after 0." in result.stdout
        assert "\n  taken\n" in result.stdout
        assert result.stdout.endswith("\na success (success: 200)\n")
        for secret in (TOKEN, PASSWORD, API_KEY, WHSEC, headers["authorization"].removeprefix("Basic ")):
            assert secret not in result.output

    def test_of_another_type(self, receiver: Answering, write: Write) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url), "--type", "LivechatOfflineMessage")
        assert result.exit_code == 0
        assert json.loads(receiver.requests[0][2])["type"] == "LivechatOfflineMessage"

    def test_each_test_is_an_event_of_its_own(self, receiver: Answering, write: Write) -> None:
        config = write(url=receiver.url)
        for _ in range(2):
            assert invoke("test-endpoint", "crm", "-c", config).exit_code == 0
        first, second = (headers["x-livechat-relay-event-id"] for _, headers, _ in receiver.requests)
        assert first != second

    def test_for_machines(self, receiver: Answering, write: Write) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(**secretly(receiver.url)), "--json")
        told = json.loads(result.stdout)
        assert (told["endpoint"], told["success"], told["hint"], told["outcome"]) == ("crm", True, None, "answered 200")
        assert told["answer"] == {"status": 200, "headers": told["answer"]["headers"], "body": "taken"}
        assert told["request"]["url"] == receiver.url
        for secret in (TOKEN, PASSWORD, API_KEY, WHSEC):
            assert secret not in result.output

    def test_what_counts_is_the_rule_of_the_endpoint(self, receiver: Answering, write: Write) -> None:
        receiver.status = 202
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url))
        assert result.exit_code == 1
        assert "hint: the receiver took it, but only 200 counts: let it answer 200, or set `success: 2xx`" in result.stdout
        assert invoke("test-endpoint", "crm", "-c", write(url=receiver.url, success="2xx")).exit_code == 0

    def test_other_endpoints_and_their_files_do_not_matter(self, receiver: Answering, write: Write) -> None:
        sections = {"mongodb": {"uri_file": "/nowhere"}}
        assert invoke("test-endpoint", "crm", "-c", write(url=receiver.url, sections=sections)).exit_code == 0


class TestFailure:
    @pytest.mark.parametrize(
        ("status", "hint"),
        [
            (401, "compare `secret_token`"),
            (403, "compare `secret_token`"),
            (404, "the path of `url`"),
            (405, "takes no POST"),
            (413, "raise its limit"),
            (502, "a proxy answered"),
            (500, "log"),
            (418, "log"),
            (599, "log"),
        ],
    )
    def test_answers(self, receiver: Answering, write: Write, status: int, hint: str) -> None:
        receiver.status = status
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url))
        assert result.exit_code == 1
        assert f"\n{status} " in result.stdout
        last = result.stdout.splitlines()[-1]
        assert last.startswith("hint: ")
        assert hint in last

    def test_a_redirect_names_its_target_without_secrets(self, receiver: Answering, write: Write) -> None:
        receiver.status, receiver.headers = 301, {"Location": f"/hook/?key={API_KEY}"}
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url))
        assert f"hint: redirects are not followed: set `url` to {receiver.url}/\n" in result.stdout
        assert API_KEY not in result.output
        assert len(receiver.requests) == 1

    def test_nothing_listens(self, write: Write) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        result = invoke("test-endpoint", "crm", "-c", write(**secretly(f"http://127.0.0.1:{port}/hook")))
        assert result.exit_code == 1
        assert "bytes: a sample of LivechatSession, not sent\n" in result.stdout
        assert "hint: nothing listens there" in result.stdout
        for secret in (TOKEN, PASSWORD, API_KEY, WHSEC):
            assert secret not in result.output

    @pytest.mark.parametrize(
        ("keys", "hint"),
        [
            pytest.param({"url": "http://nowhere.invalid/"}, "cannot be resolved", id="name"),
            pytest.param({"url": "http://169.254.169.254/"}, "`send.allow`", id="guard"),
        ],
    )
    def test_no_connection(self, write: Write, keys: dict[str, Any], hint: str) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(**keys))
        assert result.exit_code == 1
        assert hint in result.stdout.splitlines()[-1]

    def test_networks_of_the_configuration(self, receiver: Answering, write: Write) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url, sections={"send": {"deny": ["127.0.0.0/8"]}}))
        assert result.exit_code == 1
        assert "127.0.0.0/8 (send.deny)" in result.stdout
        assert receiver.requests == []

    def test_no_answer_in_time(self, write: Write) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            url = f"http://127.0.0.1:{silent.getsockname()[1]}/"
            result = invoke("test-endpoint", "crm", "-c", write(url=url, timeout="200ms"))
        assert result.exit_code == 1
        assert "hint: nothing came within `timeout`" in result.stdout

    def test_tls_where_there_is_none(self, receiver: Answering, write: Write) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url.replace("http:", "https:"), timeout="5s"))
        assert result.exit_code == 1
        assert "hint: that port does not speak TLS" in result.stdout

    def test_what_the_receiver_says_gives_the_terminal_no_commands(self, receiver: Answering, write: Write) -> None:
        receiver.status, receiver.body = 500, b"\x1b]0;title\x07\xc2\x9b31m" + b"x" * 5000
        result = invoke("test-endpoint", "crm", "-c", write(url=receiver.url))
        assert not any(control in result.stdout for control in "\x1b\x07\x9b")
        assert len(result.stdout) < 2500


class TestUsage:
    def test_an_unknown_endpoint(self, write: Write) -> None:
        result = invoke("test-endpoint", "crn", "-c", write())
        assert result.exit_code == 2
        assert "no endpoint 'crn'; there are: crm" in result.stderr

    def test_a_secret_that_cannot_be_read(self, write: Write) -> None:
        result = invoke("test-endpoint", "crm", "-c", write(secret_token_file="/nowhere"))
        assert result.exit_code == 2
        assert "endpoints.crm.secret_token_file: cannot read /nowhere" in result.stderr
        assert "Traceback" not in result.output
