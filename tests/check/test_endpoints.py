"""Endpoints: a connection is opened and closed, and nothing is said over it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

import pytest
import trustme

from daemon.check import endpoints
from daemon.check.endpoints import check_endpoint
from daemon.check.findings import Finding, Status
from daemon.clock import SystemClock
from daemon.demo.child import free_port
from daemon.send.guard import Guard
from tests.check.build import config

OK, WARNING, FAILURE = Status.OK, Status.WARNING, Status.FAILURE


@pytest.fixture
def authority(monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """A CA that this machine trusts."""
    ca = trustme.CA()
    default = ssl.create_default_context

    def with_it(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = default(*arguments, **options)
        ca.configure_trust(context)
        return context

    monkeypatch.setattr(ssl, "create_default_context", with_it)
    return ca


@asynccontextmanager
async def listening(certificate: trustme.LeafCert | None = None) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that keeps what it hears."""
    heard: list[bytes] = []
    hearing: set[asyncio.Task[None]] = set()

    async def hear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        hearing.add(cast("asyncio.Task[None]", asyncio.current_task()))
        try:
            heard.append(await reader.read())
        except OSError:
            heard.append(b"")
        finally:
            writer.close()

    context = None
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate.configure_cert(context)
    server = await asyncio.start_server(hear, "127.0.0.1", 0, ssl=context)
    async with server:
        yield server.sockets[0].getsockname()[1], heard
        if hearing:
            await asyncio.wait(hearing)


async def check(url: str, **keys: Any) -> Finding:
    endpoint = config({"url": url, **keys}).endpoints["crm"]
    (finding,) = await check_endpoint("crm", endpoint, Guard(), SystemClock())
    assert finding.subject == "crm"
    return finding


async def test_nothing_is_sent() -> None:
    async with listening() as (port, heard):
        finding = await check(f"http://127.0.0.1:{port}/hook?key=secret")
        async with asyncio.timeout(5):
            while not heard:  # noqa: ASYNC110 - the server tells when the connection has ended
                await asyncio.sleep(0.01)
    assert heard == [b""]
    assert finding.status is OK
    assert "secret" not in finding.found


async def test_certificate_is_in_date(authority: trustme.CA) -> None:
    async with listening(authority.issue_cert("127.0.0.1", not_after=in_days(90))) as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/")
    assert finding.status is OK
    assert "valid for another 90 days" in finding.found or "valid for another 89." in finding.found


async def test_certificate_ends_soon(authority: trustme.CA) -> None:
    async with listening(authority.issue_cert("127.0.0.1", not_after=in_days(7))) as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/")
    assert finding.status is WARNING
    assert "renew" in str(finding.remedy)


async def test_certificate_is_over(authority: trustme.CA) -> None:
    async with listening(authority.issue_cert("127.0.0.1", not_after=in_days(-1))) as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/")
    assert finding.status is FAILURE
    assert "expired" in finding.found


async def test_certificate_of_an_unknown_ca() -> None:
    async with listening(trustme.CA().issue_cert("127.0.0.1")) as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/")
    assert finding.status is FAILURE
    assert "certificate is not accepted" in finding.found
    assert "CA" in str(finding.remedy)


async def test_an_authority_of_ones_own(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    async with listening(authority.issue_cert("127.0.0.1")) as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/", tls={"ca_file": str(tmp_path / "ca.pem")})
    assert finding.status is OK


async def test_an_address_that_requests_do_not_go_to() -> None:
    finding = await check("http://169.254.169.254/latest")
    assert finding.status is FAILURE
    assert "link-local" in finding.found
    assert "send.allow" in str(finding.remedy)


async def test_certificate_for_another_host(authority: trustme.CA) -> None:
    async with listening(authority.issue_cert("crm.example.org")) as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/")
    assert finding.status is FAILURE
    assert "127.0.0.1" in str(finding.remedy)


async def test_no_tls_where_it_is_expected() -> None:
    """A server that answers something else at once."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        finding = await check(f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/")
    assert finding.status is FAILURE
    assert "speaks TLS" in str(finding.remedy)


async def test_nobody_listens() -> None:
    finding = await check(f"http://127.0.0.1:{free_port()}/")
    assert finding.status is FAILURE
    assert "no connection to port" in finding.found


async def test_addresses_that_requests_do_not_go_to_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[str] = []
    reached = asyncio.Event()

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        called.append(writer.get_extra_info("sockname")[0])
        reached.set()
        writer.close()

    async with await asyncio.start_server(answer, ["127.0.0.1", "127.0.0.2"], port := free_port()):

        async def both(_: str, port: int) -> Any:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (host, port)) for host in ("127.0.0.2", "127.0.0.1")]

        monkeypatch.setattr(endpoints, "_resolve", both)
        section = config({"url": f"http://crm.example.org:{port}/"}).endpoints["crm"]
        guard = Guard(deny=(ip_network("127.0.0.2/32"),))
        (finding,) = await check_endpoint("crm", section, guard, SystemClock())
        async with asyncio.timeout(3):
            await reached.wait()
    assert finding.status is OK
    assert called == ["127.0.0.1"]


async def test_name_that_does_not_exist() -> None:
    finding = await check("https://no-such-host.invalid/hook")
    assert finding.status is FAILURE
    assert "no-such-host.invalid cannot be resolved" in finding.found


async def test_handshake_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoints, "_PATIENCE_S", 0.2)
    async with listening() as (port, _):
        finding = await check(f"https://127.0.0.1:{port}/")
    assert finding.status is FAILURE
    assert f"port {port} did not answer" in finding.found


def in_days(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days, minutes=1)
