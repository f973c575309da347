"""One request to an endpoint."""

from __future__ import annotations

from importlib.metadata import version
from types import TracebackType

import aiohttp

from daemon.clock import Clock
from daemon.config import EndpointSection
from daemon.model import Answered, Delivery, Outcome, TimedOut, Unreachable

_LONGEST_ANSWER = 64 * 1024
_LONGEST_ERROR = 300


class Sender:
    """The connections to one endpoint. Use as an async context manager."""

    def __init__(self, name: str, endpoint: EndpointSection, *, clock: Clock) -> None:
        self._url = str(endpoint.url)
        self._clock = clock
        self._headers = {header: value.get_secret_value() for header, value in endpoint.headers.items()}
        token = endpoint.token(name)
        if token:
            self._headers["X-RocketChat-Livechat-Token"] = token
        self._headers["Content-Type"] = "application/json"
        self._headers.setdefault("User-Agent", f"livechat-relay/{version('rocketchat-livechat-relay')}")
        self._timeout = aiohttp.ClientTimeout(total=endpoint.timeout.total_seconds())
        self._concurrency = endpoint.concurrency
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Sender:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._concurrency),
            timeout=self._timeout,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # an answer is kept as it came; nothing it holds is unpacked
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, delivery: Delivery, content: bytes) -> Outcome:
        """Send one attempt. Redirects are not followed; of the answer only the beginning is read and kept."""
        if self._session is None:
            raise RuntimeError("use the sender as a context manager")
        headers = {
            **self._headers,
            "X-Livechat-Relay-Event-Id": delivery.event_id,
            "X-Livechat-Relay-Attempt": str(delivery.attempt),
            "X-Livechat-Relay-Sequence": str(delivery.sequence),
        }
        started = self._clock.monotonic()
        try:
            async with self._session.post(self._url, data=content, headers=headers, allow_redirects=False) as response:
                answer = await _beginning(response)
                return Answered(response.status, answer, self._clock.monotonic() - started)
        except TimeoutError:
            return TimedOut(self._clock.monotonic() - started)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            text = f"{type(error).__name__}: {error}"[:_LONGEST_ERROR]
            return Unreachable(text, self._clock.monotonic() - started)


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """At most `_LONGEST_ANSWER` bytes; a connection with more to say is closed rather than drained."""
    pieces: list[bytes] = []
    length = 0
    async for piece in response.content.iter_any():
        pieces.append(piece)
        length += len(piece)
        if length >= _LONGEST_ANSWER:
            response.close()
            break
    return b"".join(pieces)[:_LONGEST_ANSWER]
