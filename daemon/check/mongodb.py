"""MongoDB as the relay needs it: a replica set that commits, an oplog that reaches back, a clock that agrees."""

from __future__ import annotations

import warnings
from datetime import datetime
from typing import Any

from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorClient
from pymongo.errors import PyMongoError
from pymongo.topology_description import TopologyDescription

from daemon.capture.oplog import Oplog
from daemon.check.findings import Finding, failure, for_long, names, ok, warning
from daemon.clock import Clock
from daemon.config.root import Config
from daemon.errors import DaemonError, MongoError
from daemon.model import Document, Position
from daemon.mongo import CODEC, LOST_HINT, REPLICA_SET_HINT, Moment, classify, connect, problem, tls_hint

_OLDEST = (5, 0)
_SERVER_S = 4.0
_DISCOVERY_S = 2.0
_MOST_CLOCK_DIFFERENCE_S = 2.0
_MOST_COMMIT_LAG_S = 15.0
_SHORT_WINDOW_S = 86400.0

_NO_PRIMARY = ("No primary available", 'match selector "Primary()"')

Client = AsyncIOMotorClient[dict[str, Any]]


def open_client(config: Config) -> tuple[Client, list[Finding]]:
    """A client that gives up soon, and what the driver does not like about mongodb.uri."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        client = connect(
            config.mongodb.connection_string(),
            serverSelectionTimeoutMS=int(_SERVER_S * 1000),
            connectTimeoutMS=int(_SERVER_S * 1000),
            socketTimeoutMS=10_000,
        )
    return client, [warning("mongodb.uri", f"mongodb.uri: {each.message}", "mend or remove that option") for each in told]


def as_failure(check: str, error: Exception, where: str, *, subject: str | None = None) -> Finding:
    """A read that MongoDB refused or did not answer."""
    known = classify(error, Moment.OPENING, where) if isinstance(error, PyMongoError) else None
    if isinstance(error, DaemonError):
        known = error
    if known is not None:
        return failure(check, str(known), known.hint, subject=subject)
    if any(text in str(error) for text in _NO_PRIMARY):
        remedy = "rs.status() in mongosh tells why: a majority of the members must run and reach each other for one to be primary"
        return failure(check, f"{where}: the replica set has no primary", remedy, subject=subject)
    remedy = tls_hint(error) or "check that MongoDB runs, host and port in mongodb.uri, and firewalls between"
    return failure(check, f"{where}: {problem(error)}", remedy, subject=subject)


async def check_server(client: Client) -> tuple[list[Finding], Document]:
    """Version and kind; also gives the server's `hello`. Raises `PyMongoError` or `MongoError` when it cannot be used."""
    hello: dict[str, Any] = await client.admin.command("hello", codec_options=CODEC)
    build = await client.admin.command("buildInfo")
    version = str(build["version"])
    if hello.get("msg") == "isdbgrid":
        raise MongoError(
            f"MongoDB {version} is a sharded cluster (mongos)", hint="the relay reads replica sets; name one in mongodb.uri"
        )
    if "setName" not in hello:
        raise MongoError(f"MongoDB {version} is not a replica set", hint=REPLICA_SET_HINT)
    if tuple(build["versionArray"][:2]) < _OLDEST:
        old = f"MongoDB {version}: change streams and snapshot reads are used as 5.0 and later have them"
        return [failure("mongodb.server", old, "upgrade MongoDB; Rocket.Chat's own releases ask for it too")], hello
    return [ok("mongodb.server", f"MongoDB {version}, replica set {hello['setName']}")], hello


async def check_members(client: Client, hello: Document, clock: Clock) -> list[Finding]:
    """Which members there are, and whether they can be reached from here, as the next primary may be any of them."""
    hosts = [*hello.get("hosts", ()), *hello.get("passives", ())]
    until = clock.monotonic() + _DISCOVERY_S
    while (away := _unreachable(client, hosts)) and clock.monotonic() < until:
        await clock.sleep(0.05)
    found = f"primary {hello.get('primary') or 'unknown'}; members: {names(hosts)}"
    if hello.get("arbiters"):
        found += f"; arbiters: {names(hello['arbiters'])}"
    if away and hosts:
        remedy = "see that these members run and that their names resolve here: any of them can become primary"
        return [warning("mongodb.members", f"{found}; not reachable from here: {names(away)}", remedy)]
    return [ok("mongodb.members", found)]


def _unreachable(client: Client, hosts: list[str]) -> list[str]:
    topology: TopologyDescription = client.topology_description  # type: ignore[assignment]  # a property, in motor's types a method
    if topology.topology_type_name == "Single":  # directConnection=true
        return []
    known = {f"{host}:{port}": server.is_server_type_known for (host, port), server in topology.server_descriptions().items()}
    return [host for host in hosts if not known.get(host, False)]


def check_majority(hello: Document) -> list[Finding]:
    """Whether a majority of the members takes writes: the change stream gives nothing that is not committed by one."""
    last = hello["lastWrite"]
    written: Timestamp = last["opTime"]["ts"]
    committed: Timestamp = last["majorityOpTime"]["ts"]
    lag = written.time - committed.time
    if lag > _MOST_COMMIT_LAG_S:
        return [
            failure(
                "mongodb.majority",
                f"the last write that a majority of members has is {for_long(lag)} behind: what comes after it is not read",
                "bring the members that are away or far behind back (rs.status() in mongosh)",
            )
        ]
    return [ok("mongodb.majority", "a majority of members commits what is written")]


async def check_clock(client: Client, clock: Clock) -> list[Finding]:
    """The clock of this machine against that of MongoDB."""
    before, started = clock.now(), clock.monotonic()
    hello: dict[str, Any] = await client.admin.command("hello", codec_options=CODEC)
    took_s = clock.monotonic() - started
    theirs: datetime = hello["localTime"]
    ahead_s = (theirs - before).total_seconds() - took_s / 2
    if abs(ahead_s) - took_s / 2 > _MOST_CLOCK_DIFFERENCE_S:
        found = f"MongoDB's clock is {for_long(abs(ahead_s))} {'ahead of' if ahead_s > 0 else 'behind'} this machine's"
        remedy = "set both with NTP (timedatectl): file tokens and the times in figures depend on it"
        return [warning("mongodb.clock", found, remedy)]
    return [ok("mongodb.clock", f"MongoDB's clock and this machine's differ by {abs(ahead_s):.1f} seconds")]


async def check_oplog(client: Client, config: Config, position: Position | None, running: bool) -> list[Finding]:
    """How far back the oplog reaches, and what that means for the committed position."""
    oplog = Oplog(lambda: client[config.mongodb.database])
    window = await oplog.window(position)
    start = config.capture.start
    wanted = position.cluster_time if position is not None else None
    if wanted is None and isinstance(start, datetime):
        wanted = Timestamp(int(start.timestamp()), 0)
    reach = f"the oplog holds {'everything since the replica set began, ' if window.complete else ''}{for_long(window.length_s)}"
    if wanted is not None and wanted.time < window.oldest and not await oplog.reaches(wanted):
        found = f"{reach}, but reading must go on {for_long(window.now - wanted.time)} ago: that is lost"
        remedy = LOST_HINT if position is not None else "set capture.start to `now`, or to a time that the oplog still reaches"
        return [failure("mongodb.oplog", found, remedy)]
    enlarge = "enlarge it in mongosh: db.adminCommand({replSetResizeOplog: 1, size: <MB>, minRetentionHours: 72})"
    found = reach
    if position is not None:
        behind = for_long(max(0, window.now - position.cluster_time.time))
        found += f"; reading {'stands' if running else 'would go on'} {behind} behind"
    if window.complete:
        return [ok("mongodb.oplog", found)]
    if position is not None:
        left_s = window.left_s(position)
        found += f", {for_long(left_s)} before the oplog's end passes it"
        if left_s < window.length_s / 2:
            remedy = f"let the relay read on within {for_long(left_s)}, sooner if more is written than of late; or {enlarge}"
            return [warning("mongodb.oplog", found, remedy)]
    if window.length_s < _SHORT_WINDOW_S:
        return [warning("mongodb.oplog", f"{found}. A relay that is stopped for longer loses its place", enlarge)]
    return [ok("mongodb.oplog", found)]
