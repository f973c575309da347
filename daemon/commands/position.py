"""`livechat-relay position`: where the change stream is read from."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from daemon import ops
from daemon.clock import SystemClock
from daemon.commands.tables import Decorator, Moment, print_json, show_time
from daemon.config.file import load


class _Place(Moment):
    """`now`, a time, or how long ago."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """See `Moment`."""
        return SystemClock().now() if value == "now" else super().convert(value, param, ctx)


def add_commands(main: click.Group, config_option: Decorator) -> None:
    """Add the group to the command line."""

    @main.group()
    def position() -> None:
        """Where the change stream is read from."""

    @position.command()
    @config_option
    @click.option("--json", "as_json", is_flag=True, help="One JSON object.")
    def show(config_path: Path, as_json: bool) -> None:
        """Show the committed position; works while the relay runs and while it is stopped."""
        found = ops.position(load(config_path, read_secrets=False).outbox.path)
        if as_json:
            print_json({"cluster_time": None, "saved_at": None, "token": None} if found is None else found.as_json())
        elif found is None:
            click.echo("none yet: the first start begins at capture.start")
        else:
            click.echo(f"cluster time  {show_time(found.cluster_time)} UTC")
            click.echo(f"saved at      {show_time(found.saved_at)} UTC")
            click.echo(f"resume token  {found.token or 'none: read from the cluster time on'}")

    @position.command(name="set")
    @config_option
    @click.argument("place", type=_Place())
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def set_(config_path: Path, place: datetime, yes: bool) -> None:
        """Read from PLACE on at the next start: a time, an age such as 2h, or `now`. The relay must be stopped.

        Changes since then are read again; events that are known by their id are not delivered twice. What lies between the
        present position and a later place is not read. Folded state is dropped, since it belongs to the old place.
        """
        if place > SystemClock().now():
            raise click.BadParameter("this time is yet to come", param_hint="PLACE")
        config = load(config_path, read_secrets=False)
        present = ops.position(config.outbox.path)
        if not yes:
            where = "none" if present is None else f"{show_time(present.cluster_time)} UTC"
            click.confirm(f"Position now: {where}. Set it to {show_time(place)} UTC?", abort=True, err=True)
        ops.set_position(config.outbox.path, place)
        click.echo(f"the next start reads from {show_time(place)} UTC on")
