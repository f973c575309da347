"""A few runs of `make faults`, and what holds for the plans of all seeds."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults.cluster import Cluster
from tests.faults.launcher import POINTS
from tests.faults.plan import KINDS, Fault, RunPlan, make_plan
from tests.faults.run import run_plan

TOGETHER = (
    ("relay_kill", "mongodb_kill_primary", "receiver_accept_and_close", "clock_jump"),
    ("disk_full", "mongodb_link_cut", "receiver_down", "receiver_poison"),
)


def short(seed: int, faults: tuple[Fault, ...]) -> RunPlan:
    """A plan with little traffic, for these faults."""
    plan = make_plan(seed, "relay_kill", 2.0)
    return replace(plan, traffic=replace(plan.traffic, sessions=3), faults=faults)


async def test_faults_cost_nothing(tmp_path: Path) -> None:
    """The relay is killed once at each crash point, then two mixtures of faults. One test, for one replica set on one worker.

    A crash point whose function has moved is never reached, and fails here.
    """
    plans = [short(1, tuple(Fault(f"crash_{point}", 0.2, 0.0, 0.0) for point in POINTS))]
    for kinds in TOGETHER:
        faults = tuple(Fault(kind, 0.3 + number / 4, 1.0, 0.3) for number, kind in enumerate(kinds))
        plans.append(replace(short(2, faults), member=0 if "mongodb_link_cut" in kinds else None))
    hits = Counter[str]()
    async with Cluster() as cluster:
        for plan in plans:
            result = await run_plan(plan, cluster, tmp_path, "pytest tests/faults/test_seeds.py")
            assert result.fine, result.story
            hits += result.hits
    assert hits == Counter(POINTS.keys())


def test_every_kind_of_fault_comes_up_often() -> None:
    plans = [make_plan(seed) for seed in range(1, 201)]
    often = Counter(fault.kind for plan in plans for fault in plan.faults)
    assert set(often) == set(KINDS)
    assert min(often.values()) >= 10, often
    assert {len(plan.faults) for plan in plans} == {2, 3, 4, 5, 6}
    assert {len(plan.endpoints) for plan in plans} == {1, 2}


def test_a_seed_gives_the_same_plan_again() -> None:
    assert make_plan(7) == make_plan(7) != make_plan(8)


def test_only_narrows_the_kinds() -> None:
    assert {fault.kind for fault in make_plan(3, "disk").faults} == {"disk_full"}
    with pytest.raises(ValueError, match="no kind of fault begins with 'typo'"):
        make_plan(3, "typo")
