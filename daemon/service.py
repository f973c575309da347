"""Telling systemd how the service is: the sd_notify protocol, a datagram to the socket that systemd names."""

from __future__ import annotations

import os
import socket

from daemon.clock import Clock, SystemClock
from daemon.log import get_logger

log = get_logger("app")


class ServiceManager:
    """Does nothing where no service manager listens."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._address = os.environ.get("NOTIFY_SOCKET")
        self._ready = False

    def ready(self) -> None:
        """The service has started; said once."""
        if not self._ready:
            self._ready = self._send("READY=1")

    def reloading(self) -> None:
        """The configuration is being read again. Before the start is over there is nothing to say."""
        if self._ready:
            self._send(f"RELOADING=1\nMONOTONIC_USEC={int(self._clock.monotonic() * 1_000_000)}")

    def reloaded(self, note: str | None) -> None:
        """The reload is over, whether it changed anything or not; `note` says what the operator has to know of it."""
        if self._ready:
            self._send(f"READY=1\nSTATUS={note or 'reloaded'}")

    def status(self, text: str) -> None:
        """One line for `systemctl status`, which also feeds the watchdog."""
        line = text.replace("\n", " ")
        self._send(f"STATUS={line}\nWATCHDOG=1")

    def stopping(self) -> None:
        """The service has begun to stop."""
        self._send("STOPPING=1\nSTATUS=stopping; requests in flight may finish")

    def _send(self, message: str) -> bool:
        """Whether it was heard, or nobody wants to hear it."""
        if not self._address:
            return True
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as notify:
                notify.settimeout(1)
                notify.sendto(message.encode(), address)
        except OSError as error:  # nobody listens: no reason to stop relaying
            log.debug("service.not_told", error=str(error))
            return False
        return True
