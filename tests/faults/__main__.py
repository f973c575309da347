"""`python -m tests.faults --seeds 1-200`: many seeds, one after the other, resumable."""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

from tests.faults.cluster import Cluster
from tests.faults.plan import KINDS, RunPlan, make_plan
from tests.faults.run import Result, run_plan


def _seeds(text: str) -> list[int]:
    """`7`, `1-200` or `1-10,42`."""
    seeds: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--seeds", type=_seeds, default="1-200", help="such as 1-200 or 7,9")
    parser.add_argument("--resume", type=Path, help="seeds that passed are noted in this file, and left out the next time")
    parser.add_argument(
        "--only", metavar="KIND", help=f"only faults whose kind begins so, several with commas: {', '.join(KINDS)}"
    )
    parser.add_argument("--seconds", type=float, default=5.0, help="how long traffic is written in a run")
    parser.add_argument("--keep", type=Path, help="where the artefacts of failed runs go")
    return parser.parse_args()


class Tally:
    """What was injected and what came of it, over all seeds."""

    def __init__(self) -> None:
        self.results: list[Result] = []

    def table(self) -> Table:
        """How often each kind of fault came up, and each crash point was hit."""
        injected = Counter(fault.kind for result in self.results for fault in result.plan.faults)
        failed = Counter(kind for result in self.results if not result.fine for kind in {f.kind for f in result.plan.faults})
        hits = sum((result.hits for result in self.results), Counter[str]())
        table = Table(Column("fault", no_wrap=True), "injected", "crash point hit", "in failed runs", title="Faults")
        for kind in KINDS:
            hit = str(hits[kind.removeprefix("crash_")]) if kind.startswith("crash_") else ""
            table.add_row(kind, str(injected[kind]), hit, str(failed[kind] or ""))
        return table

    def summary(self) -> str:
        """In one line."""
        verdicts = [result.verdict for result in self.results]
        failed = [str(result.plan.seed) for result in self.results if not result.fine]
        endings = sum((result.endings for result in self.results), Counter[str]())
        ended = ", ".join(f"{how} {count}" for how, count in sorted(endings.items()) if not how.startswith("crashed"))
        return (
            f"{len(self.results)} runs, {sum(result.events for result in self.results)} events; the relay was {ended}; "
            f"accepted again {sum(found.duplicates.at_a_kill for found in verdicts)} in flight at a kill and "
            f"{sum(found.duplicates.answer_lost for found in verdicts)} whose answer was lost; "
            f"{sum(found.dead for found in verdicts)} refused and dead; failed seeds: {', '.join(failed) or 'none'}"
        )


def _line(result: Result) -> str:
    duplicates = result.verdict.duplicates
    words = (
        f"seed {result.plan.seed:4} {'ok  ' if result.fine else 'FAIL'} {result.seconds:5.1f} s",
        f"(drained in {result.drained_s:.1f}) {result.events:4} events {len(result.plan.endpoints)} endpoints,",
        f"again {duplicates.at_a_kill}+{duplicates.answer_lost}, dead {result.verdict.dead}, uncertain {result.uncertain}:",
        *map(str, result.plan.faults),
    )
    return " ".join(words)


async def _run_all(seeds: list[int], arguments: argparse.Namespace, console: Console) -> int:
    tally = Tally()
    keep = arguments.keep or Path(tempfile.mkdtemp(prefix="livechat-relay-faults-kept-"))
    keep.mkdir(parents=True, exist_ok=True)
    only = f" --only {arguments.only}" if arguments.only else ""
    async with Cluster() as cluster:
        for seed in seeds:
            plan: RunPlan = make_plan(seed, arguments.only, arguments.seconds)
            again = f"python -m tests.faults --seeds {seed}{only} --seconds {arguments.seconds:g}"
            result = await run_plan(plan, cluster, keep, again)
            tally.results.append(result)
            console.print(_line(result), soft_wrap=True, highlight=False, markup=False)
            if not result.fine:
                console.print(result.story, soft_wrap=True, highlight=False, markup=False)
            elif arguments.resume:
                with arguments.resume.open("a", encoding="ascii") as file:
                    file.write(f"{seed}\n")
    console.print(tally.table())
    console.print(tally.summary(), soft_wrap=True, highlight=False, markup=False)
    return 0 if all(result.fine for result in tally.results) else 1


def main() -> int:
    """Run the seeds that did not pass yet."""
    arguments, console = _arguments(), Console()
    passed = set()
    if arguments.resume and arguments.resume.exists():
        passed = {int(line) for line in arguments.resume.read_text(encoding="ascii").split()}
    seeds = [seed for seed in arguments.seeds if seed not in passed]
    if passed:
        console.print(f"{len(arguments.seeds) - len(seeds)} seeds passed before ({arguments.resume}), {len(seeds)} are left.")
    return asyncio.run(_run_all(seeds, arguments, console)) if seeds else 0


if __name__ == "__main__":
    sys.exit(main())
