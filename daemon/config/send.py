"""The section on where requests may go."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BeforeValidator

from daemon.config.types import Section


def _network(value: object) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(str(value))
    except ValueError:
        raise ValueError("write a network such as 10.0.0.0/8 or fd00::/8, or one address, such as 192.0.2.7") from None
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        raise ValueError("write it as an IPv4 network: addresses that map IPv4 into IPv6 are treated as IPv4")
    return network


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network, json_schema_input_type=str)]


class SendSection(Section):
    """Where requests may go, by the address that is connected to. Link-local addresses, where clouds keep their metadata,
    multicast and 0.0.0.0 are refused from the start; private networks and loopback are not.
    """

    allow: tuple[Network, ...] = ()
    """Networks that requests may go to although `deny` or the relay itself refuses a larger one: of all networks that hold an
    address the smallest decides, and `allow` where two are alike."""
    deny: tuple[Network, ...] = ()
    """More networks that requests do not go to. With 0.0.0.0/0 and ::/0 only those in `allow` are left."""
