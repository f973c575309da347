"""`livechat-relay listen`: a receiver to develop against."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

import click
from pydantic import SecretStr
from rich.console import Console

from daemon.clock import SystemClock
from daemon.config.types import parse_duration, read_secret, signing_key
from daemon.receive.checks import Proofs
from daemon.receive.server import Counts, Manners, Receiver
from daemon.receive.show import show

Run = Callable[[Callable[[asyncio.Event], Coroutine[Any, Any, None]]], None]


class _Delay(click.ParamType[float]):
    """A duration, in seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """`500ms`, `2s`, `1m`."""
        try:
            return parse_duration(value).total_seconds()
        except ValueError as error:
            self.fail(str(error), param, ctx)


class _SigningSecret(click.ParamType[bytes]):
    """The key of a signing secret."""

    name = "whsec_..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """`whsec_` and base64."""
        try:
            return value if isinstance(value, bytes) else signing_key(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


_FILE = click.Path(dir_okay=False, exists=True, path_type=Path)


def add_commands(main: click.Group, run_until_signal: Run) -> None:
    """Add the command to the command line."""

    @main.command()
    @click.option("--port", type=click.IntRange(0, 65535), default=8941, show_default=True, help="Where to listen; 0: any port.")
    @click.option("--host", default="127.0.0.1", show_default=True, help="The address to listen on.")
    @click.option("--status", type=click.IntRange(200, 599), help="Answer so.  [default: 200, with --fail-every 500]")
    @click.option("--delay", type=_Delay(), default="0s", show_default=True, help="Answer so much later, such as 2s.")
    @click.option("--fail-every", type=click.IntRange(1), metavar="N", help="Only every N-th request gets --status, others 200.")
    @click.option("--token", help="Requests without this token are answered 401.")
    @click.option("--token-file", type=_FILE, help="A file that holds the token.")
    @click.option(
        "--signing-secret",
        "keys",
        type=_SigningSecret(),
        multiple=True,
        help="Requests that are not signed with it: 401. May be repeated.",
    )
    @click.option("--save", type=click.Path(file_okay=False, path_type=Path), help="Keep each body as a file in this folder.")
    @click.option("--bodies/--no-bodies", default=True, show_default=True, help="Print bodies.")
    def listen(
        *,
        port: int,
        host: str,
        status: int | None,
        delay: float,
        fail_every: int | None,
        token: str | None,
        token_file: Path | None,
        keys: tuple[bytes, ...],
        save: Path | None,
        bodies: bool,
    ) -> None:
        """Receive webhooks and show them, to develop against: checks token and signature, fails and delays when told to."""
        if token is not None and token_file is not None:
            raise click.UsageError("give --token or --token-file, not both")
        if token is not None or token_file is not None:
            token = read_secret(token_file, SecretStr(token or ""), "--token-file")
        proofs = Proofs(token or None, keys)
        manners = Manners(status or (500 if fail_every else 200), delay, fail_every)
        console = Console(highlight=False)
        receiver = Receiver(
            host,
            port,
            proofs=proofs,
            manners=manners,
            show=partial(show, console=console, bodies=bodies),
            save=save,
            clock=SystemClock(),
        )
        run_until_signal(partial(_listen, receiver, console))


async def _listen(receiver: Receiver, console: Console, stop: asyncio.Event) -> None:
    async with receiver:
        console.print(f"listening on {receiver.url} - any path; Ctrl-C ends it", soft_wrap=True, markup=False)
        console.print(
            f"the relay's configuration:  endpoints: {{dev: {{url: '{receiver.url}'}}}}\n", soft_wrap=True, markup=False
        )
        await stop.wait()
    console.print(_told(receiver.counts), soft_wrap=True)


def _told(counts: Counts) -> str:
    return (
        f"{counts.requests} requests: {counts.accepted} accepted, {counts.failed} failed, {counts.refused} refused with 401; "
        f"{counts.duplicates} of all were duplicates"
    )
