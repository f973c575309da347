"""The whole flow: from a change in MongoDB to the outbox, and from the outbox to an endpoint.

    MongoDB ──▶ capture ──▶ compose ──▶ outbox ──▶ relay ──▶ send ──▶ endpoint

Two orders are sacred. A position is saved with the events it covers, in one commit. An attempt is counted before its request
leaves.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol, TypeVar

from daemon.capture.stream import ChangeStream
from daemon.clock import Clock, wait_until_set
from daemon.compose.composer import Composer
from daemon.compose.files import with_tokens
from daemon.compose.gather import before
from daemon.compose.json_text import with_answer
from daemon.compose.lookup import Lookup
from daemon.compose.recovery import Recovery, Span
from daemon.compose.traces import SEARCH_BACK
from daemon.errors import ConfigurationError, DaemonError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Batch, Body, Broken, Commit, Delivery, Intent, Outcome, Position
from daemon.outbox.sqlite import SqliteOutbox
from daemon.relay.lanes import Post
from daemon.send.client import Sender

T = TypeVar("T")
_POSITION_EVERY_S = 5.0  # how often a position that covers nothing new is saved
_STATES_EVERY_S = 1.0  # the same for folded state without an event: until then it is read and folded again after a crash
_POLL_S = 5.0
_COMPOSED_AT_ONCE = 16
_MOST_TO_COMPOSE = 500
_MEASURE_EVERY_S = 5.0
_LOOK_AT_OPLOG_EVERY_S = 60.0  # while reading is paused

log = get_logger("flow")


class Observer(Protocol):
    """Who wants to know how reading goes."""

    def capture_paused(self, reason: str | None) -> None:
        """Called when reading waits for a reason, and when it goes on."""

    def capture_lag(self, lag_s: Callable[[], float]) -> None:
        """Called with what tells how far behind reading is."""


class Lag:
    """How long ago everything that MongoDB had committed by then was read and kept. It is asked, not told, so that it rises while
    nothing is read. Differences of the server's times and of this host's monotonic time: clocks need not agree.
    """

    def __init__(self, position: Position, clock: Clock) -> None:
        self._clock = clock
        self._behind_s = clock.now().timestamp() - position.cluster_time.time  # before the first answer nothing else is known
        self._at = clock.monotonic()

    def read(self, batch: Batch, received_at: float) -> None:
        """A batch that came at `received_at` is kept."""
        self._behind_s, self._at = batch.behind_s, received_at

    def seconds(self) -> float:
        """As of now."""
        return max(0.0, self._behind_s + self._clock.monotonic() - self._at)


class Intake:
    """From MongoDB to the outbox. `read_at` and `composed_at` are when its two loops last turned."""

    def __init__(
        self,
        *,
        stream: ChangeStream,
        composer: Composer,
        outbox: SqliteOutbox,
        wake_relay: Callable[[], None],
        observer: Observer,
        oplog_left: Callable[[], Awaitable[float | None]],
        max_size: int,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._stream = stream
        self._composer = composer
        self._outbox = outbox
        self._wake_relay = wake_relay
        self._observer = observer
        self._oplog_left = oplog_left
        self._max_size = max_size
        self._measured_at = -_MEASURE_EVERY_S
        self._clock = clock
        self._metrics = metrics
        self._saved_at = self.read_at = self.composed_at = clock.monotonic()
        self._to_compose = asyncio.Event()
        self._composed = asyncio.Event()
        self._backlog = 0

    async def run(self, position: Position, stopping: asyncio.Event) -> None:
        """Take up open intents, then read and compose until told to stop: what is in hand then is given up, or kept whole."""
        self._composer.resume(await self._outbox.waiting_intents())
        async with asyncio.TaskGroup() as tasks:
            loops = [tasks.create_task(self._compose_intents()), tasks.create_task(self._read(position))]
            await stopping.wait()
            for loop in loops:
                loop.cancel()

    async def _read(self, position: Position) -> None:
        """Read changes, fold and match them, keep what they mean."""
        lag = Lag(position, self._clock)
        self._metrics.lag.set_function(lag.seconds)
        self._observer.capture_lag(lag.seconds)
        self._metrics.position_time.set(position.cluster_time.time)
        async with aclosing(self._stream.batches(position)) as batches:
            async for batch in batches:
                self.read_at = received_at = self._clock.monotonic()
                await self._room_on_disk(batch)
                commit = await self._composer.compose(batch)
                if self._worth_saving(commit):
                    kept = self._outbox.append(self._composer.with_states(commit))
                    if commit.events:
                        self._wake_relay()  # what it claims comes out of the same commit
                    await _finished(kept)
                    self._saved(commit)
                lag.read(batch, received_at)
                await self._room_to_compose()

    async def _compose_intents(self) -> None:
        """Give a body to every intent that is complete: now, in the order they happened, several at once."""
        while True:
            self.composed_at = self._clock.monotonic()
            self._to_compose.clear()
            intents = await self._outbox.complete_intents(_COMPOSED_AT_ONCE)
            if intents:
                await asyncio.gather(*(self._compose_intent(intent) for intent in intents))
                self._wake_relay()
            # Events that were known already were counted too, so the count is a guess until there is nothing left.
            self._backlog = max(0, self._backlog - len(intents)) if len(intents) == _COMPOSED_AT_ONCE else 0
            self._composed.set()
            if len(intents) < _COMPOSED_AT_ONCE:
                await wait_until_set(self._to_compose, _POLL_S)

    async def _compose_intent(self, intent: Intent) -> None:
        try:
            bodies = await self._composer.finish(intent)
        except DaemonError:
            raise
        except Exception as error:
            # Composing always ends: what cannot be composed becomes a visible row, and its lane goes on.
            self._metrics.skipped.inc()
            log.exception("compose.intent_failed", event_id=intent.event_id)
            await self._outbox.skip(intent.event_id, f"cannot be composed: {type(error).__name__}: {error}"[:500])
        else:
            await self._outbox.composed(intent.event_id, bodies)

    def _worth_saving(self, commit: Commit) -> bool:
        if commit.events or commit.intent_updates:
            return True
        wait_s = _STATES_EVERY_S if self._composer.has_unsaved_states else _POSITION_EVERY_S
        return self._clock.monotonic() - self._saved_at >= wait_s

    def _saved(self, commit: Commit) -> None:
        self._saved_at = self._clock.monotonic()
        self._metrics.position_time.set(commit.position.cluster_time.time)
        complete = sum(event.intent is not None and event.intent.completed is not None for event in commit.events)
        complete += sum(update.completed is not None for update in commit.intent_updates)
        self._backlog += complete
        if complete:
            self._to_compose.set()

    async def _room_on_disk(self, batch: Batch) -> None:
        """Wait while the outbox is as large as it may be."""
        now = self._clock.monotonic()
        if now - self._measured_at < _MEASURE_EVERY_S:
            return
        self._measured_at = now
        full = False
        warned, looked_at = None, 0.0
        while (size := await self._outbox.size()) > self._max_size:
            self.read_at = self._clock.monotonic()
            reason = f"the outbox holds {size} bytes, more than outbox.max_size"
            if not full:
                full = True
                self._observer.capture_paused(reason)
            if warned is None or self._clock.monotonic() - looked_at >= _LOOK_AT_OPLOG_EVERY_S:
                warned, looked_at = await self._warn(reason, batch.position, warned), self._clock.monotonic()
            await self._clock.sleep(_MEASURE_EVERY_S)
        if full:
            log.warning("capture.goes_on", size=size, paused_s=round(self._clock.monotonic() - now, 1))
            self._observer.capture_paused(None)

    async def _warn(self, reason: str, position: Position, warned: float | None) -> float:
        """Say that reading is paused: at once, and again whenever half of the oplog is gone that was left at the last warning.

        Takes and gives how many seconds of it were left then (None: no warning yet).
        """
        left = await self._oplog_left()
        left_s = float("inf") if left is None else left
        if warned is not None and not left_s < warned / 2:
            return warned
        hours = None if math.isinf(left_s) else round(left_s / 3600, 1)
        log.error(
            "capture.paused",
            reason=reason,
            position=datetime.fromtimestamp(position.cluster_time.time, UTC).isoformat(),
            oplog_left_hours=hours,
            note="MongoDB's oplog must still reach back to this position when reading goes on, else it is lost",
            hint="mend the endpoints that are down, cancel what need not be delivered, or raise outbox.max_size",
        )
        return left_s

    async def _room_to_compose(self) -> None:
        """A relay that catches up reads faster than transcripts can be composed: let them follow, while MongoDB still has
        snapshots.
        """
        while self._backlog > _MOST_TO_COMPOSE:
            self.read_at = self._clock.monotonic()
            self._composed.clear()
            await wait_until_set(self._composed, _POLL_S)


def way_to_endpoint(sender: Sender, lookup: Lookup, clock: Clock) -> Post:
    """The way of a delivery to its endpoint: the CRM's last answer is put in, and links to protected files get a token that
    is made for this attempt.
    """

    def post(delivery: Delivery) -> Awaitable[Outcome]:
        body = with_answer(delivery.body, delivery.answer)
        return post_with_links(delivery, body) if body.files else sender.post(delivery, body.content)

    async def post_with_links(delivery: Delivery, body: Body) -> Outcome:
        secret = await lookup.file_secret()
        if secret is None:
            return Broken("the secret for file links cannot be read from MongoDB", 0.0, counts=False)
        return await sender.post(delivery, with_tokens(body, secret, clock.now()))

    return post


async def until_stopped(stopping: asyncio.Event, work: Awaitable[T]) -> T | None:
    """The result of `work`; None when told to stop first, and `work` is given up."""
    stop = asyncio.ensure_future(stopping.wait())
    task = asyncio.ensure_future(work)
    try:
        await asyncio.wait((stop, task), return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    if stopping.is_set() or task.cancelled():
        return None
    return task.result()


async def _finished(work: Awaitable[None]) -> None:
    """Wait for work that goes on by itself, also when cancelled meanwhile: nobody may look at what it changes before. Its failure
    is raised in either case.
    """
    future = asyncio.ensure_future(work)
    try:
        await asyncio.shield(future)
    except asyncio.CancelledError:
        await asyncio.wait([future])
        future.result()
        raise


async def start_position(stream: ChangeStream, outbox: SqliteOutbox, first: Position | None) -> Position:
    """Where to read from: the committed position, or on the very first start `first` (None: now), which is committed at once."""
    position = await outbox.position()
    if position is not None:
        return position
    now = await stream.current_position()
    if first is not None and first.cluster_time > now.cluster_time:
        raise ConfigurationError(
            "capture.start: this time is yet to come", hint="write `now`, or a time that MongoDB's oplog still reaches back to"
        )
    position = first or now
    await outbox.jump(position)
    return position


@dataclass(frozen=True, slots=True)
class Gap:
    """A part of the stream that can no longer be read, and how many deliveries were made from stored data instead."""

    since: datetime
    until: datetime
    recovered: int = 0


async def restart_position(stream: ChangeStream, outbox: SqliteOutbox) -> tuple[Position, Gap]:
    """Give up the lost position and go on from now."""
    position, gap = await _gap(stream, outbox)
    await outbox.jump(position)
    return position, gap


async def heal_position(
    stream: ChangeStream, recovery: Recovery, outbox: SqliteOutbox, wake_relay: Callable[[], None]
) -> tuple[Position, Gap]:
    """Make what the lost part of the stream told from stored data, then go on from now.

    The position moves when all of it is in the outbox: what happens from now on comes after it, and a healing that is
    interrupted begins again, without giving anything twice.
    """
    position, gap = await _gap(stream, outbox)
    span = Span(gap.since - SEARCH_BACK, gap.until + SEARCH_BACK, at=before(position.cluster_time))
    async for _, events in recovery.events(span, await recovery.rooms(span)):
        gap = replace(gap, recovered=gap.recovered + await outbox.add(events))
        wake_relay()
    await outbox.jump(position)
    return position, gap


async def _gap(stream: ChangeStream, outbox: SqliteOutbox) -> tuple[Position, Gap]:
    lost = await outbox.position()
    now = await stream.current_position()
    since = now if lost is None else lost
    since_time, now_time = (datetime.fromtimestamp(position.cluster_time.time, UTC) for position in (since, now))
    return now, Gap(since_time, now_time)
