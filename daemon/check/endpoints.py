"""Whether an endpoint can be connected to: its name, a TCP connection, and the TLS handshake. No request is sent."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import ssl
from contextlib import suppress

import aiohappyeyeballs

from daemon.check.findings import Finding, failure, for_long, ok, warning
from daemon.clock import Clock
from daemon.config.endpoint import EndpointSection
from daemon.config.types import redact_url
from daemon.send.guard import Guard

_PATIENCE_S = 5.0
_RENEW_BEFORE_S = 14 * 86400.0
_CHECK = "endpoint.connection"


async def check_endpoint(name: str, endpoint: EndpointSection, guard: Guard, clock: Clock) -> list[Finding]:
    """One connection, opened and closed, to an address that requests may go to."""
    url = endpoint.url
    host, port = (url.host or "").strip("[]"), url.port or 443
    where = redact_url(str(url))
    tls = endpoint.tls.context(f"endpoints.{name}.tls") if url.scheme == "https" else None
    try:
        async with asyncio.timeout(_PATIENCE_S):
            resolved = await _resolve(host, port)
            addresses = {str(entry[4][0]) for entry in resolved}
            refusals = {address: guard.refusal(address.partition("%")[0]) for address in sorted(addresses)}
            allowed = [entry for entry in resolved if refusals[str(entry[4][0])] is None]
            if not allowed:
                remedy = f"mend endpoints.{name}.url, or lift that with send.allow"
                reason = next(iter(refusals.values()))
                return [failure(_CHECK, f"{where}: requests do not go there: {reason}", remedy, subject=name)]
            connected = await aiohappyeyeballs.start_connection(allowed, happy_eyeballs_delay=0.25)
            _, writer = await asyncio.open_connection(sock=connected, ssl=tls, server_hostname=host if tls else None)
    except (OSError, TimeoutError) as error:
        return [failure(_CHECK, f"{where}: {_what(error, host, port)}", _remedy(error, name, host), subject=name)]
    try:
        ends_in_s = _certificate_ends_in_s(writer, clock)
    finally:
        writer.transport.abort()
        with suppress(OSError):  # the other side may have ended it at the same moment
            await writer.wait_closed()
    if ends_in_s is not None:
        found = f"{where}: connected, TLS certificate valid for another {for_long(ends_in_s)}"
        if ends_in_s < _RENEW_BEFORE_S:
            return [warning(_CHECK, found, "let the receiver renew its certificate, else deliveries fail then", subject=name)]
        return [ok(_CHECK, found, subject=name)]
    if not all(ipaddress.ip_address(address.partition("%")[0]).is_private for address in addresses):
        found = f"{where}: connected, but without TLS: tokens and what visitors write cross the network in the clear"
        return [warning(_CHECK, found, f"use an https address in endpoints.{name}.url", subject=name)]
    return [ok(_CHECK, f"{where}: connected, without TLS, in a private network", subject=name)]


async def _resolve(host: str, port: int) -> list[tuple[int, int, int, str, tuple[str, int] | tuple[str, int, int, int]]]:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)  # type: ignore[return-value]


def _certificate_ends_in_s(writer: asyncio.StreamWriter, clock: Clock) -> float | None:
    certificate = writer.get_extra_info("peercert")
    if not certificate:
        return None
    return float(ssl.cert_time_to_seconds(certificate["notAfter"]) - clock.now().timestamp())


def _what(error: OSError | TimeoutError, host: str, port: int) -> str:
    match error:
        case socket.gaierror():
            return f"the name {host} cannot be resolved ({error.strerror})"
        case ssl.SSLCertVerificationError():
            return f"the TLS certificate is not accepted: {error.verify_message}"
        case ssl.SSLError():
            return f"no TLS connection: {error.reason or error.strerror}"
        case TimeoutError():
            return f"port {port} did not answer within {_PATIENCE_S:.0f} seconds"
        case _:
            return f"no connection to port {port}: {os.strerror(error.errno) if error.errno else error}"


def _remedy(error: OSError | TimeoutError, name: str, host: str) -> str:
    match error:
        case socket.gaierror():
            return f"check endpoints.{name}.url and this machine's name service"
        case ssl.SSLCertVerificationError():
            return (
                f"the receiver needs a certificate that names {host}, is in date, and comes from a CA that this machine trusts;"
                f" a CA of your own goes into endpoints.{name}.tls.ca_file"
            )
        case ssl.SSLError():
            return f"check that the receiver speaks TLS at this port; otherwise write http in endpoints.{name}.url"
        case _:
            return f"check endpoints.{name}.url, that the receiver runs, and firewalls between; events wait meanwhile"
