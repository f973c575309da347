"""The lanes of one endpoint: claim what is due, one coroutine per event in flight, settle what came of it."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Protocol

from daemon.clock import Clock, wait_until_set
from daemon.errors import DaemonError
from daemon.log import get_logger
from daemon.metrics import OUTCOMES, Metrics
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

Claimed = tuple[list[Delivery], datetime | None]

log = get_logger("relay")


class Outbox(Protocol):
    """What the relay needs of the outbox."""

    async def endpoint_state(self, endpoint: str) -> EndpointState:
        """Whether an endpoint is down, and when it last took anything."""

    def claim(self, endpoint: str, limit: int, retries: int, *, fresh_first: bool = False) -> asyncio.Future[Claimed]:
        """Due deliveries, each with its attempt counted, and when the next one is due; in one commit with what was asked for
        just before.
        """

    def claim_probe(self, endpoint: str) -> asyncio.Future[Claimed]:
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

    Sessions are independent of each other, each has one request in flight at most. At most `concurrency` requests are made
    before what came of them is on record: a claim takes the places of those whose record is in the same commit. Of the places a
    quarter is kept for events that failed before, and never more while fresh ones wait, so that neither starves the other.
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
        self._state_known = False
        self._state_read_at = float("-inf")
        self._expired_at = clock.monotonic()
        self._answer_mode = answer_mode
        self._outbox = outbox
        self._post = post
        self._clock = clock
        self._wake = asyncio.Event()
        self._stopping = False
        self._in_flight = 0
        self._retries_in_flight = 0
        self._most_retries = max(1, concurrency // 4)
        self._retried_last = False
        self._failed_probes = 0
        self._asked: asyncio.Future[Claimed] | None = None
        self._unrecorded = 0
        self.turned_at = clock.monotonic()
        metrics.expect_endpoint(endpoint)
        self._log = log.bind()  # asking a logger for its level costs more than the rest of a quiet report
        self._attempts = {outcome: metrics.attempts.labels(endpoint, outcome) for outcome in OUTCOMES}
        self._dead_letters = metrics.dead_letters.labels(endpoint)
        self._metrics = metrics
        self._latency = metrics.latency.labels(endpoint)
        self._request_duration = metrics.request_duration.labels(endpoint)

    @property
    def down_since(self) -> datetime | None:
        """Since when the endpoint is down; None: it is up."""
        return self._state.down_since

    def wake(self) -> None:
        """There may be something to do. A hint: without it the next poll finds it.

        What is due is asked for at once, so that it comes out of the commit that makes it due.
        """
        if self._asked is None and not self._stopping:
            self._asked = self._ask()
        self._wake.set()

    def stop(self) -> None:
        """Claim nothing more; `run` returns when what is in flight is settled."""
        self._stopping = True
        self._wake.set()

    async def run(self) -> None:
        """Deliver until `stop`. Cancelling it leaves the requests in flight to be sent again after the next start."""
        await self._read_state()
        self._show()
        async with asyncio.TaskGroup() as tasks:
            while not self._stopping:
                self.turned_at = self._clock.monotonic()
                self._wake.clear()
                await self._read_state()
                if self._state.down_since is not None:
                    await self._expire()
                due = await self._claim(tasks)
                await wait_until_set(self._wake, self._pause_s(due))
            if self._asked is not None:
                await self._claim(tasks)

    def _show(self) -> None:
        """The gauges of the endpoint are of these lanes from now on: others, that had it before, are drained."""
        self._metrics.in_flight.labels(self._endpoint).set_function(lambda: self._in_flight)
        self._metrics.endpoint_up.labels(self._endpoint).set_function(lambda: self._state.down_since is None)

    def _ask(self) -> asyncio.Future[Claimed] | None:
        """Ask for what is due and has a slot; None when there is no slot, or nothing is known of the endpoint yet."""
        if not self._state_known:
            return None
        if self._state.down_since is not None:
            # While the endpoint is down one request at a time finds out whether it is back; no event loses tries.
            return None if self._in_flight else self._outbox.claim_probe(self._endpoint)
        free = self._concurrency - self._in_flight
        if not free:
            return None
        retries = max(0, self._most_retries - self._retries_in_flight)
        # Where retries could take every free slot they take turns with fresh events.
        fresh_first = retries >= free and self._retried_last
        return self._outbox.claim(self._endpoint, free, retries, fresh_first=fresh_first)

    async def _claim(self, tasks: asyncio.TaskGroup) -> datetime | None:
        """Begin what is due and has a slot; gives when the next one is due."""
        self._asked = self._asked or self._ask()
        if self._asked is None:
            return None
        claimed, due = await self._asked
        self._asked = None
        if claimed:
            self._retried_last = any(delivery.failures for delivery in claimed)
        elif self._state.down_since is not None and due is not None and due <= self._clock.now():
            self._state_read_at = float("-inf")  # the outbox gives no probe that is due: an operator has ended the outage
        for delivery in claimed:
            self._in_flight += 1
            self._retries_in_flight += delivery.failures > 0
            tasks.create_task(self._deliver(delivery))
        return due

    async def _expire(self) -> None:
        """Give up what waited too long for an endpoint that is down."""
        now = self._clock.monotonic()
        if now - self._expired_at < _EXPIRE_EVERY_S:
            return
        self._expired_at = now
        expired = await self._outbox.expire(self._endpoint, self._policy.max_age.total_seconds())
        if expired:
            self._dead_letters.inc(expired)
            log.error("delivery.expired", endpoint=self._endpoint, count=expired, reason="older than max_age")

    async def _read_state(self) -> None:
        """The state is kept in the outbox, where an operator can end an outage too; in between, this object knows its own
        changes, some of them before they are recorded.
        """
        now = self._clock.monotonic()
        if now - self._state_read_at >= _LONGEST_POLL_S:
            first, self._state_read_at = not self._state_known, now
            longest_s = self._policy.longest_wait.total_seconds()
            mended = await self._outbox.mend_times(self._endpoint, longest_s, self._probe_every_s)
            if mended and not first:  # at first it can be that the configuration has shorter waits now
                log.warning("relay.clock_set_back", endpoint=self._endpoint, sessions=mended, note="they are tried now")
            before, current = self._state, not self._unrecorded
            state = await self._outbox.endpoint_state(self._endpoint)
            if state.down_since is not None and not self._policy.outage:
                # Without the outage rule an endpoint is never down, whatever an earlier configuration left behind.
                await self._outbox.end_outage(self._endpoint)
                state = EndpointState(None, state.last_success_at)
            if current and self._state is before:
                self._state = state
            self._state_known = True

    def _pause_s(self, due: datetime | None) -> float:
        if due is None or self._in_flight >= self._concurrency or self._retries_in_flight >= self._most_retries:
            return _LONGEST_POLL_S  # a slot that gets free wakes the loop
        return min(max(0.0, (due - self._clock.now()).total_seconds()), _LONGEST_POLL_S)

    async def _deliver(self, delivery: Delivery) -> None:
        started_at = self._clock.now()
        try:
            outcome = await self._post(delivery)
        except DaemonError:
            raise
        except Exception as error:
            # A defect met by one event must not stop the others: it is one failed try of this event.
            log.exception("relay.attempt_broken", endpoint=self._endpoint, event_id=delivery.event_id)
            outcome = Broken(f"{type(error).__name__}: {error}"[:300], 0.0)
        finally:
            self._in_flight -= 1
            self._retries_in_flight -= delivery.failures > 0
        now = self._clock.now()
        verdict = decide(
            outcome,
            delivery,
            self._policy,
            now=now,
            last_success_at=self._state.last_success_at,
            chance=random.random(),  # noqa: S311 - spreads retries, guards nothing
        )
        # The record is made even if this task is cancelled while it waits for it.
        recorded = Recorded(started_at, outcome, verdict, self._answer(delivery, outcome), self._probe_every_s)
        recording = self._outbox.settle(delivery, recorded)
        self._unrecorded += 1
        self._follow(verdict, now)
        self.wake()
        try:
            await recording
        finally:
            self._unrecorded -= 1
        self._report(delivery, outcome, verdict, now)

    def _follow(self, verdict: Verdict, now: datetime) -> None:
        """Whether the endpoint is up, as the outbox is about to record it."""
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

    def _answer(self, delivery: Delivery, outcome: Outcome) -> bytes | None:
        if not isinstance(outcome, Answered):
            return None
        return answer_to_keep(self._answer_mode, delivery.type, outcome.answer)

    def _report(self, delivery: Delivery, outcome: Outcome, verdict: Verdict, now: datetime) -> None:
        """One wide line per attempt at `debug`. Above it a failing endpoint and dead letters are said, counted where they
        repeat.
        """
        self._attempts[_label(outcome, verdict)].inc()
        self._request_duration.observe(outcome.duration_s)
        if isinstance(verdict, Delivered):
            self._latency.observe(max((now - delivery.happened_at).total_seconds(), 0))
            if not self._log.is_enabled_for(logging.DEBUG):  # the usual case costs nothing more
                return
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
        match verdict:
            case Delivered():
                age_s = round((now - delivery.happened_at).total_seconds(), 3)
                log.debug("delivery.attempted", verdict="delivered", age_s=age_s, **fields)
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
                self._dead_letters.inc()
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
