"""Where requests may go: the addresses of endpoints, checked as a connection is made.

The check is on the very address that the connection then goes to. A name that resolves to something else a moment later, or a
URL with an address for a name, makes no difference.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

from aiohttp import ThreadedResolver
from aiohttp.abc import ResolveResult

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

_LINK_LOCAL = "link-local, where clouds keep their metadata"
_METADATA = "the metadata service of a cloud"
REFUSED = {
    "0.0.0.0/8": "no address of a host",
    "::/128": "no address of a host",
    "169.254.0.0/16": _LINK_LOCAL,
    "fe80::/10": _LINK_LOCAL,
    "100.100.100.200/32": _METADATA,
    "168.63.129.16/32": _METADATA,
    "192.0.0.192/32": _METADATA,
    "fd00:ec2::/32": _METADATA,
    "fd20:ce::254/128": _METADATA,
    "224.0.0.0/4": "multicast",
    "ff00::/8": "multicast",
    "255.255.255.255/32": "broadcast",
}
_NAT64 = ip_network("64:ff9b::/96")


class RefusedError(OSError):
    """No connection is made. The text is the same for all addresses, as that of a name with several is put together from theirs;
    `reason` has the address.
    """

    def __init__(self, reason: str) -> None:
        super().__init__("requests do not go to this address")
        self.reason = reason


class Guard:
    """Decides by the smallest network that holds an address; `allow` goes before `deny` where both name the same one."""

    def __init__(self, allow: Iterable[Network] = (), deny: Iterable[Network] = ()) -> None:
        refused = [(ip_network(network), f"{network} ({why})") for network, why in REFUSED.items()]
        refused += [(network, f"{network} (send.deny)") for network in deny]
        rules = [(network, True, "") for network in allow] + [(network, False, why) for network, why in refused]
        self._rules = sorted(rules, key=lambda rule: (rule[0].prefixlen, rule[1]), reverse=True)

    def refusal(self, host: str) -> str | None:
        """Why no request goes to the address `host`, naming what lifts that; None when it may."""
        address = _effective(ip_address(host))
        for network, allowed, why in self._rules:
            if address in network:
                return None if allowed else f"{host} is in {why}, where requests do not go; send.allow can lift that"
        return None

    def open_socket(self, address_info: tuple[Any, ...]) -> socket.socket:
        """A socket for a connection to that address, as `aiohttp.TCPConnector` asks for. Raises `RefusedError`."""
        family, kind, protocol, _, address = address_info
        if reason := self.refusal(address[0]):
            raise RefusedError(reason)
        return socket.socket(family=family, type=kind, proto=protocol)


class GuardedResolver(ThreadedResolver):
    """Leaves refused addresses out while a name has others, so that an outage of those is seen as one; no guard by itself."""

    def __init__(self, guard: Guard) -> None:
        super().__init__()
        self._guard = guard

    async def resolve(self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET) -> list[ResolveResult]:
        """See `aiohttp.abc.AbstractResolver`."""
        found = await super().resolve(host, port, family)
        return [address for address in found if self._guard.refusal(address["host"]) is None] or found


def _effective(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for: mapped, of NAT64, of 6to4."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(address.packed[-4:])
    return address.ipv4_mapped or address.sixtofour or address
