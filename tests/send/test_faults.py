"""A failing endpoint is an outcome, bounded in time and memory, and never an exception."""

from __future__ import annotations

import asyncio
import gzip
import shutil
import socket
import ssl
import subprocess
import time
import tracemalloc
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from daemon.clock import SystemClock
from daemon.model import Answered, TimedOut, Unreachable
from daemon.send.client import Sender
from tests.send import servers
from tests.send.conftest import BODY, DELIVERY, Post, endpoint
from tests.send.servers import answering, raw_server

SECRETS = ("hunter2", "s3cret", "Bearer b")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class TestTime:
    @pytest.mark.parametrize(
        "behave",
        [
            pytest.param(servers.never_answer, id="no answer"),
        ],
    )
    async def test_the_time_out_covers_the_whole_request(self, post: Post, behave: servers.Behaviour) -> None:
        async with raw_server(behave) as server:
            started = time.monotonic()
            outcome = await post(server.url(), timeout="200ms")
        assert isinstance(outcome, TimedOut)
        assert 0.15 < outcome.duration_s < 1.5
        assert time.monotonic() - started < 2

    async def test_the_status_is_the_answer_whatever_becomes_of_its_body(self, post: Post) -> None:
        """A receiver that said 200 has taken the event; its body is read until the time is over."""
        async with raw_server(servers.drip) as server:
            started = time.monotonic()
            outcome = await post(server.url(), timeout="200ms")
        assert isinstance(outcome, Answered)
        assert outcome.status == 200
        assert time.monotonic() - started < 2

    @pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
    async def test_it_covers_a_request_body_that_nobody_reads(self, post: Post) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:  # the system accepts, and nobody reads
            outcome = await post(f"http://127.0.0.1:{listener.getsockname()[1]}/", content=b"x" * 20_000_000, timeout="200ms")
        assert isinstance(outcome, TimedOut)

    async def test_waiting_for_a_free_connection_counts(self) -> None:
        async with (
            raw_server(servers.never_answer) as server,
            Sender("crm", endpoint(server.url(), timeout="200ms", concurrency=1), clock=SystemClock()) as sender,
        ):
            outcomes = await asyncio.gather(*(sender.post(DELIVERY, BODY) for _ in range(3)))
        assert [type(outcome) for outcome in outcomes] == [TimedOut] * 3

    async def test_a_cancelled_request_is_given_up(self, post: Post) -> None:
        async with raw_server(servers.never_answer) as server:
            task = asyncio.ensure_future(post(server.url()))
            async with asyncio.timeout(3):
                while not server.requests:  # noqa: ASYNC110 - the server has no event for it
                    await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task


class TestConnection:
    async def test_refused(self, post: Post) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        outcome = await post(f"http://127.0.0.1:{port}/hook")
        assert isinstance(outcome, Unreachable)
        assert "Cannot connect" in outcome.error

    async def test_a_host_that_does_not_exist(self, post: Post) -> None:
        assert isinstance(await post("http://nowhere.invalid/"), Unreachable)

    @pytest.mark.parametrize(
        "start",
        [
            pytest.param(b"", id="before the answer"),
            pytest.param(b"HTTP/1.1 200 O", id="in the status line"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Le", id="in the headers"),
        ],
    )
    async def test_reset(self, post: Post, start: bytes) -> None:
        async with raw_server(servers.reset_after(start)) as server:
            assert isinstance(await post(server.url()), Unreachable)

    @pytest.mark.parametrize(
        "start",
        [
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", id="in the body"),
            pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab", id="in a chunk"),
        ],
    )
    async def test_reset_after_the_status(self, post: Post, start: bytes) -> None:
        async with raw_server(servers.reset_after(start)) as server:
            outcome = await post(server.url())
        assert isinstance(outcome, Answered)
        assert outcome.status == 200

    @pytest.mark.parametrize(
        "answer",
        [
            pytest.param(b"", id="nothing"),
            pytest.param(b"garbage\r\n\r\n", id="text"),
            pytest.param(b"\x16\x03\x01\x02\x00" * 20, id="TLS"),
            pytest.param(b"SSH-2.0-OpenSSH_9.6\r\n", id="SSH"),
            pytest.param(b"HTTP/1.1 banana OK\r\n\r\n", id="no status"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: many\r\n\r\n", id="no length"),
            pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", id="negative length"),
            pytest.param(b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", id="endless header"),
            pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", id="no chunk size"),
        ],
    )
    async def test_not_http(self, post: Post, answer: bytes) -> None:
        async with raw_server(answering(answer)) as server:
            outcome = await post(server.url())
        assert isinstance(outcome, Unreachable)
        assert 0 < len(outcome.error) <= 300

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        answer=st.one_of(
            st.binary(max_size=200),
            st.builds(lambda tail: b"HTTP/1.1 200 OK\r\n" + tail, st.binary(max_size=200)),
            st.builds(
                lambda at, noise: OK[:at] + noise + OK[at + 1 :], st.integers(0, len(OK)), st.binary(min_size=1, max_size=4)
            ),
        )
    )
    async def test_whatever_comes_back_it_is_an_outcome(self, post: Post, answer: bytes) -> None:
        async with raw_server(answering(answer)) as server:
            outcome = await post(server.url(), timeout="2s")
        assert isinstance(outcome, Answered | Unreachable)

    async def test_a_connection_that_the_server_closed_meanwhile_is_not_used_again(self) -> None:
        async with (
            raw_server(answering(OK)) as server,
            Sender("crm", endpoint(server.url()), clock=SystemClock()) as sender,
        ):
            for expected in (1, 2, 3):
                outcome = await sender.post(DELIVERY, BODY)
                assert isinstance(outcome, Answered)
                assert server.connections == expected
                await asyncio.sleep(0.02)  # the end of the connection arrives


class TestAnswer:
    async def test_an_endless_answer_is_read_at_its_beginning_only(self, post: Post) -> None:
        async with raw_server(servers.endless) as server:
            tracemalloc.start()
            try:
                outcome = await post(server.url())
                _, peak = tracemalloc.get_traced_memory()
            finally:
                tracemalloc.stop()
        assert isinstance(outcome, Answered)
        assert (outcome.status, outcome.answer) == (200, b"x" * 65536)
        assert outcome.duration_s < 2
        assert peak < 8_000_000

    async def test_after_a_long_answer_the_next_request_goes_out(self) -> None:
        async with (
            raw_server(servers.endless) as server,
            Sender("crm", endpoint(server.url(), concurrency=1), clock=SystemClock()) as sender,
        ):
            for _ in range(3):
                assert isinstance(await sender.post(DELIVERY, BODY), Answered)
            assert server.connections == 3, "a connection with more to say is not drained"

    async def test_a_packed_bomb_is_not_unpacked(self, post: Post) -> None:
        bomb = gzip.compress(b"\0" * 30_000_000)
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
        async with raw_server(answering(head, bomb)) as server:
            outcome = await post(server.url())
        assert isinstance(outcome, Answered)
        assert outcome.answer == bomb[:65536]

    @pytest.mark.parametrize("encoding", [b"gzip", b"deflate", b"br", b"zstd", b"nonsense"])
    async def test_a_wrong_encoding_does_not_matter(self, post: Post, encoding: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\nContent-Encoding: " + encoding + b"\r\nContent-Length: 3\r\n\r\nabc"
        async with raw_server(answering(head)) as server:
            outcome = await post(server.url())
        assert isinstance(outcome, Answered)
        assert (outcome.status, outcome.answer) == (200, b"abc")

    async def test_headers_in_any_letters(self, post: Post) -> None:
        head = b"HTTP/1.1 200 \xc3\x96K\r\nX-Name: \xe9\xff\xc3\xa9\r\nSet-Cookie: \xff=\xff\r\nContent-Length: 2\r\n\r\nok"
        async with raw_server(answering(head)) as server:
            outcome = await post(server.url())
        assert isinstance(outcome, Answered)
        assert outcome.status == 200

    @pytest.mark.parametrize(
        ("answer", "status"),
        [
            pytest.param(b"HTTP/1.1 204 No Content\r\n\r\n", 204, id="204 without a body"),
            pytest.param(b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, id="HTTP/1.0 until the end"),
            pytest.param(b"HTTP/1.1 100 Continue\r\n\r\n" + OK, 200, id="100 first"),
            pytest.param(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK, 200, id="103 first"),
            pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", 101, id="101"),
            pytest.param(b"HTTP/1.1 599 Odd\r\nContent-Length: 0\r\n\r\n", 599, id="unknown status"),
        ],
    )
    async def test_odd_but_http(self, post: Post, answer: bytes, status: int) -> None:
        async with raw_server(answering(answer)) as server:
            outcome = await post(server.url())
        assert isinstance(outcome, Answered)
        assert outcome.status == status


class TestSecrets:
    @pytest.mark.parametrize(
        "behave",
        [
            pytest.param(answering(b"garbage\r\n\r\n"), id="garbage"),
            pytest.param(answering(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"), id="bad chunk"),
            pytest.param(answering(b""), id="nothing"),
            pytest.param(servers.reset_after(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n"), id="reset"),
            pytest.param(servers.never_answer, id="time-out"),
        ],
    )
    async def test_they_are_in_no_outcome(self, post: Post, behave: servers.Behaviour) -> None:
        async with raw_server(behave) as server:
            url = server.url("/hook?key=hunter2").replace("http://", "http://user:hunter2@")
            outcome = await post(url, secret_token="s3cret", headers={"X-Key": "Bearer b"}, timeout="200ms")
        assert server.requests
        assert b"hunter2" in server.requests[0]
        assert not any(secret in str(outcome) for secret in SECRETS)

    async def test_nor_when_nobody_listens(self, post: Post) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        outcome = await post(f"http://user:hunter2@127.0.0.1:{port}/hook?key=hunter2", secret_token="s3cret")
        assert isinstance(outcome, Unreachable)
        assert not any(secret in str(outcome) for secret in SECRETS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def certificate(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ssl.SSLContext]:
    """A server's context with a certificate that it signed itself."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("the command openssl is needed to make a certificate")
    folder = tmp_path_factory.mktemp("tls")
    key, cert = folder / "key.pem", folder / "cert.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", *subject]
    await asyncio.to_thread(
        subprocess.run, [*command, "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True, timeout=20
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    yield context


class TestTls:
    async def test_a_certificate_that_nobody_vouches_for_is_refused(self, post: Post, certificate: ssl.SSLContext) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's half of the failed handshake
        async with raw_server(answering(OK), certificate) as server:
            outcome = await post(server.url("/hook?key=hunter2"))
            assert isinstance(outcome, Unreachable)
            assert "certificate verify failed" in outcome.error
            assert not any(secret in str(outcome) for secret in SECRETS)
            assert server.requests == []

    async def test_plain_http_where_tls_is_expected(self, post: Post) -> None:
        async with raw_server(answering(b"HTTP/1.1 400 Bad Request\r\n\r\n"), reads=False) as server:
            outcome = await post(server.url().replace("http://", "https://"))
        assert isinstance(outcome, Unreachable)
