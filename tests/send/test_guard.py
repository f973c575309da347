"""Where requests may go is decided by the address that is connected to, whatever the URL looks like."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_network
from typing import Any

import pytest
from aiohttp import TCPConnector

from daemon.clock import SystemClock
from daemon.model import Answered, Broken, Unreachable
from daemon.send.client import Sender
from daemon.send.guard import Guard
from tests.send.conftest import BODY, DELIVERY, Post, Receiver, endpoint
from tests.send.servers import answering, raw_server


def guard(allow: str = "", deny: str = "") -> Guard:
    return Guard(map(ip_network, allow.split()), map(ip_network, deny.split()))


class TestRules:
    @pytest.mark.parametrize(
        "address",
        [
            "169.254.169.254",
            "169.254.0.1",
            "fe80::1",
            "fe80::1%eth0",
            "febf::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "0.0.0.0",  # noqa: S104 - a test of texts
            "::",
            "224.0.0.1",
            "239.255.255.250",
            "ff02::1",
            "255.255.255.255",
            "::ffff:169.254.169.254",
            "::ffff:0.0.0.0",
            "64:ff9b::169.254.169.254",
            "2002:a9fe:a9fe::1",
        ],
    )
    def test_refused_from_the_start(self, address: str) -> None:
        reason = guard().refusal(address)
        assert reason is not None
        assert reason.startswith(f"{address} is in ")
        assert "send.allow" in reason

    @pytest.mark.parametrize(
        "address",
        [
            "127.0.0.1",
            "::1",
            "10.0.0.1",
            "192.168.1.1",
            "172.16.0.1",
            "fd00::1",
            "100.64.0.1",
            "8.8.8.8",
            "2600::",
            "::ffff:10.0.0.1",
        ],
    )
    def test_private_and_public_networks_are_not(self, address: str) -> None:
        assert guard().refusal(address) is None

    @pytest.mark.parametrize(
        ("allow", "deny", "address", "refused"),
        [
            pytest.param("", "10.0.0.0/8", "10.1.2.3", True, id="denied"),
            pytest.param("", "10.0.0.0/8", "::ffff:10.1.2.3", True, id="denied, mapped into IPv6"),
            pytest.param("", "10.0.0.0/8", "11.0.0.1", False, id="beside what is denied"),
            pytest.param("10.1.0.0/16", "10.0.0.0/8", "10.1.2.3", False, id="the smaller one allows"),
            pytest.param("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3", True, id="the smaller one denies"),
            pytest.param("10.0.0.0/8", "10.0.0.0/8", "10.1.2.3", False, id="alike: allow"),
            pytest.param("169.254.0.0/16", "", "169.254.169.254", False, id="what is refused from the start, lifted"),
            pytest.param("169.254.7.7/32", "", "169.254.169.254", True, id="another address lifted"),
            pytest.param("0.0.0.0/0", "", "169.254.169.254", True, id="all allowed does not lift it"),
            pytest.param("10.0.0.0/8", "0.0.0.0/0 ::/0", "10.1.2.3", False, id="only some: one of them"),
            pytest.param("10.0.0.0/8", "0.0.0.0/0 ::/0", "192.168.0.1", True, id="only some: another"),
            pytest.param("10.0.0.0/8", "0.0.0.0/0 ::/0", "fd00::1", True, id="only some: IPv6"),
        ],
    )
    def test_the_smallest_network_decides(self, allow: str, deny: str, address: str, refused: bool) -> None:
        assert (guard(allow, deny).refusal(address) is not None) is refused


class TestRequests:
    @pytest.mark.parametrize(
        "host",
        [
            "169.254.169.254",
            "[::ffff:169.254.169.254]",
            "[fe80::1]",
            "2852039166",
            "0xa9.0xfe.0xa9.0xfe",
            "0251.0376.0251.0376",
            "169.254.169.254.",
            "169.254.43518",
            "[::]",
            "0",
        ],
    )
    async def test_an_address_in_any_notation_is_a_failed_try_that_says_why(self, post: Post, host: str) -> None:
        outcome = await post(f"http://{host}:1/hook?key=hunter2", timeout="1s")
        assert isinstance(outcome, Broken)
        assert outcome.counts
        assert "send.allow" in outcome.error
        assert "hunter2" not in outcome.error

    async def test_no_packet_leaves(self, receiver: Receiver) -> None:
        async with Sender("crm", endpoint(receiver.url), clock=SystemClock(), guard=guard(deny="127.0.0.0/8")) as sender:
            outcome = await sender.post(DELIVERY, BODY)
        assert isinstance(outcome, Broken)
        assert "127.0.0.0/8 (send.deny)" in outcome.error
        assert receiver.requests == []

    async def test_a_name_is_judged_by_its_address(self, receiver: Receiver) -> None:
        url = receiver.url.replace("127.0.0.1", "localhost")
        refusing = guard(deny="127.0.0.0/8 ::1/128")
        async with Sender("crm", endpoint(url), clock=SystemClock(), guard=refusing) as sender:
            assert isinstance(await sender.post(DELIVERY, BODY), Broken)
        async with Sender("crm", endpoint(url), clock=SystemClock(), guard=guard("127.0.0.1", "127.0.0.0/8")) as sender:
            assert isinstance(await sender.post(DELIVERY, BODY), Answered)
        assert len(receiver.requests) == 1

    async def test_a_name_that_resolves_to_something_else_later(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The first answer is a good address; the name changes between two connections."""
        closing = answering(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        addresses = answer_with(monkeypatch, "127.0.0.1")
        async with (
            raw_server(closing) as server,
            Sender("crm", endpoint(f"http://crm.example.org:{server.port}/"), clock=SystemClock()) as sender,
        ):
            assert isinstance(await sender.post(DELIVERY, BODY), Answered)
            addresses[:] = ["169.254.169.254"]
            assert sender._session is not None
            assert isinstance(sender._session.connector, TCPConnector)
            sender._session.connector.clear_dns_cache()
            outcome = await sender.post(DELIVERY, BODY)
        assert isinstance(outcome, Broken)
        assert "169.254.169.254" in outcome.error
        assert server.connections == 1

    async def test_a_name_with_a_good_and_a_refused_address_uses_the_good_one(
        self, receiver: Receiver, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        port = int(receiver.url.rpartition(":")[2])
        answer_with(monkeypatch, "169.254.169.254", "fe80::1", "127.0.0.1")
        async with Sender("crm", endpoint(f"http://crm.example.org:{port}/"), clock=SystemClock()) as sender:
            assert isinstance(await sender.post(DELIVERY, BODY), Answered)

    @pytest.mark.parametrize("addresses", [("169.254.169.254", "fe80::1"), ("fe80::1", "169.254.1.1", "ff02::1", "0.0.0.0")])  # noqa: S104
    async def test_a_name_with_refused_addresses_only(
        self, post: Post, monkeypatch: pytest.MonkeyPatch, addresses: tuple[str, ...]
    ) -> None:
        answer_with(monkeypatch, *addresses)
        outcome = await post("http://crm.example.org/")
        assert isinstance(outcome, Broken)
        assert "send.allow" in outcome.error

    @pytest.mark.parametrize("refused", ["fe80::1", "169.254.169.254"])
    @pytest.mark.parametrize("good_first", [False, True])
    async def test_a_good_address_that_nobody_listens_on_is_an_outage_still(
        self, post: Post, monkeypatch: pytest.MonkeyPatch, refused: str, *, good_first: bool
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as unused:
            port = unused.getsockname()[1]
        answer_with(monkeypatch, *(("127.0.0.1", refused) if good_first else (refused, "127.0.0.1")))
        assert isinstance(await post(f"http://crm.example.org:{port}/"), Unreachable)

    @pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "all_proxy"])
    async def test_a_proxy_of_the_environment_is_not_used(
        self, receiver: Receiver, post: Post, monkeypatch: pytest.MonkeyPatch, variable: str
    ) -> None:
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
        assert isinstance(await post(receiver.url), Answered)


def answer_with(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> list[str]:
    """Names resolve to these, addresses to themselves; the list can be changed later."""
    current = list(addresses)

    async def getaddrinfo(host: str, port: int, **_: Any) -> list[Any]:
        return [
            (socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, port, 0, 0))
            if ":" in address
            else (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in ([host] if host in current else current)
        ]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    return current
