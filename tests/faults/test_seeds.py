"""A few runs of `make faults`, and what holds for the plans of all seeds."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from tests.faults.cluster import Cluster
from tests.faults.launcher import POINTS
from tests.faults.plan import KINDS, Fault, RunPlan, make_plan
from tests.faults.run import run_plan

# They share one replica set, on one worker.
on_one_worker = pytest.mark.xdist_group("faults")
in_one_loop = pytest.mark.asyncio(loop_scope="session")
COMMAND = "python -m tests.faults --seeds ..."


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def cluster() -> AsyncIterator[Cluster]:
    async with Cluster() as running:
        yield running


def short(seed: int, faults: tuple[Fault, ...]) -> RunPlan:
    """A plan with little traffic, for these faults."""
    plan = make_plan(seed, "relay_kill", 2.0)
    return replace(plan, traffic=replace(plan.traffic, sessions=3), faults=faults)


@on_one_worker
@in_one_loop
async def test_every_crash_point_is_reached_and_costs_nothing(cluster: Cluster, tmp_path: Path) -> None:
    """The relay is killed once at each of them; a point whose function has moved is never reached, and fails here."""
    faults = tuple(Fault(f"crash_{point}", 0.2, 0.0, 0.0) for point in POINTS)
    result = await run_plan(short(1, faults), cluster, tmp_path, COMMAND)
    assert result.fine, result.story
    assert result.hits == Counter(POINTS.keys())


@on_one_worker
@in_one_loop
@pytest.mark.parametrize(
    "kinds",
    [
        ("relay_kill", "mongodb_kill_primary", "receiver_accept_and_close", "clock_jump"),
        ("disk_full", "mongodb_link_cut", "receiver_down", "receiver_poison"),
    ],
    ids=" ".join,
)
async def test_faults_together(kinds: tuple[str, ...], cluster: Cluster, tmp_path: Path) -> None:
    faults = tuple(Fault(kind, 0.3 + number / 4, 1.0, 0.3) for number, kind in enumerate(kinds))
    plan = replace(short(2, faults), member=0 if "mongodb_link_cut" in kinds else None)
    result = await run_plan(plan, cluster, tmp_path, COMMAND)
    assert result.fine, result.story


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
