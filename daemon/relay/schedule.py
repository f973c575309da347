"""What follows from an outcome. Pure: no clock is read, nothing is sent or stored.

attempt ──success───────────────────────────────────▶ delivered
   │  ▲
   │  ├── wait ── failed, tries are left
   │  └── endpoint is up again, a new round ── suspended
   │                                            ▲
   ├── the last try failed, the endpoint is down ┘
   └── the last try failed, or a final answer ───────▶ dead
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import assert_never

from daemon.model import Answered, Broken, Dead, Delivered, Delivery, Outcome, RetryAt, Suspended, TimedOut, Unreachable, Verdict

_LONGEST_RETRY_AFTER = timedelta(hours=1)
_OUTAGE_STATUSES = (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_EARLY, HTTPStatus.TOO_MANY_REQUESTS)


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The rule of Rocket.Chat's webhook guide by default: ten tries, ten seconds apart, on anything but 200.

    `outage` says whether an endpoint can be down; without it an event that used up its tries is always dead.
    """

    tries: int = 10
    waits: Sequence[timedelta] = (timedelta(seconds=10),)
    jitter: float = 0.0
    any_2xx: bool = False
    final: frozenset[int] = frozenset()
    honour_retry_after: bool = False
    max_age: timedelta = timedelta(days=3)
    outage: bool = True

    @property
    def longest_wait(self) -> timedelta:
        """No try is ever due later than so long from now."""
        longest = max(self.waits) * (1 + self.jitter)
        return max(longest, _LONGEST_RETRY_AFTER) if self.honour_retry_after else longest


def decide(
    outcome: Outcome,
    delivery: Delivery,
    policy: RetryPolicy,
    *,
    now: datetime,
    last_success_at: datetime | None,
    chance: float = 0.0,
) -> Verdict:
    """The verdict on the outcome of `delivery` that came at `now`.

    `last_success_at` is when the endpoint last took anything; `chance` (0 to 1) decides how much of the jitter is used.
    Interrupted attempts are not failures: only an endpoint that failed `tries` times in a round loses an event.
    """
    if _succeeded(outcome, policy):
        return Delivered()
    if isinstance(outcome, Answered) and outcome.status in policy.final:
        return Dead(f"answered {outcome.status}, which is final")
    if isinstance(outcome, Broken) and not outcome.counts:
        return RetryAt(now + policy.waits[0])
    if now - delivery.recorded_at > policy.max_age:
        return Dead(f"older than max_age, the last try: {describe(outcome)}")
    if delivery.probe:
        return Suspended(f"the endpoint is down: {describe(outcome)}")
    failed = delivery.failures + 1
    if failed < policy.tries:
        return RetryAt(now + _wait(outcome, policy, failed, now, chance))
    # A success later than now is one before the clock was set back: when it was cannot be told, and waiting loses nothing.
    nothing_since = last_success_at is None or not delivery.round_at <= last_success_at <= now
    if policy.outage and nothing_since and is_outage(outcome):
        return Suspended(f"{failed} tries failed, the last one: {describe(outcome)}")
    return Dead(f"{failed} tries failed, the last one: {describe(outcome)}")


def is_outage(outcome: Outcome) -> bool:
    """Whether an endpoint that is down would fail so: no answer, 5xx, 408, 425, 429."""
    match outcome:
        case Answered(status):
            return status >= HTTPStatus.INTERNAL_SERVER_ERROR or status in _OUTAGE_STATUSES
        case TimedOut() | Unreachable():
            return True
        case Broken():
            return False
        case _:
            assert_never(outcome)


def describe(outcome: Outcome) -> str:
    """An outcome in words."""
    match outcome:
        case Answered(status):
            return f"answered {status}"
        case TimedOut(duration):
            return f"no answer within {duration:.1f} s"
        case Unreachable(error) | Broken(error):
            return error
        case _:
            assert_never(outcome)


def _succeeded(outcome: Outcome, policy: RetryPolicy) -> bool:
    if not isinstance(outcome, Answered):
        return False
    return outcome.status == HTTPStatus.OK or (policy.any_2xx and 200 <= outcome.status < 300)


def _wait(outcome: Outcome, policy: RetryPolicy, failed: int, now: datetime, chance: float) -> timedelta:
    wait = policy.waits[min(failed, len(policy.waits)) - 1]
    wait += wait * policy.jitter * chance
    if policy.honour_retry_after and isinstance(outcome, Answered) and outcome.retry_after is not None:
        wait = max(wait, min(_retry_after(outcome.retry_after, now), _LONGEST_RETRY_AFTER))
    return wait


def _retry_after(text: str, now: datetime) -> timedelta:
    """Seconds, or a date; nothing for what is neither."""
    if text.strip().isascii() and text.strip().isdigit():
        return timedelta(seconds=min(int(text.strip()[:9]), 10**6))
    try:
        until = parsedate_to_datetime(text)
        return max(timedelta(0), until - now) if until.tzinfo is not None else timedelta(0)
    except (ValueError, TypeError):
        return timedelta(0)
