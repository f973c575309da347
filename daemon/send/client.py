"""One request to an endpoint."""

from __future__ import annotations

import asyncio
import io
import re
import ssl
from collections.abc import Sequence
from importlib.metadata import version
from types import TracebackType
from urllib.parse import quote

import aiohttp
from multidict import CIMultiDict

from daemon.clock import Clock
from daemon.config.endpoint import EndpointSection
from daemon.model import Answered, Broken, Delivery, Outcome, TimedOut, Unreachable
from daemon.send.deadline import Deadline
from daemon.send.guard import Guard, GuardedResolver, RefusedError
from daemon.send.sign import Signer

_LONGEST_ANSWER = 64 * 1024
_LARGE_BODY = 1024 * 1024
_LONGEST_ERROR = 300
_SAFE_IN_HEADER = re.compile(r"[!-$&-~]+")


class Sender:
    """The connections to one endpoint. Use as an async context manager; `traces` watch its requests.

    Raises `ConfigurationError` when a file that the endpoint's section names cannot be used.
    """

    def __init__(
        self,
        name: str,
        endpoint: EndpointSection,
        *,
        clock: Clock,
        guard: Guard | None = None,
        traces: Sequence[aiohttp.TraceConfig] = (),
    ) -> None:
        self._url = endpoint.address
        self._clock = clock
        self._guard = guard or Guard()
        self._traces = list(traces)
        self._tls = endpoint.tls.context(f"endpoints.{name}.tls")
        keys = endpoint.signing_keys(name)
        self._signer = Signer(keys) if keys else None
        defaults = {
            "User-Agent": f"livechat-relay/{version('rocketchat-livechat-relay')}",
            "Accept-Encoding": "identity",  # an answer is kept as it came; nothing it holds is unpacked
        }
        self._headers = CIMultiDict({**defaults, "Content-Type": "application/json"})
        self._headers.update(endpoint.request_headers(name))
        self._deadline = Deadline(endpoint.timeout.total_seconds())
        self._concurrency = endpoint.concurrency
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Sender:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._concurrency,
                ssl=self._tls,
                resolver=GuardedResolver(self._guard),
                socket_factory=self._guard.open_socket,
            ),
            timeout=aiohttp.ClientTimeout(total=None),  # the deadline has the time
            cookie_jar=aiohttp.DummyCookieJar(),
            headers=self._headers,
            auto_decompress=False,
            trust_env=False,  # no proxy: the guard would see its address only
            trace_configs=self._traces,
        )
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._session is not None:
            await self._session.close()

    async def post(self, delivery: Delivery, content: bytes) -> Outcome:
        """Send one attempt. Redirects are not followed; of the answer only the beginning is read and kept."""
        if self._session is None:
            raise RuntimeError("use the sender as a context manager")
        event_id = _in_header(delivery.event_id)
        headers = {
            "X-Livechat-Relay-Event-Id": event_id,
            "X-Livechat-Relay-Attempt": str(delivery.attempt),
            "X-Livechat-Relay-Sequence": str(delivery.sequence),
        }
        if delivery.recovered:
            headers["X-Livechat-Relay-Recovered"] = "true"
        if self._signer is not None:
            headers.update(self._signer.headers(event_id, self._clock.now(), content))
        # From a megabyte on aiohttp wants a stream, so that writing it lets others work in between.
        data = io.BytesIO(content) if len(content) > _LARGE_BODY else content
        response: aiohttp.ClientResponse | None = None
        answer = bytearray()
        started = self._clock.monotonic()
        try:
            with self._deadline:
                async with self._session.post(self._url, data=data, headers=headers, allow_redirects=False) as response:
                    await _read_beginning(response, answer)
        except TimeoutError:
            if response is None:
                return TimedOut(self._clock.monotonic() - started)
        except (aiohttp.ClientError, OSError, ValueError) as error:
            duration_s = self._clock.monotonic() - started
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, RefusedError):
                return Broken(error.os_error.reason, duration_s)
            return Unreachable(_describe(error)[:_LONGEST_ERROR], duration_s)
        # The status is the answer: what became of its body does not change it.
        retry_after = response.headers.get("Retry-After")
        return Answered(response.status, bytes(answer), self._clock.monotonic() - started, retry_after)


def _in_header(event_id: str) -> str:
    """`event_id`, percent-encoded when a header cannot carry it as it is: a visitor's software may choose the id of a message."""
    return event_id if _SAFE_IN_HEADER.fullmatch(event_id) else quote(event_id, safe=":")


def _describe(error: Exception) -> str:
    """What happened, without the URL, whose query may be a secret, and without what was answered: it may be the request again."""
    name = type(error).__name__
    match error:
        case aiohttp.InvalidURL():
            return name
        case aiohttp.ClientResponseError():
            return f"{name}: the answer is no HTTP that can be read"
        case aiohttp.ClientConnectorCertificateError():
            return f"{name}: certificate verify failed: {_certificate_fault(error.certificate_error)}"
        case aiohttp.ClientConnectorError():
            why = str(error.os_error) or type(error.os_error).__name__
            return f"{name}: Cannot connect to {error.host}:{error.port}: {why}"
        case _:
            return f"{name}: {error}"


def _certificate_fault(error: Exception) -> str:
    """The fault, and what helps where it is not one of the receiver."""
    said = error.verify_message.rstrip(".") if isinstance(error, ssl.SSLCertVerificationError) else str(error)
    unknown = "issuer" in said or "self" in said
    return f"{said}; if an authority of your own vouches for it, name that in tls.ca_file" if unknown else said


async def _read_beginning(response: aiohttp.ClientResponse, answer: bytearray) -> None:
    """Add at most `_LONGEST_ANSWER` bytes to `answer`, fewer when it breaks off; a connection with more to say is closed rather
    than drained.
    """
    try:
        async for piece in response.content.iter_any():
            answer += piece[: _LONGEST_ANSWER - len(answer)]
            if len(answer) == _LONGEST_ANSWER:
                response.close()
                return
    except (aiohttp.ClientError, OSError):
        response.close()
    except asyncio.CancelledError:
        response.close()
        raise
