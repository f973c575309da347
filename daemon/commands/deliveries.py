"""`livechat-relay deliveries`: what is owed, dead and delivered, for people and for machines."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from daemon import ops
from daemon.clock import SystemClock
from daemon.config.file import load
from daemon.config.types import parse_duration
from daemon.model import EventType
from daemon.outbox import records
from daemon.outbox.records import CAN_BE_RETRIED, OWED, Filter, Record, State

_WIDTH = 240


class _Time(click.ParamType[datetime]):
    """A time, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """`2026-11-23T08:00:00Z`, or `2h` for two hours ago."""
        try:
            return SystemClock().now() - parse_duration(str(value))
        except ValueError:
            pass
        try:
            moment = datetime.fromisoformat(str(value))
        except ValueError:
            self.fail(f"{value!r} is neither a time such as 2026-11-23T08:00:00Z nor an age such as 2h", param, ctx)
        return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


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
                "--since", type=_Time(), help="That happened at or after this time (2026-11-23T08:00:00Z, or 2h for an age)."
            ),
            click.option("--until", type=_Time(), help="That happened before this time."),
        )
    ):
        command = option(command)
    return command


def _filter(
    event_ids: tuple[str, ...], endpoint: str | None, states: tuple[str, ...], event_type: str | None, **rest: Any
) -> Filter:
    return Filter(endpoint, tuple(State(state) for state in states), event_type, event_ids=event_ids, **rest)


def _outbox(config_path: Path) -> Path:
    return load(config_path, files=False).outbox.path  # whoever looks need not be able to read the secrets


def add_commands(main: click.Group, config_option: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
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
        wanted = _filter(**options)
        with ops.opened(_outbox(config_path)) as connection:
            found = list(records.select(connection, wanted, limit))
            total = records.count(connection, wanted)
        if as_json:
            for record in found:
                _print_json(ops.as_json(record))
            return
        _print_table(found)
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
        with ops.opened(_outbox(config_path)) as connection:
            found = [
                (record, records.attempts(connection, record), records.body(connection, record) if body else None)
                for record in records.select(connection, Filter(endpoint, event_ids=(event_id,)))
            ]
        if not found:
            raise click.ClickException(f"no delivery of {event_id}; `livechat-relay deliveries list` shows the ids")
        for record, attempts, content in found:
            if as_json:
                _print_json(ops.as_json(record, attempts, content))
                continue
            _print_table([record])
            _print_attempts(attempts)
            if content is not None:
                click.echo(content)

    @deliveries.command()
    @config_option
    @_filters
    def retry(config_path: Path, **options: Any) -> None:
        """Send dead or cancelled deliveries again, with a new round of tries; suspended ones now."""
        done, left = ops.retry(_outbox(config_path), _narrowed(_filter(**options), CAN_BE_RETRIED))
        click.echo(f"{done} will be sent again; a running relay begins within seconds")
        _say_left(left, "their payload is no longer kept, or they were changed meanwhile")

    @deliveries.command()
    @config_option
    @_filters
    @click.option("--reason", default="cancelled by hand", show_default=True, help="Kept with each of them.")
    def cancel(config_path: Path, reason: str, **options: Any) -> None:
        """Give up what is owed; `retry` takes it back."""
        done, left = ops.cancel(_outbox(config_path), _narrowed(_filter(**options), OWED), reason)
        click.echo(f"{done} cancelled")
        _say_left(left, "in flight at the moment, or settled meanwhile")

    @deliveries.command()
    @config_option
    @_filters
    def export(config_path: Path, **options: Any) -> None:
        """Print deliveries with attempts and payloads, one JSON object a line: what visitors wrote included."""
        with ops.opened(_outbox(config_path)) as connection:
            for record in records.select(connection, _filter(**options)):
                _print_json(ops.as_json(record, records.attempts(connection, record), records.body(connection, record)))


def _narrowed(wanted: Filter, states: tuple[State, ...]) -> Filter:
    """A filter that changes something must name something."""
    if wanted == Filter():
        raise click.UsageError("name event ids, or narrow with an option such as --endpoint or --state")
    return wanted if wanted.states else replace(wanted, states=states)


def _say_left(left: int, why: str) -> None:
    if left:
        click.echo(f"{left} left as they are: {why}", err=True)


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))


def _print_table(found: list[Record]) -> None:
    table = _table("endpoint", "state", "happened", "tries", "next try", "event", "reason")
    for record in found:
        next_try = _time(record.next_try) if record.state in OWED else ""
        cells = (
            record.state.value,
            _time(record.happened_at),
            str(record.attempts),
            next_try,
            record.event_id,
            record.reason or "",
        )
        table.add_row(record.endpoint, *cells)
    _print(table)


def _print_attempts(attempts: list[records.AttemptRecord]) -> None:
    table = _table("try", "started", "seconds", "outcome", "answer")
    for attempt in attempts:
        outcome = f"{attempt.outcome or 'in flight'} {attempt.status or ''}".strip()
        answer = attempt.error or (attempt.answer or b"").decode("utf-8", "replace")[:200]
        duration = "" if attempt.duration_s is None else f"{attempt.duration_s:.3f}"
        table.add_row(str(attempt.number), _time(attempt.started_at), duration, outcome, answer)
    _print(table)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _print(table: Table) -> None:
    """One line a row, whatever the width: a narrow terminal wraps by itself, and `grep` finds whole lines."""
    Console(width=max(Console().width, _WIDTH)).print(table, highlight=False, markup=False)


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")
