"""A TCP proxy whose connections can be cut, delayed and stalled, and which can refuse new ones."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Proxy:
    """From a port of its own on loopback to `target`."""

    def __init__(self, target: tuple[str, int]) -> None:
        self.target = target
        self.delay_s = 0.0
        self.refusing = False
        self.port = 0
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._pairs: set[tuple[asyncio.StreamWriter, asyncio.StreamWriter]] = set()

    async def __aenter__(self) -> Proxy:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        self.heal()
        self.cut()
        await asyncio.sleep(0)

    def stall(self) -> None:
        """Connections stay open and nothing comes through."""
        self._flowing.clear()

    def heal(self) -> None:
        """As if nothing had been."""
        self.delay_s, self.refusing = 0.0, False
        self._flowing.set()

    def cut(self) -> None:
        """End every connection, on both sides, with whatever is under way."""
        for pair in list(self._pairs):
            for writer in pair:
                writer.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            far_reader, far_writer = await asyncio.open_connection(*self.target)
        except OSError:
            writer.transport.abort()
            return
        pair = (writer, far_writer)
        self._pairs.add(pair)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, far_writer, pair, forward=True))
                tasks.create_task(self._pump(far_reader, writer, pair, forward=False))
        finally:
            self._pairs.discard(pair)

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        pair: tuple[asyncio.StreamWriter, asyncio.StreamWriter],
        *,
        forward: bool,
    ) -> None:
        with suppress(ConnectionError):
            while data := await reader.read(65536):
                if self.delay_s:
                    await asyncio.sleep(self.delay_s)
                await self._flowing.wait()
                # What a client that is gone has said is lost with it: the server must not get it after its successor's requests.
                if (forward and reader.at_eof()) or any(end.transport.is_closing() for end in pair):
                    break
                writer.write(data)
                await writer.drain()
        for end in pair:
            end.close()
