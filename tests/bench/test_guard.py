"""The guard fails when a figure is worse, and only then."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest

from tests.bench import figures, guard
from tests.bench.figures import Figure
from tests.bench.guard import COMMITTED, best_of, worse

_COMMITTED = {"cpu": 2.0, "rate": 0.6}


def _figures(cpu: float, rate: float) -> list[Figure]:
    return [Figure("cpu", "", cpu, "x post"), Figure("rate", "", rate, "of post", better="higher")]


def _turns(*turns: list[Figure]) -> tuple[Callable[[], Awaitable[list[Figure]]], list[int]]:
    asked: list[int] = []

    async def once() -> list[Figure]:
        asked.append(len(asked))
        return turns[len(asked) - 1]

    return once, asked


@pytest.mark.parametrize(
    ("cpu", "rate", "named"),
    [
        pytest.param(2.0, 0.6, [], id="the same"),
        pytest.param(1.0, 0.9, [], id="better"),
        pytest.param(2.8, 0.43, [], id="within bounds"),
        pytest.param(3.0, 0.6, ["cpu"], id="more processor time"),
        pytest.param(2.0, 0.41, ["rate"], id="fewer deliveries"),
    ],
)
def test_a_worse_figure_fails(cpu: float, rate: float, named: list[str]) -> None:
    problems = worse({figure.name: figure for figure in _figures(cpu, rate)}, _COMMITTED)
    assert [problem.partition(":")[0] for problem in problems] == named


async def test_the_best_try_of_each_figure_counts() -> None:
    once, asked = _turns(_figures(4.0, 0.6), _figures(2.1, 0.2), _figures(9.0, 0.1))
    best = await best_of(3, once, _COMMITTED)
    assert (best["cpu"].value, best["rate"].value) == (2.1, 0.6)
    assert not worse(best, _COMMITTED)
    assert len(asked) == 2, "no third try when nothing is worse"


async def test_what_is_worse_every_time_fails() -> None:
    once, asked = _turns(*[_figures(3.0, 0.6)] * 3)
    assert [problem.partition(":")[0] for problem in worse(await best_of(3, once, _COMMITTED), _COMMITTED)] == ["cpu"]
    assert len(asked) == 3


def test_a_figure_that_is_not_measured_any_more_fails() -> None:
    assert worse({"cpu": _figures(2.0, 0.6)[0]}, _COMMITTED)


@pytest.mark.parametrize(("cost", "code"), [(1.0, 0), (1.5, 1)])
def test_the_exit_code_tells(monkeypatch: pytest.MonkeyPatch, cost: float, code: int) -> None:
    async def measure() -> list[Figure]:
        return [Figure(name, "", value * cost, "") for name, value in figures.read(COMMITTED).items()]

    monkeypatch.setattr(guard, "measure", measure)
    monkeypatch.setattr("sys.argv", ["guard"])
    with pytest.raises(SystemExit) as ended:
        guard.main()
    assert ended.value.code == code
