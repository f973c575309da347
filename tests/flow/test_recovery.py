"""What the change stream can no longer tell is made again from stored rooms and messages."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from daemon.demo.ledger import Ledger, judge
from daemon.demo.plan import Traffic
from daemon.demo.receiver import Exchange, Receiver
from daemon.demo.simulator import Simulator
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, query, running, write_config
from tests.flow.traffic import Database

RECOVERABLE = {
    "LivechatSessionStart", "LivechatSessionTaken", "LivechatSessionForwarded", "LivechatSession", "Message", "LeadCapture",
    "LivechatOfflineMessage",
}  # fmt: skip
BUSY = Traffic(seconds=4.0, session_seconds=(2.0, 4.0), sessions=10, offline=3)


def recovered(exchanges: Iterable[Exchange]) -> list[Exchange]:
    return [exchange for exchange in exchanges if exchange.received.headers.get("X-Livechat-Relay-Recovered") == "true"]


def recoverable(ledger: Ledger) -> set[str]:
    """What leaves a trace: of the edits of a message the last one."""
    ids = {entry.id for entry in ledger.owed if entry.type in RECOVERABLE}
    edits: dict[str, list[str]] = {}
    for entry in ledger.owed:
        if entry.type == "Message" and entry.id.count(":") == 2:
            edits.setdefault(entry.id.rsplit(":", 1)[0], []).append(entry.id)
    return ids - {id_ for several in edits.values() for id_ in sorted(several)[:-1]}


async def test_a_gap_is_healed_before_anything_that_follows(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """The relay is away while its position gets lost, and comes back in the middle of the traffic."""
    simulator = Simulator(database, BUSY)
    await simulator.prepare()
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(
            tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, capture={"on_lost_position": "heal"}
        )
        async with running(config):
            writing = asyncio.create_task(simulator.run(asyncio.Event()))
            await eventually(lambda: len(accepted(receiver)) >= 8, "some live events")
        await traffic.lose_position(database, tmp_path)
        before = len(simulator.ledger.owed)
        await eventually(lambda: len(simulator.ledger.owed) >= before + 25, "a gap")
        assert not writing.done()
        async with running(config):
            await writing
            wanted = recoverable(simulator.ledger)
            await eventually(lambda: wanted <= {exchange.event_id for exchange in accepted(receiver)}, "what can be recovered")
            owed = "SELECT count(*) FROM deliveries WHERE state IN ('intent', 'pending', 'suspended')"
            await eventually(lambda: query(tmp_path, owed) == [(0,)], "an outbox that owes nothing")

    verdict = judge(simulator.ledger, receiver.exchanges)
    assert (verdict.out_of_order, verdict.strangers, verdict.duplicates) == ([], [], 0)
    assert {missing.partition(":")[0] for missing in verdict.missing} <= {"LivechatSessionQueued", "LivechatEdit", "Message"}
    assert recovered(receiver.exchanges)
    assert not any(exchange.event_id.startswith("LivechatSessionQueued") for exchange in recovered(receiver.exchanges))


@dataclass(frozen=True)
class Result:
    exit_code: int
    stdout: str
    stderr: str


async def command(*arguments: str) -> Result:
    """`livechat-relay` with these arguments, as a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "daemon", *arguments, stdin=DEVNULL, stdout=PIPE, stderr=PIPE
    )
    stdout, stderr = await process.communicate()
    return Result(process.returncode or 0, stdout.decode(), stderr.decode())


async def test_backfill_gives_a_new_endpoint_what_happened_before_it(
    mongodb_uri: str, database: Database, tmp_path: Path
) -> None:
    """Counted first; then delivered while the relay runs, in order, once; a second time there is nothing left to do."""
    await traffic.load_initial(database)
    await traffic.write(database, traffic.rows("S1", "S2", "S7"))
    want = Counter(payload["type"] for payload in traffic.expected("S1", "S2", "S7") if payload["type"] in RECOVERABLE)
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)

        async def backfill(*options: str) -> Result:
            return await command("backfill", "-c", str(config), "--since", "2020-01-01", *options)

        async with running(config):
            counted = await backfill("--dry-run")
            assert counted.exit_code == 0
            assert query(tmp_path, "SELECT count(*) FROM events") == [(0,)]
            nobody_to_ask = await backfill()
            assert (nobody_to_ask.exit_code, "--yes" in nobody_to_ask.stderr) == (2, True)
            narrowed = await backfill("--type", "LivechatSessionStart", "--yes")
            assert narrowed.stdout.startswith("endpoint"), narrowed.stdout
            assert query(tmp_path, "SELECT DISTINCT type FROM events") == [("LivechatSessionStart",)]
            done = await backfill("--yes")
            assert done.exit_code == 0
            settled = "SELECT DISTINCT state FROM deliveries"
            await eventually(lambda: query(tmp_path, settled) == [("delivered",)], "a settled outbox")
            again = await backfill("--dry-run")
    got = Counter(exchange.received.payload["type"] for exchange in receiver.exchanges)
    messages = got.pop("Message")
    assert got == Counter({name: count for name, count in want.items() if name != "Message"})
    # Of the recording's messages some are deleted later, and only the last edit of each is stored.
    assert 0 < messages <= want["Message"]
    assert len(recovered(receiver.exchanges)) == len(receiver.exchanges)
    assert _column(again.stdout, "missing") == {"0"}
    assert _column(counted.stdout, "known") == {"0"}
    for session in {exchange.received.payload.get("_id") for exchange in receiver.exchanges} - {None}:
        sequences = [e.received.sequence for e in receiver.exchanges if e.received.payload.get("_id") == session]
        assert sequences == sorted(sequences)


def _column(table: str, name: str) -> set[str]:
    head, *rows = [line.split() for line in table.splitlines() if line.strip()]
    return {row[head.index(name)] for row in rows}


async def test_recovered_payloads_are_those_of_the_change_stream(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """As far as stored data can tell: the end of a session, with its transcript, is told member by member."""
    await traffic.load_initial(database)
    await traffic.write(database, traffic.rows("S1", "S2"))
    want = [payload for payload in traffic.expected("S1", "S2") if payload["type"] == "LivechatSession"]
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)
        async with running(config):
            options = ("--since", "2020-01-01", "--type", "LivechatSession", "--yes")
            assert (await command("backfill", "-c", str(config), *options)).exit_code == 0
            await eventually(lambda: len(accepted(receiver)) == len(want), "every end of a session")
    got: dict[str, Any] = {exchange.received.payload["_id"]: exchange.received.payload for exchange in accepted(receiver)}
    for payload in want:
        found = got[payload["_id"]]
        # What changed after the close shows: a message edited later, activity after it.
        later = ("messages", "lastMessageAt")
        assert {name: found.get(name) for name in payload if name not in later} == {
            name: value for name, value in payload.items() if name not in later
        }
        assert [message["_id"] for message in found["messages"]] == [message["_id"] for message in payload["messages"]]


async def test_backfill_names_what_is_wrong(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url="http://127.0.0.1:9/")
    backfill = ("backfill", "-c", str(config), "--since", "1h")
    unknown = await command(*backfill, "--endpoint", "crn")
    assert (unknown.exit_code, "there are crm" in unknown.stderr) == (2, True)
    reversed_ = await command(*backfill, "--until", "2h")
    assert (reversed_.exit_code, "must be after --since" in reversed_.stderr) == (2, True)
