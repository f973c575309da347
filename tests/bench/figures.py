"""What the bench found: figures with their targets, as a table and as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from rich.table import Table


@dataclass(frozen=True, slots=True)
class Figure:
    """One figure. `unit` names the floor where it is a ratio; without a `target` it is only stated.

    `better` says in which direction it improves, `detail` what it was made of.
    """

    name: str
    what: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    detail: str = ""

    @property
    def ok(self) -> bool | None:
        """Whether the target is met; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target

    def worth(self, before: float) -> float:
        """How good it is compared with `before`: 1 as good, 0.5 half as good."""
        good, bad = (before, self.value) if self.better == "lower" else (self.value, before)
        return good / bad if bad > 0 else 1.0  # nothing is not worse than nothing


def table(figures: Iterable[Figure], before: Mapping[str, float] | None = None) -> Table:
    """All figures; with the values of another run beside them when they are given."""
    columns = ["figure", "value", "target", "", *(["before", "worth"] if before is not None else []), "made of"]
    found = Table(*columns, title="livechat-relay: what it costs, compared with floors measured in the same run")
    for figure in figures:
        sign = "at most" if figure.better == "lower" else "at least"
        target = "stated" if figure.target is None else f"{sign} {figure.target:g}"
        verdict = {None: "", True: "ok", False: "missed"}[figure.ok]
        row = [figure.what, f"{_number(figure.value)} {figure.unit}", target, verdict]
        if before is not None:
            old = before.get(figure.name)
            row += ["-", "-"] if old is None else [_number(old), f"{figure.worth(old):.2f}"]
        found.add_row(*row, figure.detail)
    return found


def write(figures: Iterable[Figure], path: Path, **about: object) -> None:
    """As JSON, by name."""
    content = {**about, "figures": {figure.name: {**asdict(figure), "ok": figure.ok} for figure in figures}}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> dict[str, float]:
    """The values of a run that was written."""
    found = json.loads(path.read_text(encoding="utf-8"))["figures"]
    return {name: float(figure["value"]) for name, figure in found.items()}


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
