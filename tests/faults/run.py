"""One seed, from its plan to its verdict."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import shutil
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from ruamel.yaml import YAML

from daemon.demo.child import free_port
from tests.faults.checker import Verdict, judge
from tests.faults.cluster import Cluster
from tests.faults.evidence import Ending, Evidence, Violation
from tests.faults.inject import Injector, Scene
from tests.faults.outbox import odd_rows_after_a_crash, odd_rows_at_the_end, owes, read_rows
from tests.faults.plan import RunPlan
from tests.faults.proxy import Proxy
from tests.faults.receiver import FaultyReceiver
from tests.faults.relay import SupervisedRelay
from tests.faults.story import tell
from tests.faults.traffic import Writer

_DRAIN_S = 90.0
_LOG_VERDICTS = {"delivery.attempted": "retry", "delivery.suspended": "suspended", "delivery.dead": "dead"}


@dataclass(frozen=True, slots=True)
class Result:
    """What a run came to. `drained_s`: from the end of the last fault until nothing was owed; `story`: empty when it is fine."""

    plan: RunPlan
    verdict: Verdict
    events: int
    uncertain: int
    seconds: float
    drained_s: float
    hits: Counter[str]
    endings: Counter[str]
    story: str

    @property
    def fine(self) -> bool:
        """Whether every promise was kept."""
        return not self.verdict.violations


async def run_plan(plan: RunPlan, cluster: Cluster, keep: Path, command: str) -> Result:
    """Carry it out. The artefacts of a failed run stay in a folder of `keep`."""
    begun = time.monotonic()
    folder = Path(tempfile.mkdtemp(prefix=f"livechat-relay-faults-{plan.seed}-"))
    run = Run(plan, cluster, folder)
    try:
        await run.play()
    except Exception as error:  # noqa: BLE001 - a run that cannot be played is a failed run, and the next seed has its turn
        run.violations.append(Violation("run", "".join(traceback.format_exception(error))))
    finally:
        await cluster.heal()
        await cluster.client.drop_database(run.database)
    verdict = judge(run.evidence)
    verdict.violations[:0] = run.violations
    story = ""
    if verdict.violations:
        kept = keep / f"seed-{plan.seed}"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
        story = tell(plan, run.evidence, verdict.violations, kept, command)
        (kept / "story.txt").write_text(story, encoding="utf-8")
    shutil.rmtree(folder)
    owed = [written for written in run.evidence.written.values() if written.at is not None]
    endings = Counter(ending.how for ending in run.evidence.endings)
    uncertain = len(run.evidence.written) - len(owed)
    return Result(plan, verdict, len(owed), uncertain, time.monotonic() - begun, run.drained_s, run.hits, endings, story)


class Run:
    """The parts of a run and what they leave behind."""

    def __init__(self, plan: RunPlan, cluster: Cluster, folder: Path) -> None:
        self.database = f"faults_{plan.seed}_{secrets.token_hex(3)}"
        self.evidence = Evidence({endpoint.name: endpoint.rules for endpoint in plan.endpoints})
        self.violations: list[Violation] = []
        self.hits: Counter[str] = Counter()
        self.drained_s = 0.0
        self._plan = plan
        self._cluster = cluster
        self._folder = folder
        self._outbox = folder / "outbox.db"

    async def play(self) -> None:
        """Traffic and faults, then everything is healed, everything must arrive, and the relay ends in order."""
        plan, evidence = self._plan, self.evidence
        async with contextlib.AsyncExitStack() as stack:
            receivers = []
            links = []
            for endpoint in plan.endpoints:
                receiver = FaultyReceiver(endpoint.name, plan.seed)
                await receiver.start()
                stack.push_async_callback(receiver.stop)
                receivers.append(receiver)
                links.append(await stack.enter_async_context(Proxy(("127.0.0.1", receiver.port))))
            mongodb_link = None
            if plan.member is not None:
                member = self._cluster.members[plan.member]
                mongodb_link = await stack.enter_async_context(Proxy(("127.0.0.1", member.port)))
            listen = f"127.0.0.1:{free_port()}"
            config = self._write_config([link.port for link in links], mongodb_link, listen)
            relay = SupervisedRelay(config, listen, self._look_after_end)
            stack.push_async_callback(relay.close)
            writer = Writer(self._cluster.client[self.database], plan.traffic)
            scene = Scene(relay, self._outbox, self._cluster, mongodb_link, receivers[0], links[0], writer)
            evidence.moments, evidence.disturbances, evidence.endings = scene.moments, scene.disturbances, relay.endings
            self.violations = scene.violations
            await writer.prepare()
            scene.say("the relay starts")
            await relay.start()
            injector = Injector(scene)
            lag = asyncio.create_task(injector.watch_for_lag())
            try:
                scene.say("traffic begins")
                async with asyncio.TaskGroup() as tasks:
                    tasks.create_task(writer.run())
                    tasks.create_task(injector.run(plan.faults))
                scene.say("traffic and faults are over")
                await self._drain(relay, writer)
                scene.say("nothing is owed" if not self.violations else "gave up")
                await relay.stop()
                if plan.restart_at_end:
                    await self._restart(relay, receivers)
            finally:
                lag.cancel()
                self._gather(relay, writer, receivers)

    def _look_after_end(self, ending: Ending) -> None:
        odd = odd_rows_after_a_crash(self._outbox)
        self.evidence.odd += [f"when the relay was {ending.how}: {text}" for text in odd]

    async def _drain(self, relay: SupervisedRelay, writer: Writer) -> None:
        """Until the outbox has everything that was acknowledged and owes none of it."""
        wanted = {written.event_id for written in writer.written.values() if written.at is not None}
        begun = time.monotonic()
        await relay.ready()
        while (owed := owes(self._outbox, wanted)) is not None:
            if time.monotonic() > begun + _DRAIN_S:
                self.violations.append(Violation("missing", f"{_DRAIN_S:.0f} s after the last fault was over: {owed}"))
                break
            await asyncio.sleep(0.05)
        self.drained_s = time.monotonic() - begun

    async def _restart(self, relay: SupervisedRelay, receivers: Iterable[FaultyReceiver]) -> None:
        """A start with nothing to do sends nothing."""
        before = sum(len(receiver.requests) for receiver in receivers)
        await relay.start()
        await relay.stop()
        after = sum(len(receiver.requests) for receiver in receivers)
        if after != before:
            self.violations.append(Violation("duplicate", f"a start with nothing owed sent {after - before} requests"))

    def _gather(self, relay: SupervisedRelay, writer: Writer, receivers: list[FaultyReceiver]) -> None:
        evidence = self.evidence
        self.hits.update(relay.hits)
        evidence.written = writer.written
        evidence.requests = sorted(
            (found for receiver in receivers for found in receiver.requests), key=lambda found: found.arrived
        )
        evidence.poisoned = {(receiver.endpoint, session) for receiver in receivers for session in receiver.refused}
        evidence.rows, evidence.attempts = read_rows(self._outbox)
        evidence.odd += odd_rows_at_the_end(self._outbox)
        evidence.verdicts = dict(_verdicts(relay.log))
        self.violations += [Violation("relay", text) for text in relay.unexpected]

    def _write_config(self, ports: list[int], mongodb_link: Proxy | None, listen: str) -> Path:
        uri = self._cluster.uri
        if mongodb_link is not None:
            uri = f"mongodb://127.0.0.1:{mongodb_link.port}/?directConnection=true"
        content: dict[str, Any] = {
            "mongodb": {"uri": uri, "database": self.database},
            "compose": {"settle": "500ms"},
            "outbox": {"url": f"sqlite:///{self._outbox}"},
            "endpoints": {
                endpoint.name: endpoint.section(f"http://127.0.0.1:{port}/webhook", "s3cret")
                for endpoint, port in zip(self._plan.endpoints, ports, strict=True)
            },
            "serve": {"listen": listen},
        }
        path = self._folder / "config.yaml"
        with path.open("w", encoding="utf-8") as file:
            YAML().dump(content, file)
        return path


def _verdicts(log: Path) -> Iterable[tuple[tuple[str, str, int], str]]:
    for line in log.read_bytes().splitlines():
        if b'"delivery.' not in line:
            continue
        entry = orjson.loads(line)
        if "attempt" in entry and entry["event"] in _LOG_VERDICTS:
            yield (entry["endpoint"], entry["event_id"], entry["attempt"]), _LOG_VERDICTS[entry["event"]]
