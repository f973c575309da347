"""POST /intake/offline: takes Rocket.Chat's own webhook for offline messages, and answers 200 when the message is stored."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from daemon.compose.intake import RefusedError
from daemon.errors import DaemonError
from daemon.log import get_logger
from daemon.model import TOKEN_HEADER

LARGEST_BODY = 256 * 1024

log = get_logger("serve")


class Intake:
    """The handler. `take` stores a body durably before it returns, or raises `RefusedError`."""

    def __init__(self, token: str, take: Callable[[bytes], Awaitable[None]]) -> None:
        self._token = token.encode()
        self._take = take

    async def handle(self, request: web.Request) -> web.Response:
        """One webhook: 200 stored, 401 wrong token, 413 too large, 422 no offline message, 503 cannot be stored now."""
        if not hmac.compare_digest(request.headers.get(TOKEN_HEADER, "").encode("utf-8", "surrogateescape"), self._token):
            return self._refuse(401, f"the header {TOKEN_HEADER} is not the token in intake.secret_token")
        try:
            content = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return self._refuse(413, f"more than {LARGEST_BODY} bytes")
        try:
            await self._take(content)
        except RefusedError as error:
            return self._refuse(422, f"only LivechatOfflineMessage is taken here: {error}")
        except DaemonError as error:
            log.error("intake.not_stored", error=str(error), hint=error.hint)  # noqa: TRY400 - no trace is needed
            return web.json_response({"error": "cannot be stored at the moment"}, status=503)
        return web.json_response({"stored": True})

    def _refuse(self, status: int, reason: str) -> web.Response:
        log.warning("intake.refused", status=status, reason=reason)
        return web.json_response({"error": reason}, status=status)
