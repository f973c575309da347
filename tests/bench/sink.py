"""A receiver that answers 200 and prints when each event came, one line an event: `python -m tests.bench.sink PORT`."""

from __future__ import annotations

import sys
import time

from aiohttp import web


def main() -> None:
    """Serve until killed."""

    async def handle(request: web.Request) -> web.Response:
        await request.read()
        sys.stdout.write(f"{request.headers['X-Livechat-Relay-Event-Id']} {time.time()}\n")
        return web.Response()

    application = web.Application()
    application.router.add_post("/", handle)
    web.run_app(application, host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)


if __name__ == "__main__":
    main()
