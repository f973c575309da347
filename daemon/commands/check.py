"""`livechat-relay check`: what is as it should be and what is not, for people and for machines."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click
import orjson
from rich.console import Console
from rich.table import Table
from rich.text import Text

from daemon import log
from daemon.check.findings import Finding, Status, worst
from daemon.check.run import run_checks
from daemon.clock import SystemClock
from daemon.commands.tables import Decorator
from daemon.config.file import load

_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.FAILURE: "bold red"}


def add_commands(main: click.Group, config_option: Decorator) -> None:
    """Add the command to the command line."""

    @main.command()
    @config_option
    @click.option("--json", "as_json", is_flag=True, help="One JSON object: status, and findings.")
    def check(config_path: Path, as_json: bool) -> None:
        """Look at everything that can be known before running, or while the relay runs: configuration, MongoDB, rights,
        Rocket.Chat's settings, endpoints, the outbox.

        Exit code 0 without failures, 1 with any, 2 when the configuration cannot be loaded. Nothing is sent or changed.
        """
        log.configure("error", "console")
        config = load(config_path)
        findings = asyncio.run(run_checks(config, config_path, SystemClock()))
        if as_json:
            found = {"status": worst(findings), "findings": findings}
            sys.stdout.buffer.write(orjson.dumps(found, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_INDENT_2))
        else:
            print_table(findings)
        sys.exit(1 if worst(findings) is Status.FAILURE else 0)


def print_table(findings: list[Finding]) -> None:
    """As wide as the terminal; the worst is counted first."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("status", no_wrap=True)
    table.add_column("check", overflow="fold", max_width=28)
    table.add_column("found, and what to do", overflow="fold", ratio=1)
    for finding in findings:
        label = finding.check if finding.subject is None else f"{finding.check} {finding.subject}"
        text = Text(finding.found)
        if finding.remedy is not None:
            text.append(f"\n→ {finding.remedy}", style="italic")
        table.add_row(Text(finding.status, style=_COLOURS[finding.status]), Text(label), text)
    console = Console()
    console.print(table, highlight=False)
    counts = [(sum(finding.status is status for finding in findings), status) for status in reversed(Status)]
    console.print(", ".join(f"{count} {status}" for count, status in counts if count), highlight=False)
