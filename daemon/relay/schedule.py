"""What follows from an outcome. Pure: no clock is read, nothing is sent or stored.

attempt ──200──────────────────────────▶ delivered
   │  ▲
   │  └── wait ── failed, tries are left
   └───────────── failed, the last try ─▶ dead
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import assert_never

from daemon.model import Answered, Dead, Delivered, Outcome, RetryAt, TimedOut, Unreachable, Verdict


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The rule of Rocket.Chat's webhook guide by default: ten tries, ten seconds apart, on anything but 200."""

    tries: int = 10
    wait: timedelta = timedelta(seconds=10)


def decide(outcome: Outcome, *, failures: int, policy: RetryPolicy, now: datetime) -> Verdict:
    """The verdict on an outcome that came at `now`, after `failures` earlier tries with a failing outcome.

    Interrupted attempts are not failures: only an endpoint that failed `tries` times loses an event.
    """
    if isinstance(outcome, Answered) and outcome.status == HTTPStatus.OK:
        return Delivered()
    failed = failures + 1
    if failed >= policy.tries:
        return Dead(f"{failed} tries failed, the last one: {describe(outcome)}")
    return RetryAt(now + policy.wait)


def describe(outcome: Outcome) -> str:
    """An outcome in words."""
    match outcome:
        case Answered(status):
            return f"answered {status}"
        case TimedOut(duration):
            return f"no answer within {duration:.1f} s"
        case Unreachable(error):
            return error
        case _:
            assert_never(outcome)
