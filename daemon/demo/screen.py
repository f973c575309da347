"""What the demo shows: a picture that changes in a terminal, a line every few seconds elsewhere, and the summary."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from daemon.demo.documents import Chat
from daemon.demo.ledger import Judgement, Ledger
from daemon.demo.receiver import Exchange

_LINE_EVERY_S = 3.0
_LIST_AT_MOST = 50
_STATES = {"new": "dim", "queued": "yellow", "served": "cyan", "closed": "green"}


@dataclass(frozen=True, slots=True)
class Moment:
    """All that is shown at one time."""

    doing: str
    elapsed_s: float
    seconds: float
    judgement: Judgement
    ledger: Ledger
    chats: Sequence[Chat]
    exchanges: Sequence[Exchange]


class Screen:
    """Shows moments. Use it inside `open`."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live: Live | None = None
        self._next_line_s = 0.0

    @contextmanager
    def open(self) -> Iterator[None]:
        """Take the terminal; give it back whatever happens."""
        if not self._console.is_terminal:
            yield
            return
        with Live(console=self._console, auto_refresh=False, transient=True) as live:
            self._live = live
            try:
                yield
            finally:
                self._live = None

    def show(self, moment: Moment) -> None:
        """Show this moment, or leave it out when it comes too soon after the last one."""
        if self._live is not None:
            self._live.update(_picture(moment, self._console.height), refresh=True)
        elif moment.elapsed_s >= self._next_line_s:
            self._next_line_s = moment.elapsed_s + _LINE_EVERY_S
            self._console.print(
                f"{moment.elapsed_s:4.0f} s  {moment.doing}: {_counters(moment.judgement)}", highlight=False, soft_wrap=True
            )


def print_summary(console: Console, judgement: Judgement, relay_exit: int | None, failures: Sequence[str]) -> bool:
    """Print what became of everything that was written; True when nothing is missing, out of order or broken."""
    table = Table(title="What became of it", show_header=False, title_justify="left", min_width=46)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("events written to MongoDB", str(judgement.written))
    table.add_row("delivered", str(judgement.delivered))
    table.add_row("needed more than one try", str(judgement.retried))
    table.add_row("requests the receiver failed on purpose", str(judgement.failed_requests))
    table.add_row("delivered more than once", _zero(judgement.duplicates, "yellow"))
    table.add_row("out of order within a session", _zero(len(judgement.out_of_order), "red"))
    table.add_row("[bold]lost[/]", _zero(len(judgement.missing), "bold red"))
    table.add_row("latency with all retries, median", _duration(judgement.latency_s(0.5)))
    table.add_row("latency with all retries, 99th percentile", _duration(judgement.latency_s(0.99)))
    console.print(table)
    if judgement.strangers:
        types = sorted({event_id.partition(":")[0] for event_id in judgement.strangers})
        console.print(f"Also delivered: {len(judgement.strangers)} events that this demo does not count ({', '.join(types)})")
    _list(console, "Never arrived:", judgement.missing)
    _list(console, "Arrived after a later event of the same session:", judgement.out_of_order)
    _list(console, "Could not be written to MongoDB:", failures)
    if relay_exit != 0:
        console.print(f"[red]The relay ended with exit code {relay_exit}, not 0.[/]")
    fine = not judgement.missing and not judgement.out_of_order and not failures and relay_exit == 0
    if fine and judgement.written:
        console.print("[green]Everything that was written arrived, in order within each session.[/]")
    elif fine:
        console.print("Nothing was written.")
    return fine


def _list(console: Console, title: str, items: Sequence[str]) -> None:
    if not items:
        return
    console.print(f"[red]{title}[/]")
    for item in items[:_LIST_AT_MOST]:
        console.print(f"  {escape(item)}", highlight=False, soft_wrap=True)
    if len(items) > _LIST_AT_MOST:
        console.print(f"  and {len(items) - _LIST_AT_MOST} more")


def _picture(moment: Moment, height: int) -> RenderableType:
    rows = max(3, (height - 9) // 2)  # the other lines are two titles, two heads, the first and the last
    head = Text.assemble((f"{moment.doing}", "bold"), (f"   {moment.elapsed_s:.0f} of about {moment.seconds:.0f} s", "dim"))
    return Group(head, _sessions(moment, rows), _events(moment, rows), Text(_counters(moment.judgement)))


def _sessions(moment: Moment, rows: int) -> Table:
    table = Table(title="Sessions in Rocket.Chat", title_justify="left", title_style="bold", expand=True, box=None)
    table.add_column("visitor", no_wrap=True, ratio=3, style="none")
    table.add_column("agent", no_wrap=True, ratio=2)
    table.add_column("state", no_wrap=True, ratio=2)
    table.add_column("arrived", no_wrap=True, justify="right", ratio=2)
    accepted = {exchange.event_id for exchange in moment.exchanges if exchange.accepted}
    unfinished = [chat for chat in moment.chats if not chat.closed]
    finished = [chat for chat in moment.chats if chat.closed]
    shown = [*finished[-max(1, rows - len(unfinished)) :], *unfinished][-rows:]
    for chat in shown:
        entries = moment.ledger.sessions.get(chat.rid, [])
        written = sum(entry.written_at is not None for entry in entries)
        arrived = sum(entry.id in accepted for entry in entries)
        state = "left open" if chat.left_open and chat.agent else chat.state
        table.add_row(
            Text(chat.name),
            Text(str(chat.agent["name"]) if chat.agent else "-", "" if chat.agent else "dim"),
            Text(state, _STATES[chat.state]),
            Text(f"{arrived} of {written}", "green" if arrived >= written else "yellow"),
        )
    for _ in range(rows - len(shown)):
        table.add_row("", "", "", "")
    return table


def _events(moment: Moment, rows: int) -> Table:
    table = Table(title="Requests at the receiver", title_justify="left", title_style="bold", expand=True, box=None)
    table.add_column("event", no_wrap=True, ratio=3)
    table.add_column("session", no_wrap=True, ratio=3)
    table.add_column("try", justify="right", no_wrap=True)
    table.add_column("answer", no_wrap=True, ratio=3)
    table.add_column("latency", justify="right", no_wrap=True, min_width=8)
    names = {chat.rid: chat.name for chat in moment.chats}
    shown = moment.exchanges[-rows:]
    for exchange in shown:
        entry = moment.ledger.entries.get(exchange.event_id)
        latency = ""
        if entry is not None and entry.written_at is not None and exchange.accepted:
            latency = _duration((exchange.at - entry.written_at).total_seconds())
        session = names.get(entry.session, "(offline form)") if entry else ""
        table.add_row(
            Text(exchange.event_id.partition(":")[0]),
            Text(session),
            Text(str(exchange.received.attempt), "yellow" if exchange.received.attempt > 1 else ""),
            _answer(exchange),
            Text(latency),
        )
    for _ in range(rows - len(shown)):
        table.add_row("", "", "", "", "")
    return table


def _answer(exchange: Exchange) -> Text:
    if exchange.status is None:
        return Text("closed the connection", "red")
    slow = f" after {exchange.delay_s:.1f} s" if exchange.delay_s else ""
    return Text(f"{exchange.status}{slow}", "green" if exchange.accepted else "red")


def _counters(judgement: Judgement) -> str:
    return (
        f"written {judgement.written}, delivered {judgement.delivered}, waiting {len(judgement.missing)}, "
        f"failed tries {judgement.failed_requests}, duplicates {judgement.duplicates}, "
        f"latency {_duration(judgement.latency_s(0.5))}, p99 {_duration(judgement.latency_s(0.99))}"
    )


def _zero(number: int, style: str) -> str:
    return "0" if number == 0 else f"[{style}]{number}[/]"


def _duration(seconds: float) -> str:
    return f"{max(0.0, seconds) * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"
