"""`livechat-relay deliveries`: what is owed, dead and delivered, for people and for machines."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from daemon import ops
from daemon.commands.progress import progress
from daemon.commands.tables import Decorator, Moment, print_json, print_table, show_time, table
from daemon.config.file import load
from daemon.config.root import Config
from daemon.model import EventType
from daemon.outbox import records
from daemon.outbox.records import CAN_BE_RETRIED, OWED, Filter, Record, State


def _filters(command: Callable[..., None]) -> Callable[..., None]:
    """The options that narrow."""
    for option in reversed(
        (
            click.argument("event_ids", nargs=-1),
            click.option("--endpoint", help="Of this endpoint."),
            click.option("--state", "states", multiple=True, type=click.Choice([s.value for s in State]), help="In this state."),
            click.option("--type", "event_type", type=click.Choice([t.value for t in EventType]), help="Of this event type."),
            click.option("--session", help="Of this session (room id)."),
            click.option(
                "--since", type=Moment(), help="That happened at or after this time (2026-11-23T08:00:00Z, or 2h for an age)."
            ),
            click.option("--until", type=Moment(), help="That happened before this time."),
        )
    ):
        command = option(command)
    return command


def _filter(
    config: Config, event_ids: tuple[str, ...], endpoint: str | None, states: tuple[str, ...], event_type: str | None, **rest: Any
) -> Filter:
    chosen = tuple(State(state) for state in states)
    return Filter(endpoint, chosen, event_type, event_ids=event_ids, configured=tuple(config.endpoints), **rest)


def add_commands(main: click.Group, config_option: Decorator) -> None:
    """Add the group to the command line."""

    @main.group()
    def deliveries() -> None:
        """What is owed, dead and delivered; works while the relay runs and while it is stopped."""

    @deliveries.command(name="list")
    @config_option
    @_filters
    @click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="At most so many.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
    def list_(config_path: Path, limit: int, as_json: bool, **options: Any) -> None:
        """List deliveries, oldest first."""
        config = load(config_path, read_secrets=False)
        wanted = _filter(config, **options)
        with ops.opened(config.outbox.path) as connection:
            found = list(records.select(connection, wanted, limit))
            total = records.count(connection, wanted)
        if as_json:
            for record in found:
                print_json(ops.as_json(record))
            return
        _print_records(found)
        if total > len(found):
            click.echo(f"{len(found)} of {total}; --limit shows more, filters show others")

    @deliveries.command()
    @config_option
    @click.argument("event_id")
    @click.option("--endpoint", help="Of this endpoint.")
    @click.option("--body", is_flag=True, help="With the payload: what visitors wrote.")
    @click.option("--json", "as_json", is_flag=True, help="One JSON object an endpoint.")
    def show(config_path: Path, event_id: str, endpoint: str | None, body: bool, as_json: bool) -> None:
        """Show one event, every attempt of it, and on demand its payload."""
        config = load(config_path, read_secrets=False)
        wanted = Filter(endpoint, event_ids=(event_id,), configured=tuple(config.endpoints))
        with ops.opened(config.outbox.path) as connection:
            found = [
                (record, records.attempts(connection, record), records.body(connection, record) if body else None)
                for record in records.select(connection, wanted)
            ]
        if not found:
            raise click.ClickException(f"no delivery of {event_id}; `livechat-relay deliveries list` shows the ids")
        for record, attempts, content in found:
            if as_json:
                print_json(ops.as_json(record, attempts, content))
                continue
            _print_records([record])
            _print_attempts(attempts)
            if content is not None:
                click.echo(content)

    @deliveries.command()
    @config_option
    @_filters
    def export(config_path: Path, **options: Any) -> None:
        """Print deliveries with attempts and payloads, one JSON object a line: what visitors wrote included."""
        config = load(config_path, read_secrets=False)
        wanted = _filter(config, **options)
        with ops.opened(config.outbox.path) as connection, progress("exporting deliveries") as report:
            total = records.count(connection, wanted)
            for done, record in enumerate(records.select(connection, wanted), start=1):
                print_json(ops.as_json(record, records.attempts(connection, record), records.body(connection, record)))
                report(done, total)

    _add_actions(deliveries, config_option)


def _add_actions(deliveries: click.Group, config_option: Decorator) -> None:
    @deliveries.command()
    @config_option
    @_filters
    def retry(config_path: Path, **options: Any) -> None:
        """Send dead or cancelled deliveries again, with a new round of tries; suspended ones now."""
        config = load(config_path, read_secrets=False)
        changed = ops.retry(config.outbox.path, _narrowed(_filter(config, **options), CAN_BE_RETRIED))
        click.echo(f"{changed.done} will be sent again; a running relay begins within seconds")
        _say_left(changed.left, "their payload is no longer kept, or they were changed meanwhile")

    @deliveries.command()
    @config_option
    @_filters
    @click.option("--reason", default="cancelled by hand", show_default=True, help="Kept with each of them.")
    def cancel(config_path: Path, reason: str, **options: Any) -> None:
        """Give up what is owed; `retry` takes it back."""
        config = load(config_path, read_secrets=False)
        changed = ops.cancel(config.outbox.path, _narrowed(_filter(config, **options), OWED), reason)
        click.echo(f"{changed.done} cancelled")
        _say_left(changed.left, "in flight at the moment, or settled meanwhile")

    @deliveries.command()
    @config_option
    @click.option("--from", "old", required=True, help="An endpoint that is no longer in the configuration.")
    @click.option("--to", "new", required=True, help="The endpoint that takes its place.")
    def move(config_path: Path, old: str, new: str) -> None:
        """Give what an endpoint is owed, and its history, to another: after it was renamed.

        Payloads that are composed already keep their shape.
        """
        config = load(config_path, read_secrets=False)
        if new not in config.endpoints:
            raise click.BadParameter(f"no such endpoint; there are {', '.join(config.endpoints)}", param_hint="--to")
        if old in config.endpoints:
            raise click.BadParameter(
                f"{old} is still in the configuration: take it out, let the relay take that up, then move", param_hint="--from"
            )
        with progress("moving deliveries") as report:
            moved, left = ops.move(config.outbox.path, old, new, report)
        click.echo(f"{moved} moved from {old} to {new}; a running relay sends what is owed within seconds")
        _say_left(left, f"{new} has them already, or they are in flight at the moment")


def _narrowed(wanted: Filter, states: tuple[State, ...]) -> Filter:
    """A filter that changes something must name something."""
    if not wanted.narrows:
        raise click.UsageError("name event ids, or narrow with an option such as --endpoint or --state")
    return wanted if wanted.states else replace(wanted, states=states)


def _say_left(left: int, why: str) -> None:
    if left:
        click.echo(f"{left} left as they are: {why}", err=True)


def _print_records(found: list[Record]) -> None:
    rows = table("endpoint", "state", "happened", "tries", "next try", "event", "reason")
    for record in found:
        next_try = show_time(record.next_try) if record.state in OWED else ""
        cells = (
            record.state.value,
            show_time(record.happened_at),
            str(record.attempts),
            next_try,
            record.event_id,
            record.reason or "",
        )
        rows.add_row(record.endpoint, *cells)
    print_table(rows)


def _print_attempts(attempts: list[records.AttemptRecord]) -> None:
    rows = table("try", "started", "seconds", "outcome", "answer")
    for attempt in attempts:
        outcome = f"{attempt.outcome or 'in flight'} {attempt.status or ''}".strip()
        answer = attempt.error or (attempt.answer or b"").decode("utf-8", "replace")[:200]
        duration = "" if attempt.duration_s is None else f"{attempt.duration_s:.3f}"
        rows.add_row(str(attempt.number), show_time(attempt.started_at), duration, outcome, answer)
    print_table(rows)
