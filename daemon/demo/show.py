"""`livechat-relay demo`: MongoDB, Rocket.Chat's traffic, the real relay and a moody receiver, and what comes of it."""

from __future__ import annotations

import asyncio
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.errors import OperationFailure, PyMongoError
from rich.console import Console

from daemon.clock import Clock, SystemClock, wait_until_set
from daemon.demo.child import tail
from daemon.demo.ledger import judge
from daemon.demo.mongod import EmbeddedMongod
from daemon.demo.plan import Traffic
from daemon.demo.receiver import Flaky, Receiver
from daemon.demo.relay import RETRY_WAIT_S, RelayProcess
from daemon.demo.screen import Moment, Screen, print_summary
from daemon.demo.simulator import Simulator
from daemon.errors import DaemonError

_FRAME_S = 0.25
_AT_LEAST_S = 5.0
_REST_S = 40.0
_SEED = 7


async def run_demo(*, seconds: float, mongodb_uri: str | None, keep: Path | None, console: Console, stop: asyncio.Event) -> int:
    """Run the show for about `seconds` (at least 5) or until `stop`; 0 only when all that was written arrived in order.

    With `mongodb_uri` a database of its own is made there and dropped at the end, else a MongoDB is started. With `keep`
    the relay's outbox, the configuration and the logs stay there. Raises `DaemonError` when the show cannot begin.
    """
    clock = SystemClock()
    seconds = max(_AT_LEAST_S, seconds)
    async with AsyncExitStack() as stack:
        folder = stack.enter_context(_folder(keep))
        uri, database = await stack.enter_async_context(_mongodb(mongodb_uri, folder, console))
        simulator = Simulator(database, _traffic(seconds), clock=clock)
        try:
            await simulator.prepare()
        except PyMongoError as error:
            raise DaemonError(
                f"MongoDB does not let the demo make its database: {_reason(error)}",
                hint="give the user in --mongodb-uri the role readWriteAnyDatabase, or leave it out to start a MongoDB",
            ) from error
        token = secrets.token_urlsafe(16)
        receiver = Receiver(token=token, behave=Flaky(_SEED, share=0.05, most=2), clock=clock)
        await stack.enter_async_context(receiver)
        relay = RelayProcess(
            folder,
            mongodb_uri=uri,
            database=database.name,
            receiver_url=receiver.url,
            token=token,
            clock=clock,
            stop=stop,
        )
        console.print("Starting the relay ...", highlight=False)
        await stack.enter_async_context(relay)
        if stop.is_set():
            console.print("Stopped before anything was written.")
            return 0
        console.print(
            f"{simulator.plan.events} livechat events in {len(simulator.plan.sessions)} sessions. The receiver fails now and "
            f"then on purpose; the relay tries again after {RETRY_WAIT_S} s here (default: 10 s).",
            highlight=False,
        )
        await _play(simulator, receiver, relay, Screen(console), seconds=seconds, clock=clock, stop=stop)
        exit_code = await relay.stop()
        judgement = judge(simulator.ledger, receiver.exchanges)
        fine = print_summary(console, judgement, exit_code, simulator.failures)
        if not fine:
            console.print(f"The end of the relay's log:\n{tail(relay.log)}", markup=False, highlight=False, soft_wrap=True)
        if keep is not None:
            kept = ", ".join(sorted(path.name for path in folder.iterdir() if path.is_file()))
            console.print(f"Kept in {folder.absolute()}: {kept}", markup=False, highlight=False, soft_wrap=True)
    return 0 if fine else 1


def _traffic(seconds: float) -> Traffic:
    """What fits into `seconds`, with some of them left for what the receiver failed last."""
    writing_s = seconds - min(6.0, 0.25 * seconds)
    sessions = min(400, max(3, round(0.4 * seconds)))
    return Traffic(
        sessions=sessions,
        seconds=writing_s,
        session_seconds=(min(7.0, 0.3 * writing_s), min(16.0, 0.6 * writing_s)),
        offline=max(2, sessions // 4),
        noise=round(seconds / 2),
        seed=_SEED,
    )


async def _play(
    simulator: Simulator,
    receiver: Receiver,
    relay: RelayProcess,
    screen: Screen,
    *,
    seconds: float,
    clock: Clock,
    stop: asyncio.Event,
) -> None:
    """Write, and then wait until everything arrived, the relay ended, or it takes too long; show it all the while."""
    begun = clock.monotonic()
    halt = asyncio.Event()
    patience_ends: float | None = None
    with screen.open():
        async with asyncio.TaskGroup() as tasks:
            writing = tasks.create_task(simulator.run(halt))
            while True:
                judgement = judge(simulator.ledger, receiver.exchanges)
                now = clock.monotonic()
                if writing.done() and patience_ends is None:
                    patience_ends = now + _REST_S
                doing = "Waiting for the rest" if writing.done() else "Writing and delivering"
                screen.show(Moment(doing, now - begun, seconds, judgement, simulator.ledger, simulator.chats, receiver.exchanges))
                if stop.is_set() or relay.exit_code is not None:
                    halt.set()
                over = relay.exit_code is not None or not judgement.missing or now > (patience_ends or now)
                if writing.done() and over:
                    return
                await wait_until_set(halt, _FRAME_S) if not halt.is_set() else await clock.sleep(_FRAME_S)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """A folder for everything that is written: `keep`, or one that is removed at the end."""
    if keep is None:
        with tempfile.TemporaryDirectory(prefix="livechat-relay-demo-") as name:
            yield Path(name)
        return
    try:
        keep.mkdir(parents=True, exist_ok=True)
        occupied = any(keep.iterdir())
    except OSError as error:
        raise DaemonError(f"{keep} cannot be used: {error.strerror}", hint="give --keep a folder you may write to") from error
    if occupied:
        raise DaemonError(f"{keep} is not empty", hint="give --keep an empty folder or a new one")
    yield keep


@asynccontextmanager
async def _mongodb(
    uri: str | None, folder: Path, console: Console
) -> AsyncIterator[tuple[str, AsyncIOMotorDatabase[dict[str, Any]]]]:
    """A URI and an empty database there. At the end the database is dropped, or the MongoDB that was started is gone."""
    name = f"livechat_relay_demo_{secrets.token_hex(4)}"
    borrowed = uri is not None
    async with AsyncExitStack() as stack:
        if uri is None:
            console.print("Starting MongoDB ...", highlight=False)
            uri = (await stack.enter_async_context(EmbeddedMongod(folder=folder))).uri
        try:
            client: AsyncIOMotorClient[dict[str, Any]] = AsyncIOMotorClient(
                uri, tz_aware=True, serverSelectionTimeoutMS=10_000, appname="livechat-relay-demo"
            )
            stack.callback(client.close)
            hello = await client.admin.command("hello")
        except (PyMongoError, ValueError) as error:
            raise DaemonError(
                f"MongoDB cannot be used: {_reason(error)}", hint="check --mongodb-uri, or leave it out to start a MongoDB"
            ) from error
        if "setName" not in hello:
            raise DaemonError(
                "this MongoDB is not a replica set, so it has no change streams",
                hint="start it with --replSet and run rs.initiate(), or leave --mongodb-uri out to start a MongoDB",
            )
        try:
            yield uri, client[name]
        finally:
            if borrowed:
                await _drop(client, name, console)


def _reason(error: Exception) -> str:
    """What the driver or the server says, without the page of details that comes with it."""
    if isinstance(error, OperationFailure) and error.details:
        return str(error.details.get("codeName") or error.details.get("errmsg"))
    return str(error).partition(", Timeout:")[0]


async def _drop(client: AsyncIOMotorClient[dict[str, Any]], name: str, console: Console) -> None:
    """Drop every collection: that ends a database as well, and the right to write is enough for it."""
    try:
        for collection in await client[name].list_collection_names():
            await client[name].drop_collection(collection)
    except PyMongoError as error:
        console.print(f"The database {name} could not be dropped, please do it: {_reason(error)}", markup=False, soft_wrap=True)
