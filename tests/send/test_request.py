"""What leaves: method, path, headers and body, as a real server receives them."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.clock import SystemClock
from daemon.model import Answered
from daemon.send.client import Sender
from tests.send.conftest import BODY, DELIVERY, Post, Receiver, endpoint


class TestHeaders:
    async def test_they_are_exactly_these(self, receiver: Receiver, post: Post) -> None:
        await post(f"{receiver.url}/hook", secret_token="s3cret", headers={"X-Tenant": "seven", "Authorization": "Bearer b"})
        (request,) = receiver.requests
        assert request.method == "POST"
        assert request.path_qs == "/hook"
        assert sorted(request.headers.items()) == [
            ("Accept", "*/*"),
            ("Accept-Encoding", "identity"),
            ("Authorization", "Bearer b"),
            ("Content-Length", str(len(BODY))),
            ("Content-Type", "application/json"),
            ("Host", receiver.url.removeprefix("http://")),
            ("User-Agent", f"livechat-relay/{version('rocketchat-livechat-relay')}"),
            ("X-Livechat-Relay-Attempt", "3"),
            ("X-Livechat-Relay-Event-Id", "Message:m1"),
            ("X-Livechat-Relay-Sequence", "42"),
            ("X-RocketChat-Livechat-Token", "s3cret"),
            ("X-Tenant", "seven"),
        ]

    async def test_no_token_no_header(self, receiver: Receiver, post: Post) -> None:
        await post(receiver.url)
        assert "X-RocketChat-Livechat-Token" not in receiver.requests[0].headers

    async def test_the_token_can_come_from_a_file(self, receiver: Receiver, post: Post, tmp_path: Path) -> None:
        file = tmp_path / "token"
        file.write_text("from-a-file\n")
        await post(receiver.url, secret_token_file=str(file))
        assert receiver.requests[0].headers["X-RocketChat-Livechat-Token"] == "from-a-file"

    async def test_user_and_password_of_the_url_become_basic_authentication(self, receiver: Receiver, post: Post) -> None:
        await post(receiver.url.replace("http://", "http://user:pass@"))
        assert receiver.requests[0].headers["Authorization"] == "Basic dXNlcjpwYXNz"

    @pytest.mark.parametrize("name", ["User-Agent", "user-agent"])
    async def test_the_user_agent_can_be_set(self, receiver: Receiver, post: Post, name: str) -> None:
        await post(receiver.url, headers={name: "ours/1"})
        assert receiver.requests[0].headers.getall("User-Agent") == ["ours/1"]

    @pytest.mark.parametrize(
        ("event_id", "sent"),
        [
            pytest.param(
                "LivechatSession:7Xb:1763885400123", "LivechatSession:7Xb:1763885400123", id="as Rocket.Chat makes them"
            ),
            pytest.param("Message:a-b_c.d~e", "Message:a-b_c.d~e", id="punctuation"),
            pytest.param("Message:a\r\nX-Evil: 1", "Message:a%0D%0AX-Evil:%201", id="a line break"),
            pytest.param("Message:\x00", "Message:%00", id="zero"),
            pytest.param("Message:Zoë", "Message:Zo%C3%AB", id="letters beyond ASCII"),
            pytest.param("Message: a ", "Message:%20a%20", id="spaces"),
            pytest.param("Message:a%20b", "Message:a%2520b", id="what looks escaped"),
        ],
    )
    async def test_an_id_that_a_header_cannot_carry_is_escaped(
        self, receiver: Receiver, post: Post, event_id: str, sent: str
    ) -> None:
        """The id of a message may come from a visitor's software; no two ids look alike when escaped."""
        await post(receiver.url, delivery=DELIVERY._replace(event_id=event_id))
        (request,) = receiver.requests
        assert request.headers.getall("X-Livechat-Relay-Event-Id") == [sent]
        assert "X-Evil" not in request.headers

    async def test_cookies_are_not_kept(self, receiver: Receiver) -> None:
        async with Sender("crm", endpoint(receiver.url), clock=SystemClock()) as sender:
            for _ in range(2):
                await sender.post(DELIVERY, BODY)
        assert all("Cookie" not in request.headers for request in receiver.requests)


class TestBody:
    @settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(max_size=3000))
    async def test_every_byte_arrives(self, receiver: Receiver, post: Post, content: bytes) -> None:
        await post(receiver.url, content=content)
        assert receiver.bodies[-1] == content

    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
    async def test_a_long_transcript_arrives(self, receiver: Receiver, post: Post) -> None:
        content = b"x" * 5_000_000
        await post(receiver.url, content=content)
        assert receiver.bodies == [content]


class TestAddress:
    @pytest.mark.parametrize(
        ("given_path", "received"),
        [
            pytest.param("", "/", id="no path"),
            pytest.param("/a/b/", "/a/b/", id="trailing slash"),
            pytest.param("/a%2Fb/c%20d", "/a%2Fb/c%20d", id="escapes in the path"),
            pytest.param("/h?token=a%2Bb&x=1", "/h?token=a%2Bb&x=1", id="escapes in the query"),
            pytest.param("/h?a=b#fragment", "/h?a=b", id="no fragment"),
        ],
    )
    async def test_path_and_query_are_those_of_the_configuration(
        self, receiver: Receiver, post: Post, given_path: str, received: str
    ) -> None:
        await post(receiver.url + given_path)
        assert receiver.requests[0].raw_path == received


class TestAnswers:
    @pytest.mark.parametrize("status", [200, 201, 202, 400, 401, 404, 429, 500, 503])
    async def test_a_status_is_a_fact(self, receiver: Receiver, post: Post, status: int) -> None:
        receiver.status = status
        outcome = await post(receiver.url)
        assert isinstance(outcome, Answered)
        assert (outcome.status, outcome.answer) == (status, b"got it")
        assert outcome.duration_s > 0

    @pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
    async def test_a_redirect_is_not_followed(self, receiver: Receiver, post: Post, status: int) -> None:
        receiver.status = status
        outcome = await post(f"{receiver.url}/hook")
        assert isinstance(outcome, Answered)
        assert outcome.status == status
        assert [request.path for request in receiver.requests] == ["/hook"], "the target is not asked"


class TestConnections:
    async def test_one_connection_carries_many_requests(self, receiver: Receiver) -> None:
        async with Sender("crm", endpoint(receiver.url), clock=SystemClock()) as sender:
            for _ in range(5):
                await sender.post(DELIVERY, BODY)
        assert len(receiver.requests) == 5
        assert len(set(receiver.peers)) == 1

    async def test_a_connection_per_request_in_flight_and_no_more_than_configured(self, receiver: Receiver) -> None:
        async with Sender("crm", endpoint(receiver.url, concurrency=3), clock=SystemClock()) as sender:
            await asyncio.gather(*(sender.post(DELIVERY, BODY) for _ in range(12)))
        assert len(receiver.requests) == 12
        assert len(set(receiver.peers)) <= 3

    async def test_it_is_used_as_a_context_manager(self, receiver: Receiver) -> None:
        with pytest.raises(RuntimeError):
            await Sender("crm", endpoint(receiver.url), clock=SystemClock()).post(DELIVERY, BODY)
