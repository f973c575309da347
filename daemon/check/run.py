"""All checks of one configuration: at the same time where they do not need each other, and none hides another."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from daemon.check import mongodb
from daemon.check.configuration import check_configuration
from daemon.check.endpoints import check_endpoint
from daemon.check.findings import Finding, failure
from daemon.check.outbox import Place, check_outbox
from daemon.check.rights import check_rights
from daemon.check.rocketchat import SETTINGS, Workspace, check_workspace
from daemon.clock import Clock
from daemon.compose import documents
from daemon.config.root import Config
from daemon.errors import DaemonError
from daemon.model import Document
from daemon.mongo import CODEC, describe
from daemon.send.guard import Guard

_LONGEST_CHECK_S = 20.0


async def run_checks(config: Config, path: Path | None, clock: Clock) -> list[Finding]:
    """Every finding, in the order in which a person would mend them."""
    inside: asyncio.Future[Place] = asyncio.get_running_loop().create_future()
    guard = Guard(config.send.allow, config.send.deny)
    results = await asyncio.gather(
        _Guarded("configuration").run(lambda: asyncio.to_thread(check_configuration, config, path)),
        _check_mongodb(config, clock, inside),
        *(
            _Guarded("endpoint.connection", subject=name).run(partial(check_endpoint, name, endpoint, guard, clock))
            for name, endpoint in config.endpoints.items()
        ),
        _check_outbox(config, clock, inside),
    )
    return [finding for findings in results for finding in findings]


async def _check_outbox(config: Config, clock: Clock, inside: asyncio.Future[Place]) -> list[Finding]:
    async def look() -> list[Finding]:
        findings, place = await asyncio.to_thread(check_outbox, config, clock)
        inside.set_result(place)
        return findings

    findings = await _Guarded("outbox").run(look)
    if not inside.done():
        inside.set_result(Place(None, running=False))
    return findings


async def _check_mongodb(config: Config, clock: Clock, inside: asyncio.Future[Place]) -> list[Finding]:
    where = describe(config.mongodb.connection_string(), config.mongodb.database)
    guarded = _Guarded("mongodb.server", where=where)
    hello: dict[str, Any] = {}
    try:
        client, findings = mongodb.open_client(config)
    except DaemonError as error:
        return [failure("mongodb.uri", str(error), error.hint)]

    async def server() -> list[Finding]:
        found, answer = await mongodb.check_server(client)
        hello.update(answer)
        return found

    try:
        findings += await guarded.run(server)
        if not hello:  # nothing else can be asked
            return findings
        checks: dict[str, Callable[[], Awaitable[list[Finding]]]] = {
            "mongodb.members": lambda: mongodb.check_members(client, hello, clock),
            "mongodb.majority": lambda: _now(lambda: mongodb.check_majority(hello)),
            "mongodb.clock": lambda: mongodb.check_clock(client, clock),
            "mongodb.oplog": lambda: _oplog(client, config, inside),
            "mongodb.rights": lambda: check_rights(client, config.mongodb.database),
            "rocketchat.settings": lambda: _check_rocketchat(client, config),
        }
        results = await asyncio.gather(*(_Guarded(name, where=where).run(check) for name, check in checks.items()))
        return [*findings, *(finding for found in results for finding in found)]
    finally:
        await asyncio.to_thread(client.close)


async def _now(check: Callable[[], list[Finding]]) -> list[Finding]:
    return check()


async def _oplog(client: mongodb.Client, config: Config, inside: asyncio.Future[Place]) -> list[Finding]:
    place = await inside
    return await mongodb.check_oplog(client, config, place.position, place.running)


async def _check_rocketchat(client: mongodb.Client, config: Config) -> list[Finding]:
    database = config.mongodb.database
    workspace = await read_workspace(client, database)
    if workspace is None:
        return [
            failure(
                "rocketchat.settings",
                f"database {database} has no settings of Rocket.Chat (rocketchat_settings)",
                "set mongodb.database to the path of Rocket.Chat's MONGO_URL; often rocketchat, meteor or parties",
            )
        ]
    return check_workspace(workspace, config)


async def read_workspace(client: mongodb.Client, database: str) -> Workspace | None:
    """What the checks need to know of Rocket.Chat; None when it is not there. Raises `PyMongoError`."""

    async def find(collection: str, query: Document, *fields: str, **options: Any) -> list[dict[str, Any]]:
        projection = dict.fromkeys(fields, 1)
        return await client[database].with_options(CODEC)[collection].find(query, projection, **options).to_list(None)

    settings = {row["_id"]: row.get("value") for row in await find("rocketchat_settings", {"_id": {"$in": SETTINGS}}, "value")}
    if not settings:
        return None
    statistics = await find(documents.STATISTICS, {}, "version", sort=[("createdAt", -1)], limit=1)
    departments = await find("rocketchat_livechat_department", {}, "name", "offlineMessageChannelName")
    channels = {
        str(row.get("name")): str(row["offlineMessageChannelName"]) for row in departments if row.get("offlineMessageChannelName")
    }
    wanted = {*channels.values(), str(settings.get(documents.OFFLINE_CHANNEL) or "")} - {""}
    rooms = await find("rocketchat_room", {"name": {"$in": sorted(wanted)}, "archived": {"$ne": True}}, "name") if wanted else []
    return Workspace(
        settings=settings,
        version=str(statistics[0].get("version")) if statistics else None,
        departments={str(row["_id"]): str(row.get("name")) for row in departments},
        channels=channels,
        rooms=frozenset(str(room["name"]) for room in rooms),
    )


class _Guarded:
    """A check that fails is a finding of its own."""

    def __init__(self, name: str, *, where: str = "MongoDB", subject: str | None = None) -> None:
        self._name, self._where, self._subject = name, where, subject

    async def run(self, check: Callable[[], Awaitable[list[Finding]]]) -> list[Finding]:
        """The findings of `check`, or the one that it could not be done."""
        try:
            async with asyncio.timeout(_LONGEST_CHECK_S):
                return await check()
        except TimeoutError:
            found, remedy = f"no result within {_LONGEST_CHECK_S:.0f} seconds", "try again; something may be overloaded"
        except (PyMongoError, DaemonError) as error:
            return [mongodb.as_failure(self._name, error, self._where, subject=self._subject)]
        except Exception as error:  # noqa: BLE001 - one broken check must not hide the others
            found = f"the check itself failed: {type(error).__name__}: {error}"
            remedy = "this is a defect of the relay: please report it"
        return [failure(self._name, found, remedy, subject=self._subject)]
