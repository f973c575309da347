"""The HTTP server on `serve.listen`."""

from __future__ import annotations

from types import TracebackType

from aiohttp import web

from daemon.errors import DaemonError
from daemon.metrics import Metrics
from daemon.serve.api import Api
from daemon.serve.health import Health
from daemon.serve.intake import LARGEST_BODY, Intake


class Server:
    """/livez, /readyz, /metrics, the intake and the API where there are such. Use as an async context manager; raises
    `DaemonError` when the address cannot be had. `intake` may be changed while it runs.
    """

    def __init__(
        self,
        address: tuple[str, int],
        health: Health,
        metrics: Metrics,
        intake: Intake | None = None,
        api: Api | None = None,
    ) -> None:
        self._host, self._port = address
        self._health = health
        self._metrics = metrics
        self.intake = intake
        self._api = api
        app = web.Application(client_max_size=LARGEST_BODY, middlewares=[] if api is None else [api.middleware])
        app.add_routes(
            [web.get("/livez", self._livez), web.get("/readyz", self._readyz), web.get("/metrics", self._metrics_page)]
        )
        app.router.add_post("/intake/offline", self._take)
        if api is not None:
            app.add_routes(api.routes())
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=2.0)

    async def __aenter__(self) -> Server:
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError as error:
            await self._runner.cleanup()
            raise DaemonError(
                f"serve.listen: cannot listen on {self._host}:{self._port}: {error.strerror}",
                hint="another process may have it, perhaps a second relay; choose another address in serve.listen",
            ) from error
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self._runner.cleanup()
        if self._api is not None:
            self._api.close()

    async def _take(self, request: web.Request) -> web.Response:
        if self.intake is None:
            raise web.HTTPNotFound
        return await self.intake.handle(request)

    async def _livez(self, _request: web.Request) -> web.Response:
        stuck = self._health.stuck()
        return web.json_response({"live": not stuck, "stuck": stuck}, status=503 if stuck else 200)

    async def _readyz(self, _request: web.Request) -> web.Response:
        answer = self._health.readiness()
        return web.json_response(answer, status=200 if answer["ready"] else 503)

    async def _metrics_page(self, _request: web.Request) -> web.Response:
        return web.Response(body=self._metrics.render(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
