"""What happens in a run, as plain data, decided by its seed alone."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from daemon.demo.plan import Traffic
from tests.faults.evidence import Rules
from tests.faults.launcher import POINTS

# Each kind of fault, and for how many seconds it lasts.
KINDS: dict[str, tuple[float, float]] = {
    "relay_kill": (0.0, 0.8),
    "relay_freeze": (0.3, 3.0),
    "relay_terminate": (0.0, 0.5),
    **{f"crash_{point}": (0.0, 0.3) for point in POINTS},
    "disk_full": (0.5, 1.5),
    "clock_jump": (0.5, 3.0),
    "mongodb_step_down": (1.0, 2.0),
    "mongodb_kill_primary": (0.2, 2.0),
    "mongodb_kill_secondary": (0.2, 2.0),
    "mongodb_restart_all": (0.0, 0.5),
    "mongodb_freeze": (0.5, 2.5),
    "mongodb_link_cut": (0.0, 1.0),
    "mongodb_link_stall": (0.5, 2.5),
    "mongodb_link_delay": (0.5, 2.5),
    "receiver_link_cut": (0.0, 1.0),
    "receiver_link_stall": (0.3, 2.5),
    "receiver_link_delay": (0.5, 2.5),
    "receiver_error": (0.3, 3.0),
    "receiver_busy": (0.3, 3.0),
    "receiver_hang": (0.3, 2.0),
    "receiver_forget": (0.3, 2.0),
    "receiver_close": (0.3, 2.0),
    "receiver_accept_and_close": (0.3, 2.0),
    "receiver_half_head": (0.3, 2.0),
    "receiver_half_body": (0.3, 2.0),
    "receiver_garbage": (0.3, 2.0),
    "receiver_slow": (0.5, 3.0),
    "receiver_down": (0.5, 3.0),
    "receiver_poison": (2.0, 4.0),
}
TIMEOUT_S = 1.0
WRITING_S = 5.0
# Faults of a family wait for each other: there is one process of the relay, and two members away are no majority.
_FAMILIES = {
    "relay": ("relay_", "crash_", "disk_"),
    "members": ("mongodb_step", "mongodb_kill", "mongodb_restart", "mongodb_freeze"),
}
_MOST_OF_A_FAMILY = 2


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault: when it begins, how long it lasts, and a number from 0 to 1 for what else is to be chosen."""

    kind: str
    at_s: float
    for_s: float
    pick: float

    def __str__(self) -> str:
        return f"{self.kind}@{self.at_s:.1f}"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A receiver's configuration. Only those that are `faulty` fail."""

    name: str
    faulty: bool
    profile: str
    crm_data: str
    tries: int
    wait_ms: int
    probe_ms: int
    concurrency: int
    honour_retry_after: bool

    @property
    def rules(self) -> Rules:
        """What the checker goes by."""
        return Rules(self.tries, self.concurrency, TIMEOUT_S, (410,))

    def section(self, url: str, token: str) -> dict[str, Any]:
        """Its part of the configuration."""
        return {
            "url": url,
            "secret_token": token,
            "profile": self.profile,
            "crm_data": self.crm_data,
            "timeout": f"{TIMEOUT_S}s",
            "concurrency": self.concurrency,
            "retry": {
                "tries": self.tries,
                "wait": f"{self.wait_ms}ms",
                "outage_probe": f"{self.probe_ms}ms",
                "honour_retry_after": self.honour_retry_after,
                "final": [410],
            },
        }


@dataclass(frozen=True, slots=True)
class RunPlan:
    """A run. `member`: the relay reads one member directly, through a proxy; None: the whole replica set."""

    seed: int
    traffic: Traffic
    endpoints: tuple[Endpoint, ...]
    faults: tuple[Fault, ...]
    member: int | None
    restart_at_end: bool


def make_plan(seed: int, only: str | None = None, seconds: float = WRITING_S) -> RunPlan:
    """The plan of a seed; `only` narrows its faults to kinds that begin so (several: with commas), `seconds` is how long traffic
    is written.
    """
    chance = random.Random(repr(("faults", seed)))  # noqa: S311 - repeatable
    kinds = [kind for kind in KINDS if kind.startswith(tuple((only or "").split(",")))]
    if not kinds:
        raise ValueError(f"no kind of fault begins with {only!r}; there are {', '.join(KINDS)}")
    faults = _faults(chance, kinds, seconds)
    links = any(fault.kind.startswith("mongodb_link") for fault in faults)
    return RunPlan(
        seed=seed,
        traffic=_traffic(chance, seed, seconds),
        endpoints=_endpoints(chance),
        faults=faults,
        member=chance.randrange(3) if links else None,
        restart_at_end=chance.random() < 0.3,
    )


def _traffic(chance: random.Random, seed: int, seconds: float) -> Traffic:
    return Traffic(
        sessions=chance.randint(4, 10),
        seconds=seconds,
        session_seconds=(0.3 * seconds, 0.8 * seconds),
        messages=(2, 5),
        offline=chance.randint(1, 3),
        noise=3,
        left_open_every=chance.choice((0, 4)),
        seed=seed,
    )


def _endpoints(chance: random.Random) -> tuple[Endpoint, ...]:
    names = ["crm", "archive"][: chance.choice((1, 2))]
    return tuple(
        Endpoint(
            name=name,
            faulty=name == "crm",
            profile=chance.choice(("guide", "native")),
            crm_data=chance.choice(("off", "off", "text")),
            tries=chance.randint(3, 10),
            wait_ms=chance.choice((60, 150, 300)),
            probe_ms=chance.choice((100, 300)),
            concurrency=chance.choice((2, 8, 32)),
            honour_retry_after=chance.random() < 0.5,
        )
        for name in names
    )


def _faults(chance: random.Random, kinds: Sequence[str], seconds: float) -> tuple[Fault, ...]:
    """Different kinds where there are enough, one of them an end of the process; at most two of those that wait for each other,
    so that no run takes long.
    """
    count = chance.randint(2, 6)
    shuffled = chance.sample(kinds, len(kinds))
    ending = next((kind for kind in shuffled if kind.startswith(_FAMILIES["relay"])), None)
    shuffled.sort(key=lambda kind: kind != ending)
    chosen: list[str] = []
    waiting: Counter[str] = Counter()
    for kind in shuffled if len(shuffled) > 1 else shuffled * 2:
        family = next((family for family, prefixes in _FAMILIES.items() if kind.startswith(prefixes)), kind)
        if len(chosen) < count and waiting[family] < _MOST_OF_A_FAMILY:
            waiting[family] += 1
            chosen.append(kind)
    faults = []
    for kind in chosen:
        shortest, longest = KINDS[kind]
        faults.append(Fault(kind, chance.uniform(0.2, 0.9 * seconds), chance.uniform(shortest, longest), chance.random()))
    return tuple(sorted(faults, key=lambda fault: fault.at_s))
