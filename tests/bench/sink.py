"""A receiver that does nothing but answer, and remembers when what came: `python -m tests.bench.sink PORT`.

Plain HTTP/1.1 on asyncio, so that it costs as little as it can. `GET /count`, `/arrivals` and `/set?...` are for the bench.
"""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from urllib.parse import parse_qsl, urlsplit

_LENGTH = re.compile(rb"\r\nContent-Length: *(\d+)", re.IGNORECASE)
_EVENT = re.compile(rb"\r\nX-Livechat-Relay-Event-Id: *([^\r]*)", re.IGNORECASE)
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Record:
    """What came, and how to answer. `status` other than 200 refuses, `poison` (parts of event ids, between |) too; `hang` is
    silence.
    """

    def __init__(self) -> None:
        self.arrivals: list[tuple[str, float, bool]] = []
        self.body_bytes = 0
        self.status = 200
        self.poison = ""
        self.hang = False

    def take(self, event: str, length: int) -> bytes | None:
        poisoned = self.poison and any(f":{part}" in event for part in self.poison.split("|"))
        status = 500 if poisoned else self.status
        self.arrivals.append((event, time.monotonic(), status == 200))
        self.body_bytes += length
        if self.hang:
            return None
        return _OK if status == 200 else b"HTTP/1.1 %d No\r\nContent-Length: 0\r\n\r\n" % status

    def control(self, target: str) -> bytes:
        url = urlsplit(target)
        content: object = None
        match url.path:
            case "/count":
                accepted = sum(taken for _, _, taken in self.arrivals)
                content = {"count": len(self.arrivals), "accepted": accepted, "bytes": self.body_bytes}
            case "/arrivals":
                content = self.arrivals
            case "/set":
                for name, value in parse_qsl(url.query, keep_blank_values=True):
                    setattr(self, name, type(getattr(self, name))(int(value) if name != "poison" else value))
            case "/reset":
                self.__init__()  # type: ignore[misc]
        body = json.dumps(content).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


class Connection(asyncio.Protocol):
    """One connection, kept alive."""

    def __init__(self, record: Record) -> None:
        self._record = record
        self._received = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        self._received += data
        while (end := self._received.find(b"\r\n\r\n")) >= 0:
            head = bytes(self._received[:end])
            found = _LENGTH.search(head)
            length = int(found[1]) if found else 0
            if len(self._received) < end + 4 + length:
                return
            del self._received[: end + 4 + length]
            self._answer(head, length)

    def _answer(self, head: bytes, length: int) -> None:
        if head.startswith(b"GET "):
            answer: bytes | None = self._record.control(head.split(b" ", 2)[1].decode())
        else:
            event = _EVENT.search(head)
            answer = self._record.take(event[1].decode() if event else "", length)
        if answer is not None and self._transport is not None:
            self._transport.write(answer)


async def serve(port: int) -> None:
    """Serve until killed."""
    record = Record()
    server = await asyncio.get_running_loop().create_server(lambda: Connection(record), "127.0.0.1", port, backlog=1024)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1])))
