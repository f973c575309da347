"""What the commands share: tables that can be searched by line, times as people write them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from datetime import datetime
from typing import Any

import click
import orjson
from rich.console import Console
from rich.table import Table

from daemon import ops

_WIDTH = 240

Decorator = Callable[[Callable[..., None]], Callable[..., None]]
"""What adds options to a command."""


class Moment(click.ParamType[datetime]):
    """A time, or how long ago."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> datetime:
        """`2026-11-23T08:00:00Z`, or `2h` for two hours ago."""
        if isinstance(value, datetime):
            return value
        try:
            return ops.moment(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


def table(*columns: str) -> Table:
    """A table without lines around it."""
    result = Table(box=None, pad_edge=False)
    for column in columns:
        result.add_column(column, no_wrap=True)
    return result


def print_table(rows: Table) -> None:
    """One line a row, whatever the width: a narrow terminal wraps by itself, and `grep` finds whole lines."""
    Console(width=max(Console().width, _WIDTH)).print(rows, highlight=False, markup=False)


def print_json(value: Any) -> None:
    """One object on a line."""
    sys.stdout.buffer.write(orjson.dumps(value, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z))


def show_time(moment: datetime | None) -> str:
    """A time in UTC, to the second; empty for none."""
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")
