"""One request to an endpoint."""

from __future__ import annotations

import io
from importlib.metadata import version
from types import TracebackType

import aiohttp

from daemon.clock import Clock
from daemon.config.endpoint import EndpointSection
from daemon.model import TOKEN_HEADER, Answered, Delivery, Outcome, TimedOut, Unreachable

_LONGEST_ANSWER = 64 * 1024
_LARGE_BODY = 1024 * 1024
_LONGEST_ERROR = 300


class Sender:
    """The connections to one endpoint. Use as an async context manager."""

    def __init__(self, name: str, endpoint: EndpointSection, *, clock: Clock) -> None:
        self._url = str(endpoint.url)
        self._clock = clock
        self._headers = {header: value.get_secret_value() for header, value in endpoint.headers.items()}
        token = endpoint.token(name)
        if token:
            self._headers[TOKEN_HEADER] = token
        self._headers["Content-Type"] = "application/json"
        if not any(header.lower() == "user-agent" for header in self._headers):
            self._headers["User-Agent"] = f"livechat-relay/{version('rocketchat-livechat-relay')}"
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
        if delivery.recovered:
            headers["X-Livechat-Relay-Recovered"] = "true"
        # From a megabyte on aiohttp wants a stream, so that writing it lets others work in between.
        data = io.BytesIO(content) if len(content) > _LARGE_BODY else content
        started = self._clock.monotonic()
        try:
            async with self._session.post(self._url, data=data, headers=headers, allow_redirects=False) as response:
                # The status is the answer: what becomes of its body does not change it.
                answer = await _beginning(response)
                retry_after = response.headers.get("Retry-After")
                return Answered(response.status, answer, self._clock.monotonic() - started, retry_after)
        except TimeoutError:
            return TimedOut(self._clock.monotonic() - started)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            return Unreachable(_describe(error), self._clock.monotonic() - started)


def _describe(error: Exception) -> str:
    """What happened, without the URL, whose query may be a secret, and without what was answered: it may be the request again."""
    name = type(error).__name__
    if isinstance(error, aiohttp.ClientResponseError):
        return f"{name}: the answer is no HTTP that can be read"
    return name if isinstance(error, aiohttp.InvalidURL) else f"{name}: {error}"[:_LONGEST_ERROR]


async def _beginning(response: aiohttp.ClientResponse) -> bytes:
    """At most `_LONGEST_ANSWER` bytes, fewer when it breaks off; a connection with more to say is closed rather than drained."""
    pieces: list[bytes] = []
    length = 0
    try:
        async for piece in response.content.iter_any():
            pieces.append(piece)
            length += len(piece)
            if length >= _LONGEST_ANSWER:
                response.close()
                break
    except (aiohttp.ClientError, OSError, TimeoutError):
        response.close()
    return b"".join(pieces)[:_LONGEST_ANSWER]
