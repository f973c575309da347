"""How far long work is, on standard error: a bar with rate and time left on a terminal, plain lines otherwise."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.text import Text

from daemon.clock import SystemClock

_LINE_EVERY_S = 10.0

Report = Callable[[int, int], None]


class _Rate(ProgressColumn):
    """How many a second."""

    def render(self, task: Task) -> Text:
        return Text("" if not task.speed else f"{task.speed:,.0f}/s")


@contextmanager
def progress(what: str) -> Iterator[Report]:
    """Gives the function to call with how many are done, and of how many."""
    if sys.stderr.isatty():
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            task = bar.add_task(what, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
        return
    clock = SystemClock()
    said_at = started = clock.monotonic()

    def say(done: int, total: int) -> None:
        nonlocal said_at
        now = clock.monotonic()
        if now - said_at >= _LINE_EVERY_S:
            said_at = now
            click.echo(f"{what}: {done} of {total}, {done / (now - started):,.0f}/s", err=True)

    yield say
