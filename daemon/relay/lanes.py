"""The lanes of one endpoint: claim what is due, one coroutine per event in flight, settle what came of it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from daemon.clock import Clock, wait_until_set
from daemon.errors import DaemonError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import (
    Answered,
    Broken,
    Dead,
    Delivered,
    Delivery,
    EndpointState,
    Outcome,
    Recorded,
    RetryAt,
    Suspended,
    TimedOut,
    Unreachable,
    Verdict,
)
from daemon.relay.answer import AnswerMode, answer_to_keep
from daemon.relay.schedule import RetryPolicy, decide, describe

_LONGEST_POLL_S = 5.0
_EXPIRE_EVERY_S = 60.0

log = get_logger("relay")


class Outbox(Protocol):
    """What the relay needs of the outbox."""

    async def endpoint_state(self, endpoint: str) -> EndpointState:
        """Whether an endpoint is down, and when it last took anything."""

    async def claim(self, endpoint: str, limit: int, retries: int) -> tuple[list[Delivery], datetime | None]:
        """Due deliveries, each with its attempt counted, and when the next one is due."""

    async def claim_probe(self, endpoint: str) -> tuple[list[Delivery], datetime | None]:
        """The same for an endpoint that is down: one delivery at most."""

    def settle(self, delivery: Delivery, recorded: Recorded) -> Awaitable[None]:
        """Keep what came of an attempt and what follows from it."""

    async def end_outage(self, endpoint: str) -> None:
        """The endpoint counts as up."""

    async def mend_times(self, endpoint: str, longest_wait_s: float, probe_every_s: float) -> int:
        """Make due what waits longer than any wait is."""

    async def expire(self, endpoint: str, max_age_s: float) -> int:
        """Give up what waited too long for an endpoint that is down."""


Post = Callable[[Delivery], Awaitable[Outcome]]


class Lanes:
    """Delivers to one endpoint until told to stop.

    Sessions are independent of each other, each has one request in flight at most. Of the `concurrency` slots a quarter is
    kept for events that failed before, and never more while fresh ones wait, so that neither starves the other.
    """

    def __init__(
        self,
        endpoint: str,
        *,
        concurrency: int,
        policy: RetryPolicy,
        probe_every: timedelta,
        outbox: Outbox,
        post: Post,
        clock: Clock,
        metrics: Metrics,
        answer_mode: AnswerMode = "off",
    ) -> None:
        self._endpoint = endpoint
        self._concurrency = concurrency
        self._policy = policy
        self._probe_every_s = probe_every.total_seconds()
        self._state = EndpointState(None, None)
        self._state_read_at = float("-inf")
        self._expired_at = clock.monotonic()
        self._answer_mode = answer_mode
        self._outbox = outbox
        self._post = post
        self._clock = clock
        self._metrics = metrics
        self._wake = asyncio.Event()
        self._stopping = False
        self._in_flight = 0
        self._retries_in_flight = 0
        self._most_retries = max(1, concurrency // 4)
        self._retried_last = False
        self._failed_probes = 0
        self.turned_at = clock.monotonic()
        metrics.expect_endpoint(endpoint)
        self._requests = metrics.in_flight.labels(endpoint)
        self._up = metrics.endpoint_up.labels(endpoint)
        self._latency = metrics.latency.labels(endpoint)
        self._request_duration = metrics.request_duration.labels(endpoint)

    @property
    def down_since(self) -> datetime | None:
        """Since when the endpoint is down; None: it is up."""
        return self._state.down_since

    def wake(self) -> None:
        """There may be something to do. A hint: without it the next poll finds it."""
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight is settled."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `stop`. Cancelling it leaves the requests in flight to be sent again after the next start."""
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping:
                self.turned_at = self._clock.monotonic()
                self._wake.clear()
                due = await self._claim(tasks)
                await wait_until_set(self._wake, self._pause_s(due))

    async def _claim(self, tasks: asyncio.TaskGroup) -> datetime | None:
        """Begin what is due and has a slot; gives when the next one is due."""
        await self._read_state()
        if self._state.down_since is not None:
            return await self._claim_probe(tasks)
        free = self._concurrency - self._in_flight
        if not free:
            return None
        retries = max(0, self._most_retries - self._retries_in_flight)
        # Where retries could take every free slot they take turns with fresh events.
        if retries >= free and self._retried_last:
            claimed, due = await self._outbox.claim(self._endpoint, free, 0)
            if not claimed:
                claimed, due = await self._outbox.claim(self._endpoint, free, retries)
        else:
            claimed, due = await self._outbox.claim(self._endpoint, free, retries)
        if claimed:
            self._retried_last = any(delivery.failures for delivery in claimed)
        self._begin(claimed, tasks)
        return due

    async def _claim_probe(self, tasks: asyncio.TaskGroup) -> datetime | None:
        """While the endpoint is down one request at a time finds out whether it is back; no event loses tries."""
        now = self._clock.monotonic()
        if now - self._expired_at >= _EXPIRE_EVERY_S:
            self._expired_at = now
            expired = await self._outbox.expire(self._endpoint, self._policy.max_age.total_seconds())
            if expired:
                self._metrics.dead_letters.labels(self._endpoint).inc(expired)
                log.error("delivery.expired", endpoint=self._endpoint, count=expired, reason="older than max_age")
        if self._in_flight:
            return None
        claimed, due = await self._outbox.claim_probe(self._endpoint)
        self._begin(claimed, tasks)
        return due

    async def _read_state(self) -> None:
        """The state is kept in the outbox, where an operator can end an outage too; in between, this object knows its own
        changes.
        """
        now = self._clock.monotonic()
        if now - self._state_read_at >= _LONGEST_POLL_S:
            first, self._state_read_at = self._state_read_at < 0, now
            longest_s = self._policy.longest_wait.total_seconds()
            mended = await self._outbox.mend_times(self._endpoint, longest_s, self._probe_every_s)
            if mended and not first:  # at first it can be that the configuration has shorter waits now
                log.warning("relay.clock_set_back", endpoint=self._endpoint, sessions=mended, note="they are tried now")
            before = self._state
            state = await self._outbox.endpoint_state(self._endpoint)
            if state.down_since is not None and not self._policy.outage:
                # Without the outage rule an endpoint is never down, whatever an earlier configuration left behind.
                await self._outbox.end_outage(self._endpoint)
                state = EndpointState(None, state.last_success_at)
            if self._state is before:
                self._state = state
            self._up.set(self._state.down_since is None)

    def _pause_s(self, due: datetime | None) -> float:
        if due is None or self._in_flight >= self._concurrency or self._retries_in_flight >= self._most_retries:
            return _LONGEST_POLL_S  # a slot that gets free wakes the loop
        return min(max(0.0, (due - self._clock.now()).total_seconds()), _LONGEST_POLL_S)

    def _begin(self, claimed: list[Delivery], tasks: asyncio.TaskGroup) -> None:
        for delivery in claimed:
            self._in_flight += 1
            self._retries_in_flight += delivery.failures > 0
            tasks.create_task(self._deliver(delivery))
        self._requests.set(self._in_flight)

    async def _deliver(self, delivery: Delivery) -> None:
        try:
            outcome = await self._attempt(delivery)
            now = self._clock.now()
            verdict = decide(
                outcome,
                delivery,
                self._policy,
                now=now,
                last_success_at=self._state.last_success_at,
                chance=random.random(),  # noqa: S311 - spreads retries, guards nothing
            )
            recorded = Recorded(outcome, verdict, self._answer(delivery, outcome), self._probe_every_s)
            # The request was made: its record must survive a stop at this moment.
            await asyncio.shield(self._outbox.settle(delivery, recorded))
            self._report(delivery, outcome, verdict)
            self._follow(verdict, now)
        finally:
            self._in_flight -= 1
            self._retries_in_flight -= delivery.failures > 0
            self._requests.set(self._in_flight)
            self._wake.set()

    def _follow(self, verdict: Verdict, now: datetime) -> None:
        """Whether the endpoint is up, as the outbox has just recorded it."""
        down_since = self._state.down_since
        match verdict:
            case Delivered():
                self._state = EndpointState(None, now)
                if down_since is not None:
                    away_s = round((now - down_since).total_seconds(), 1)
                    log.warning(
                        "endpoint.up",
                        endpoint=self._endpoint,
                        away_s=away_s,
                        failed_probes=self._failed_probes,
                        note="what was suspended follows, in order",
                    )
                    self._failed_probes = 0
            case Suspended(reason):
                self._state = EndpointState(down_since or now, self._state.last_success_at)
                if down_since is not None:
                    self._failed_probes += 1
                else:
                    note = "its events wait and lose no tries"
                    log.error(
                        "endpoint.down", endpoint=self._endpoint, reason=reason, probe_every_s=self._probe_every_s, note=note
                    )
            case RetryAt() | Dead():
                pass
        self._up.set(self._state.down_since is None)

    async def _attempt(self, delivery: Delivery) -> Outcome:
        try:
            return await self._post(delivery)
        except DaemonError:
            raise
        except Exception as error:
            # A defect met by one event must not stop the others: it is one failed try of this event.
            log.exception("relay.attempt_broken", endpoint=self._endpoint, event_id=delivery.event_id)
            return Broken(f"{type(error).__name__}: {error}"[:300], 0.0)

    def _answer(self, delivery: Delivery, outcome: Outcome) -> bytes | None:
        if not isinstance(outcome, Answered):
            return None
        return answer_to_keep(self._answer_mode, delivery.type, outcome.answer)

    def _report(self, delivery: Delivery, outcome: Outcome, verdict: Verdict) -> None:
        """One wide line per attempt at `debug`. Above it a failing endpoint and dead letters are said, counted where they
        repeat.
        """
        said = _without_quotes(outcome)
        fields = {
            "endpoint": delivery.endpoint,
            "event_id": delivery.event_id,
            "type": delivery.type,
            "session": delivery.session,
            "sequence": delivery.sequence,
            "attempt": delivery.attempt,
            "outcome": said,
            "duration_s": round(outcome.duration_s, 4),
            "bytes": len(delivery.body.content),
            **({"recovered": True} if delivery.recovered else {}),
        }
        self._metrics.attempts.labels(self._endpoint, _label(outcome, verdict)).inc()
        self._request_duration.observe(outcome.duration_s)
        age_s = (self._clock.now() - delivery.happened_at).total_seconds()
        match verdict:
            case Delivered():
                self._latency.observe(max(age_s, 0))
                log.debug("delivery.attempted", verdict="delivered", age_s=round(age_s, 3), **fields)
            case RetryAt(due):
                log.debug("delivery.attempted", verdict="retry", due=due.isoformat(), **fields)
                log.warning(
                    "endpoint.failing",
                    endpoint=self._endpoint,
                    reason=said,
                    event_id=delivery.event_id,
                    attempt=delivery.attempt,
                    next="trying again",
                )
            case Suspended(reason):
                log.debug("delivery.attempted", verdict="suspended", reason=reason.replace(describe(outcome), said), **fields)
            case Dead(reason):
                self._metrics.dead_letters.labels(self._endpoint).inc()
                log.error("delivery.dead", verdict="dead", reason=reason.replace(describe(outcome), said), **fields)


def _without_quotes(outcome: Outcome) -> str:
    """An outcome in words for the log: the text of a defect may quote what a visitor wrote."""
    return outcome.error.partition(":")[0] if isinstance(outcome, Broken) else describe(outcome)


def _label(outcome: Outcome, verdict: Verdict) -> str:
    match outcome:
        case Answered():
            return "delivered" if isinstance(verdict, Delivered) else "status"
        case TimedOut():
            return "timeout"
        case Unreachable():
            return "unreachable"
        case Broken():
            return "broken"
