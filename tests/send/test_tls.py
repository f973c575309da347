"""TLS to endpoints: own authorities, certificates of the relay, and no way around verification."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import trustme
from aiohttp import web

from daemon.model import Answered, Unreachable
from tests.send.conftest import Post


@dataclass
class Files:
    """What an administrator is given."""

    folder: Path
    authority: trustme.CA

    @property
    def ca(self) -> str:
        path = self.folder / "ca.pem"
        self.authority.cert_pem.write_to_path(str(path))
        return str(path)

    def certificate(self, name: str) -> tuple[str, str]:
        """A certificate and its key, as two files."""
        issued = self.authority.issue_cert(name)
        certificate, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        issued.private_key_pem.write_to_path(str(key))
        return str(certificate), str(key)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(tmp_path: Path, authority: trustme.CA) -> Files:
    return Files(tmp_path, authority)


@dataclass
class TlsServer:
    url: str = ""
    requests: int = 0
    client: object = None

    async def handle(self, request: web.Request) -> web.Response:
        self.requests += 1
        assert request.transport is not None
        self.client = request.transport.get_extra_info("peercert")
        return web.Response()


@asynccontextmanager
async def serving(
    authority: trustme.CA, *, host: str = "127.0.0.1", client: trustme.CA | None = None, newest: ssl.TLSVersion | None = None
) -> AsyncIterator[TlsServer]:
    """A server with a certificate for `host`; with `client` it wants a certificate of that authority too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    if client is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        client.configure_trust(context)
    if newest is not None:
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.MINIMUM_SUPPORTED
        context.maximum_version = newest
    state = TlsServer()
    app = web.Application()
    app.router.add_post("/hook", state.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    asyncio.get_running_loop().set_exception_handler(lambda *_: None)  # the server's half of a failed handshake
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    state.url = f"https://127.0.0.1:{runner.addresses[0][1]}/hook"
    yield state
    await runner.cleanup()


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
class TestReceiver:
    async def test_an_authority_of_our_own(self, post: Post, files: Files) -> None:
        async with serving(files.authority) as server:
            outcome = await post(server.url, tls={"ca_file": files.ca})
        assert isinstance(outcome, Answered)
        assert server.requests == 1

    async def test_an_unknown_authority_is_refused_with_what_helps(self, post: Post, files: Files) -> None:
        async with serving(files.authority) as server:
            outcome = await post(server.url)
        assert isinstance(outcome, Unreachable)
        assert "certificate verify failed: unable to get local issuer certificate" in outcome.error
        assert "tls.ca_file" in outcome.error
        assert server.requests == 0

    async def test_another_authority_of_our_own_does_not_vouch(self, post: Post, files: Files) -> None:
        async with serving(trustme.CA()) as server:
            outcome = await post(server.url, tls={"ca_file": files.ca})
        assert isinstance(outcome, Unreachable)
        assert server.requests == 0

    async def test_a_certificate_for_another_name(self, post: Post, files: Files) -> None:
        async with serving(files.authority, host="crm.example.org") as server:
            outcome = await post(server.url, tls={"ca_file": files.ca})
        assert isinstance(outcome, Unreachable)
        assert "IP address mismatch" in outcome.error
        assert "ca_file" not in outcome.error, "that would not help"
        assert server.requests == 0

    @pytest.mark.parametrize("own", [False, True], ids=["system", "ca_file"])
    async def test_older_than_tls_1_2(self, post: Post, files: Files, own: bool) -> None:
        async with serving(files.authority, newest=ssl.TLSVersion.TLSv1_1) as server:
            outcome = await post(server.url, tls={"ca_file": files.ca} if own else {})
        assert isinstance(outcome, Unreachable)
        assert "certificate" not in outcome.error
        assert server.requests == 0

    async def test_tls_1_2(self, post: Post, files: Files) -> None:
        async with serving(files.authority, newest=ssl.TLSVersion.TLSv1_2) as server:
            assert isinstance(await post(server.url, tls={"ca_file": files.ca}), Answered)


class TestRelay:
    async def test_a_certificate_is_asked_for_and_given(self, post: Post, files: Files) -> None:
        certificate, key = files.certificate("relay.example.org")
        tls = {"ca_file": files.ca, "certificate_file": certificate, "key_file": key}
        async with serving(files.authority, client=files.authority) as server:
            outcome = await post(server.url, tls=tls)
        assert isinstance(outcome, Answered)
        assert "relay.example.org" in str(server.client)

    async def test_certificate_and_key_in_one_file(self, post: Post, files: Files) -> None:
        certificate, key = map(Path, files.certificate("relay.example.org"))
        both = files.folder / "both.pem"
        both.write_bytes(key.read_bytes() + certificate.read_bytes())
        async with serving(files.authority, client=files.authority) as server:
            outcome = await post(server.url, tls={"ca_file": files.ca, "certificate_file": str(both)})
        assert isinstance(outcome, Answered)

    async def test_asked_for_and_not_given(self, post: Post, files: Files) -> None:
        async with serving(files.authority, client=files.authority) as server:
            outcome = await post(server.url, tls={"ca_file": files.ca})
        assert isinstance(outcome, Unreachable)
        assert server.requests == 0

    async def test_of_an_authority_that_the_receiver_does_not_know(self, post: Post, files: Files) -> None:
        certificate, key = files.certificate("relay.example.org")
        tls = {"ca_file": files.ca, "certificate_file": certificate, "key_file": key}
        async with serving(files.authority, client=trustme.CA()) as server:
            outcome = await post(server.url, tls=tls)
        assert isinstance(outcome, Unreachable)
        assert server.requests == 0
