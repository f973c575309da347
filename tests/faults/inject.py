"""Carries out the faults of a plan. Each fault ends what it began, and notes from when to when answers could be lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.cluster import Cluster
from tests.faults.evidence import Disturbance, Violation
from tests.faults.plan import TIMEOUT_S, Fault
from tests.faults.proxy import Proxy
from tests.faults.receiver import FaultyReceiver, Mood
from tests.faults.relay import SupervisedRelay
from tests.faults.traffic import Writer

_CRASH_PATIENCE_S = 60.0
_LAG_S = 0.4


@dataclass(slots=True)
class Scene:
    """Everything that can be broken. `receiver` and `receiver_link` are those of the endpoint that fails."""

    relay: SupervisedRelay
    outbox: Path
    cluster: Cluster
    mongodb_link: Proxy | None
    receiver: FaultyReceiver
    receiver_link: Proxy
    writer: Writer
    disturbances: list[Disturbance] = field(default_factory=list)
    moments: list[tuple[float, str]] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Enter it in the timeline."""
        self.moments.append((time.time(), text))

    @contextmanager
    def disturbing(self, kind: str, endpoint: str | None) -> Iterator[None]:
        """While it lasts answers may not reach the relay in time."""
        disturbance = Disturbance(kind, time.time(), float("inf"), endpoint)
        self.disturbances.append(disturbance)
        try:
            yield
        finally:
            disturbance.end = time.time() + 0.1


class Injector:
    """The faults of one run."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene
        self._relay_lock = asyncio.Lock()  # what needs the process waits for its turn
        self._mongodb_lock = asyncio.Lock()  # two members away are no majority
        self._tasks = asyncio.TaskGroup()

    async def run(self, faults: tuple[Fault, ...]) -> None:
        """All of them, each at its time."""
        begun = time.monotonic()

        async def one(fault: Fault) -> None:
            await asyncio.sleep(max(0.0, begun + fault.at_s - time.monotonic()))
            await self._inject(fault)

        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            for fault in faults:
                tasks.create_task(one(fault))

    async def watch_for_lag(self) -> None:
        """A machine that is too busy to answer in time disturbs as well. Runs until cancelled."""
        while True:
            before = time.time()
            await asyncio.sleep(0.05)
            if time.time() - before > _LAG_S:
                self._scene.disturbances.append(Disturbance("a busy machine", before - TIMEOUT_S, time.time() + TIMEOUT_S))

    async def _inject(self, fault: Fault) -> None:
        kind = fault.kind
        ways: dict[str, Callable[[Fault], Awaitable[None]]] = {
            "relay_kill": self._kill,
            "relay_freeze": self._freeze,
            "relay_terminate": self._terminate,
            "disk_full": self._fill_disk,
            "clock_jump": self._jump,
            "mongodb_step_down": self._step_down,
            "mongodb_kill_primary": self._kill_member,
            "mongodb_kill_secondary": self._kill_member,
            "mongodb_restart_all": self._restart_all,
            "mongodb_freeze": self._freeze_primary,
            "receiver_down": self._take_receiver_down,
            "receiver_poison": self._poison,
        }
        lock = asyncio.Lock()
        if kind.startswith(("relay", "crash", "disk")):
            lock = self._relay_lock
        elif kind.startswith("mongodb") and "link" not in kind:
            lock = self._mongodb_lock
        async with lock:
            self._scene.say(f"{kind} begins")
            if kind.startswith("crash_"):
                await self._crash(fault)
            elif "_link_" in kind:
                await self._disturb_link(fault)
            elif kind in ways:
                await ways[kind](fault)
            else:
                await self._change_mood(fault)
            self._scene.say(f"{kind} is over")

    # -- the relay

    async def _kill(self, fault: Fault) -> None:
        self._scene.relay.pause_s = fault.for_s
        self._scene.relay.kill()
        await asyncio.sleep(fault.for_s)

    async def _terminate(self, fault: Fault) -> None:
        self._scene.relay.pause_s = fault.for_s
        self._scene.relay.terminate()
        await asyncio.sleep(fault.for_s)

    async def _freeze(self, fault: Fault) -> None:
        with self._scene.disturbing(fault.kind, None):
            self._scene.relay.freeze()
            await asyncio.sleep(fault.for_s)
            self._scene.relay.thaw()
            await asyncio.sleep(0.3)

    async def _crash(self, fault: Fault) -> None:
        relay, point = self._scene.relay, fault.kind.removeprefix("crash_")
        relay.pause_s = fault.for_s
        # The point of recovering is passed once in a start.
        relay.arm(point, 1 if point == "while_recovering" else 1 + int(fault.pick * 4))
        crashed = relay.crashed
        self._tasks.create_task(self._feed(relay.kill if fault.pick < 0.5 else relay.terminate, crashed))
        try:
            await asyncio.wait_for(crashed.wait(), _CRASH_PATIENCE_S)
        except TimeoutError:
            self._scene.violations.append(Violation("crash point", f"{point} was never reached: did its function move?"))
            crashed.set()

    async def _feed(self, end: Callable[[], None], crashed: asyncio.Event) -> None:
        """End the process for the one that is to crash, and give that one something to do until it does."""
        while not crashed.is_set():
            if self._scene.relay.armed:
                end()  # again, if it was just being started: then nobody heard it
            await self._scene.writer.one_more()
            await asyncio.sleep(0.1)

    async def _fill_disk(self, fault: Fault) -> None:
        relay, outbox = self._scene.relay, self._scene.outbox
        sizes = [file.stat().st_size for file in outbox.parent.glob(f"{outbox.name}*")]
        relay.pause_s = 0.2
        # Full at once, or somewhat later, in the middle of a commit.
        relay.limit_files(8192 if fault.pick < 0.5 else max(sizes) + int(fault.pick * 40_000))
        await self._scene.writer.one_more()
        await asyncio.sleep(fault.for_s)
        relay.limit_files(None)

    async def _jump(self, fault: Fault) -> None:
        seconds = (fault.pick - 0.5) * 4 * 3600
        self._scene.say(f"the relay's clock is {seconds:+.0f} s off")
        self._scene.relay.set_clock(seconds)
        await asyncio.sleep(fault.for_s)
        self._scene.relay.set_clock(0)

    # -- MongoDB

    async def _step_down(self, fault: Fault) -> None:
        await self._scene.cluster.step_down(max(1, round(fault.for_s)))
        await self._scene.cluster.healthy()

    async def _kill_member(self, fault: Fault) -> None:
        cluster = self._scene.cluster
        member = await (cluster.primary() if fault.kind.endswith("primary") else cluster.secondary())
        await member.kill()
        await asyncio.sleep(fault.for_s)
        await member.start()
        await cluster.healthy()

    async def _restart_all(self, fault: Fault) -> None:
        members = self._scene.cluster.members
        await asyncio.gather(*(member.kill() if fault.pick < 0.5 else member.stop() for member in members))
        await asyncio.sleep(fault.for_s)
        await asyncio.gather(*(member.start() for member in members))
        await self._scene.cluster.healthy()

    async def _freeze_primary(self, fault: Fault) -> None:
        member = await self._scene.cluster.primary()
        self._scene.cluster.freeze(member)
        await asyncio.sleep(fault.for_s)
        self._scene.cluster.thaw(member)
        await self._scene.cluster.healthy()

    # -- the ways there, and the receiver

    async def _disturb_link(self, fault: Fault) -> None:
        to_mongodb = fault.kind.startswith("mongodb")
        link = self._scene.mongodb_link if to_mongodb else self._scene.receiver_link
        assert link is not None
        with self._scene.disturbing(fault.kind, "no endpoint" if to_mongodb else self._scene.receiver.endpoint):
            if fault.kind.endswith("cut"):
                link.refusing = fault.pick < 0.5
                for _ in range(3):
                    link.cut()
                    await asyncio.sleep(fault.for_s / 3)
            elif fault.kind.endswith("stall"):
                link.stall()
                await asyncio.sleep(fault.for_s)
            else:
                link.delay_s = 0.02 + fault.pick * 0.7
                await asyncio.sleep(fault.for_s)
            link.heal()
            await asyncio.sleep(TIMEOUT_S)  # what was delayed may still be under way

    async def _change_mood(self, fault: Fault) -> None:
        receiver = self._scene.receiver
        with self._scene.disturbing(fault.kind, receiver.endpoint):
            receiver.set_mood(Mood[fault.kind.removeprefix("receiver_").upper()], 1.0 if fault.pick < 0.5 else 0.4)
            await asyncio.sleep(fault.for_s)
            receiver.set_mood(Mood.FINE)

    async def _take_receiver_down(self, fault: Fault) -> None:
        receiver = self._scene.receiver
        with self._scene.disturbing(fault.kind, receiver.endpoint):
            await receiver.stop()
            await asyncio.sleep(fault.for_s)
            await receiver.start()

    async def _poison(self, fault: Fault) -> None:
        receiver = self._scene.receiver
        receiver.poison_next = (400, 410, 500)[int(fault.pick * 3)]
        self._scene.say(f"the next new session is answered {receiver.poison_next}")
        await self._scene.writer.one_more()
        await asyncio.sleep(fault.for_s)
        receiver.poison_next = None
        receiver.poisoned.clear()
