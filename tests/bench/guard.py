"""Fails when the relay costs clearly more than it did: `make guard`, after the tests in CI.

Only ratios of processor time, bytes and counts, never seconds, so that a busy machine can be believed. `--write` makes what is
measured the new measure.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from rich.console import Console

from daemon.demo.mongod import EmbeddedMongod
from tests.bench import delivery, figures, reading
from tests.bench.figures import Figure
from tests.bench.ground import Ground

COMMITTED = Path(__file__).with_name("committed.json")
LEAST = 0.7  # of what is committed
TRIES = 3
_MESSAGES = 1500
_CHANGES = 20_000  # processor time is told in steps of 10 ms


async def measure() -> list[Figure]:
    """The guarded figures, once."""
    with tempfile.TemporaryDirectory(prefix="livechat-relay-guard-") as folder:
        async with EmbeddedMongod(oplog_mb=1000) as mongod:
            ground = Ground(mongod.uri, Path(folder), 1.0)
            return [*await delivery.cost(ground, _MESSAGES), await reading.noise(ground, _CHANGES)]


async def best_of(tries: int, once: Callable[[], Awaitable[list[Figure]]], committed: Mapping[str, float]) -> dict[str, Figure]:
    """The best value of each figure; no more tries than it takes until none is worse than it may be."""
    best: dict[str, Figure] = {}
    for _ in range(tries):
        for figure in await once():
            known = best.get(figure.name)
            best[figure.name] = figure if known is None or figure.worth(known.value) > 1 else known
        if committed and not worse(best, committed):
            break
    return best


def worse(best: Mapping[str, Figure], committed: Mapping[str, float]) -> list[str]:
    """What is not as it has to be, in words. A figure without its counterpart is a fault too."""
    found = [f"{name}: only on one side; run it with --write" for name in sorted(best.keys() ^ committed.keys())]
    for name in sorted(best.keys() & committed.keys()):
        figure, before = best[name], committed[name]
        worth = figure.worth(before)
        if worth < LEAST:
            found.append(
                f"{name}: {figure.value:.3g} {figure.unit}, was {before:.3g}: worth {worth:.2f}, at least {LEAST} is asked"
            )
    return found


def main() -> None:
    """Measure and compare. The exit code is 1 when a figure is worse."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help=f"write the best of {TRIES} tries to {COMMITTED.name}")
    write = parser.parse_args().write
    committed = {} if write else figures.read(COMMITTED)
    best = asyncio.run(best_of(TRIES, measure, committed))
    Console(width=None if sys.stdout.isatty() else 160).print(figures.table(best.values(), None if write else committed))
    if write:
        figures.write(best.values(), COMMITTED, load=f"{os.getloadavg()[0]:.1f}")
        return
    problems = worse(best, committed)
    for problem in problems:
        Console(stderr=True).print(problem, style="red", highlight=False)
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
