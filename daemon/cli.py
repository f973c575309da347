"""The command line: the only place that knows arguments, signals and exit codes.

Exit codes: 0 done, 1 failure while running, 2 usage or configuration.
"""

from __future__ import annotations

import asyncio
import gc
import signal
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, NoReturn

import click
import uvloop

from daemon import log
from daemon.app import App
from daemon.commands import backfill, check, config, deliveries, endpoint, listen, position
from daemon.config.file import load
from daemon.config.secrets import secrets_of
from daemon.errors import ConfigurationError, DaemonError, first_error

_CONFIG = click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("config.yaml"),
    show_default=True,
    envvar="LIVECHAT_RELAY_CONFIG",
    show_envvar=True,
    help="The configuration file.",
)


_DEFECT = "this is a defect of the relay: please report it, with this line; what is owed is kept"


class _Main(click.Group):
    """Ends with the text and the hint of an error that a person can do something about, whatever command met it."""

    def invoke(self, ctx: click.Context) -> Any:
        """See click."""
        try:
            return super().invoke(ctx)
        except DaemonError as error:
            _end(error)
        except BaseExceptionGroup as group:
            errors = group.subgroup(DaemonError)
            if errors is None:
                raise
            _end(first_error(errors))


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="rocketchat-livechat-relay")
def main() -> None:
    """Deliver Rocket.Chat's livechat events to webhooks: durable, in order, with a record of every attempt."""


@main.command()
@_CONFIG
def run(config_path: Path) -> None:
    """Run the relay until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    config = load(config_path)
    log.configure(config.log.level, config.log.format, secrets_of(config))
    # Little here is garbage in circles: look for it less often, and never again in what was imported.
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    app = App(config, read_config=lambda: load(config_path), path=config_path)
    _run_until_signal(app.run, app.reload, uvloop.new_event_loop)


@main.command()
@click.option(
    "--seconds", type=click.FloatRange(5, 3600), default=30.0, show_default=True, help="How long livechat is simulated."
)
@click.option("--mongodb-uri", help="Use this MongoDB replica set; a database of its own is created there and dropped.")
@click.option(
    "--keep", type=click.Path(file_okay=False, path_type=Path), help="Keep outbox, logs and configuration in this folder."
)
def demo(seconds: float, mongodb_uri: str | None, keep: Path | None) -> None:
    """Show the relay at work: an embedded MongoDB, simulated livechat and a receiver that fails now and then."""
    from rich.console import Console  # noqa: PLC0415 - the daemon itself does not need the demo

    from daemon.demo.show import run_demo  # noqa: PLC0415

    log.configure("warning", "console")
    codes: list[int] = []

    async def show(stop: asyncio.Event) -> None:
        codes.append(await run_demo(seconds=seconds, mongodb_uri=mongodb_uri, keep=keep, console=Console(), stop=stop))

    _run_until_signal(show)
    sys.exit(codes[0])


def _run_until_signal(
    work: Callable[[asyncio.Event], Coroutine[Any, Any, None]],
    reload: Callable[[], None] | None = None,
    loop_factory: Callable[[], asyncio.AbstractEventLoop] | None = None,
) -> None:
    async def run_it() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if reload is not None:
            loop.add_signal_handler(signal.SIGHUP, reload)
        await work(stop)

    try:
        with asyncio.Runner(loop_factory=loop_factory) as runner:
            runner.run(run_it())
    except DaemonError:
        raise
    except (Exception, BaseExceptionGroup) as error:
        if isinstance(error, BaseExceptionGroup) and error.subgroup(DaemonError) is not None:
            raise
        # Whatever it is, it ends in one line of the log.
        log.get_logger("app").exception("relay.crashed", hint=_DEFECT)
        log.say_repeated(everything=True)
        sys.exit(1)


def _end(error: DaemonError) -> NoReturn:
    click.echo(f"error: {error}\nhint: {error.hint}", err=True)
    sys.exit(2 if isinstance(error, ConfigurationError) else 1)


for group in (check, config, deliveries, backfill, position, endpoint):
    group.add_commands(main, _CONFIG)
listen.add_commands(main, _run_until_signal)
