"""A receiver that records every request and fails in every way a receiver can. Written on bare sockets, so that it can."""

from __future__ import annotations

import asyncio
import random
import time
from contextlib import suppress
from enum import Enum, auto

import orjson

from tests.faults.evidence import Request

_ENDLESS_S = 30.0


class Mood(Enum):
    """What it does with a request."""

    FINE = auto()
    SLOW = auto()
    ERROR = auto()  # 500, 502, 503
    BUSY = auto()  # 429 with Retry-After
    HANG = auto()  # no answer at all, nothing is done
    FORGET = auto()  # done, but never answered
    CLOSE = auto()  # the connection ends without an answer, nothing is done
    ACCEPT_AND_CLOSE = auto()  # done, but the connection ends before the answer
    HALF_HEAD = auto()  # done, but the connection ends within the status line
    HALF_BODY = auto()  # a 200 whose body breaks off: that is a success
    GARBAGE = auto()  # what comes back is not HTTP, nothing is done


class FaultyReceiver:
    """Listens on loopback. `mood` is what it does with a `share` of the events, decided by event and attempt; sessions in
    `poisoned` are answered with their status whatever the mood.
    """

    def __init__(self, endpoint: str, seed: int) -> None:
        self.endpoint = endpoint
        self.requests: list[Request] = []
        self.mood = Mood.FINE
        self.share = 1.0
        self.poisoned: dict[str, int] = {}
        self.poison_next: int | None = None  # the next session that was never seen is poisoned with this status
        self.refused: set[str] = set()
        self._sessions: set[str] = set()
        self._seed = seed
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._calm = asyncio.Event()
        self.port = 0

    async def start(self) -> None:
        """Listen, on the port of the last time."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, limit=2**24)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        """Refuse connections and drop those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        self._calm.set()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    def set_mood(self, mood: Mood, share: float = 1.0) -> None:
        """From now on; requests that hang are let go."""
        self.mood, self.share = mood, share
        self._calm.set()
        self._calm = asyncio.Event()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            with suppress(asyncio.IncompleteReadError, ConnectionError):
                while await self._take(reader, writer):
                    pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """One request; whether the connection goes on."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:] if line)}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        request = Request(
            endpoint=self.endpoint,
            event_id=headers.get("x-livechat-relay-event-id", ""),
            attempt=int(headers.get("x-livechat-relay-attempt", "0")),
            sequence=int(headers.get("x-livechat-relay-sequence", "0")),
            body=body,
            arrived=time.time(),
        )
        self.requests.append(request)
        return await self._answer(request, writer)

    async def _answer(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        chance = random.Random(repr((self._seed, request.event_id, request.attempt)))  # noqa: S311 - repeatable
        status = self._poison(request)
        mood = self.mood if chance.random() < self.share else Mood.FINE
        if status is not None:
            return await self._say(request, writer, status)
        match mood:
            case Mood.FINE | Mood.SLOW:
                if mood is Mood.SLOW:
                    await asyncio.sleep(chance.uniform(0.05, 0.4))
                return await self._say(request, writer, 200)
            case Mood.ERROR:
                return await self._say(request, writer, chance.choice((500, 502, 503)))
            case Mood.BUSY:
                return await self._say(request, writer, 429, "Retry-After: 1\r\n")
            case Mood.HANG | Mood.FORGET:
                request.accepted = request.answer_spoilt = mood is Mood.FORGET
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._calm.wait(), _ENDLESS_S)
            case Mood.CLOSE:
                pass
            case Mood.ACCEPT_AND_CLOSE:
                request.accepted = request.answer_spoilt = True
            case Mood.HALF_HEAD:
                request.accepted = request.answer_spoilt = True
                writer.write(b"HTTP/1.1 20")
            case Mood.HALF_BODY:
                request.accepted, request.status = True, 200
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nbroken o")
            case Mood.GARBAGE:
                writer.write(chance.randbytes(64) + b"\r\n\r\n")
        await writer.drain()
        request.answered = time.time()
        return False

    def _poison(self, request: Request) -> int | None:
        payload = orjson.loads(request.body)
        session = str(payload.get("_id") or "")
        if session and session not in self._sessions:
            self._sessions.add(session)
            if self.poison_next is not None:
                self.poisoned[session], self.poison_next = self.poison_next, None
        status = self.poisoned.get(session)
        if status is not None:
            self.refused.add(session)
        return status

    async def _say(self, request: Request, writer: asyncio.StreamWriter, status: int, headers: str = "") -> bool:
        # Every answer is another one, so that an answer that got into a payload by mistake is seen.
        text = f"answer {len(self.requests)}" if status == 200 else "no"
        request.status, request.accepted = status, status == 200
        request.answered = time.time()
        writer.write(f"HTTP/1.1 {status} X\r\n{headers}Content-Length: {len(text)}\r\n\r\n{text}".encode())
        await writer.drain()
        return True
