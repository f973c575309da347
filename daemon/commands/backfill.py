"""`livechat-relay backfill`: events again from stored rooms and messages."""

from __future__ import annotations

import asyncio
import sys
from datetime import datetime
from pathlib import Path

import click

from daemon import log, ops
from daemon.backfill import Counts, backfill
from daemon.clock import SystemClock
from daemon.commands.progress import progress
from daemon.commands.tables import Decorator, Moment, print_table, show_time, table
from daemon.compose.recovery import Span
from daemon.compose.traces import WITHOUT_TRACE
from daemon.config.file import load
from daemon.config.root import Config
from daemon.config.types import format_duration
from daemon.model import EventType


def add_commands(main: click.Group, config_option: Decorator) -> None:
    """Add the command to the command line."""

    @main.command(name="backfill")
    @config_option
    @click.option("--since", type=Moment(), required=True, help="What happened from this time on (2026-11-23T08:00:00Z, or 2h).")
    @click.option("--until", type=Moment(), help="What happened before this time.  [default: now]")
    @click.option("--room", help="Only this session (room id).")
    @click.option("--type", "event_type", type=click.Choice([t.value for t in EventType]), help="Only this event type.")
    @click.option("--endpoint", help="Only for this endpoint.")
    @click.option("--dry-run", is_flag=True, help="Count only.")
    @click.option("--yes", is_flag=True, help="Do not ask.")
    def command(
        *,
        config_path: Path,
        since: datetime,
        until: datetime | None,
        room: str | None,
        event_type: str | None,
        endpoint: str | None,
        dry_run: bool,
        yes: bool,
    ) -> None:
        """Make events again from stored rooms and messages, and deliver those that the outbox does not know.

        For what was lost in a gap, and for a new endpoint that is to have what happened before it. Works while the relay runs
        and while it is stopped. Counts first, then asks.
        """
        config = load(config_path)
        if endpoint is not None and endpoint not in config.endpoints:
            raise click.BadParameter(f"no such endpoint; there are {', '.join(config.endpoints)}", param_hint="--endpoint")
        log.configure("error", "console")
        until = until or SystemClock().now()
        if since >= until:
            raise click.BadParameter("must be after --since", param_hint="--until")
        span = Span(since, _until_position(config, until), room)

        def go_through(what: str, *, add: bool) -> Counts:
            with progress(what) as report:
                chosen = None if event_type is None else EventType(event_type)
                return asyncio.run(backfill(config, span, endpoint=endpoint, event_type=chosen, add=add, report=report))

        counts = go_through("counting sessions", add=False)
        _print(counts)
        click.echo(f"Without a trace in stored data, so never here: {', '.join(WITHOUT_TRACE)}.", err=True)
        oldest = SystemClock().now() - config.outbox.keep_ids
        if span.since < oldest:
            kept = format_duration(config.outbox.keep_ids)
            click.echo(f"Ids are remembered for {kept}: what is older may have been delivered before.", err=True)
        missing = counts.missing.total()
        if dry_run or not missing:
            return
        if not yes:
            if not sys.stdin.isatty():
                raise click.UsageError("nobody can be asked here: add --yes to deliver them, or --dry-run to count only")
            click.confirm(f"Deliver {missing} events?", abort=True, err=True)
        added = go_through("adding sessions", add=True)
        click.echo(f"{added.missing.total()} added; a running relay delivers them now, marked as recovered")


def _until_position(config: Config, until: datetime) -> datetime:
    """What comes after the relay's position it will read itself, in order."""
    position = ops.position(config.outbox.path)
    if position is None or position.cluster_time >= until:
        return until
    click.echo(f"until {show_time(position.cluster_time)} UTC: from there on the relay reads by itself", err=True)
    return position.cluster_time


def _print(counts: Counts) -> None:
    rows = table("endpoint", "type", "found", "known", "missing")
    for (endpoint, event_type), found in sorted(counts.found.items()):
        missing = counts.missing[endpoint, event_type]
        rows.add_row(endpoint, event_type, str(found), str(found - missing), str(missing))
    if not counts.found:
        click.echo("nothing found in this span")
        return
    print_table(rows)
