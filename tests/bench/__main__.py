"""What the relay costs on this machine: `make bench`, or `python -m tests.bench --only delivery --scale 0.1`."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from daemon.demo.mongod import EmbeddedMongod
from tests.bench import backlog, delivery, figures, isolation, reading, steady
from tests.bench.figures import Figure
from tests.bench.ground import Ground

FAMILIES: dict[str, Callable[[Ground], Awaitable[list[Figure]]]] = {
    "delivery": delivery.measure,
    "reading": reading.measure,
    "steady": steady.measure,
    "backlog": backlog.measure,
    "isolation": isolation.measure,
}
_LONG = ("isolation",)  # only when asked for


async def run(names: list[str], scale: float) -> list[Figure]:
    """The figures of these families."""
    found: list[Figure] = []
    with tempfile.TemporaryDirectory(prefix="livechat-relay-bench-") as folder:
        async with EmbeddedMongod(oplog_mb=4000) as mongod:
            ground = Ground(mongod.uri, Path(folder), scale)
            for name in names:
                began = time.monotonic()
                found += await FAMILIES[name](ground)
                took = time.monotonic() - began
                Console(stderr=True).print(f"{name}: {took:.0f} s, load {os.getloadavg()[0]:.1f}", highlight=False)
    return found


def main() -> None:
    """Measure and print. The exit code is 1 when a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=FAMILIES, help="these families; isolation comes only when it is named")
    parser.add_argument("--scale", type=float, default=1.0, help="how much is measured; below 1 it is quicker and less exact")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    parser.add_argument("--compare", type=Path, help="show the figures of this file beside them")
    arguments = parser.parse_args()
    before = None if arguments.compare is None else figures.read(arguments.compare)
    names = arguments.only or [name for name in FAMILIES if name not in _LONG]
    found = asyncio.run(run(names, arguments.scale))
    Console(width=None if sys.stdout.isatty() else 160).print(figures.table(found, before))
    if arguments.json is not None:
        about = {"at": datetime.now(UTC).isoformat(timespec="seconds"), "machine": platform.platform()}
        about |= {"python": platform.python_version(), "load": f"{os.getloadavg()[0]:.1f}", "scale": str(arguments.scale)}
        figures.write(found, arguments.json, **about)
    sys.exit(any(figure.ok is False for figure in found))


if __name__ == "__main__":
    main()
