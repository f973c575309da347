"""What the user in mongodb.uri may do: enough for the relay, and no more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClient, AsyncIOMotorDatabase
from pymongo.errors import OperationFailure

from daemon.check.findings import Finding, failure, names, ok, warning
from daemon.compose import documents
from daemon.mongo import least_rights

_UNAUTHORIZED = 13
COLLECTIONS = (
    *(folded.collection for folded in documents.FOLDED),
    documents.MESSAGES,
    documents.UPLOADS,
    documents.STATISTICS,
)
# Of the actions of MongoDB's own roles those that tell what a user can change: data, schema, users, the server.
_CHANGING = frozenset(
    {"anyAction", "insert", "update", "remove", "dropCollection", "dropDatabase", "createUser", "grantRole", "shutdown"}
)


async def check_rights(client: AsyncIOMotorClient[dict[str, Any]], database: str) -> list[Finding]:
    """Try every read that the relay needs, then compare what the user may do with it."""
    refused = await refused_reads(client[database])
    status = await client.admin.command("connectionStatus", showPrivileges=True)
    users = [f"{user['user']}@{user['db']}" for user in status["authInfo"]["authenticatedUsers"]]
    if refused:
        who = f"user {names(users)}" if users else "without a user the relay"
        return [
            failure(
                "mongodb.rights",
                f"{who} may not read {names(refused)} of database {database}",
                f"grant the role `read`, or make a user for the relay: {least_rights(database)}",
            )
        ]
    if not users:
        return [ok("mongodb.rights", "MongoDB has no access control: everything can be read, without a user")]
    excess = changing_actions(status["authInfo"]["authenticatedUserPrivileges"])
    if excess:
        return [
            warning(
                "mongodb.rights",
                f"user {names(users)} can do more than read: {names(excess)}",
                f"the relay only reads; give it a user that can do nothing else: {least_rights(database)}",
            )
        ]
    return [ok("mongodb.rights", f"user {names(users)} can read what is needed, and change nothing")]


async def refused_reads(database: AsyncIOMotorDatabase[dict[str, Any]]) -> list[str]:
    """The needed reads that MongoDB refuses for want of rights. Raises `PyMongoError` for any other problem."""
    refused = [
        collection
        for collection in COLLECTIONS
        if not await _allowed(database, {"find": collection, "projection": {"_id": 1}, "limit": 1})
    ]
    # An empty first batch: the stream is opened, nothing is read.
    stream = {"aggregate": 1, "pipeline": [{"$changeStream": {}}], "cursor": {"batchSize": 0}}
    if not await _allowed(database, stream):
        refused.append("the change stream")
    return refused


async def _allowed(database: AsyncIOMotorDatabase[dict[str, Any]], command: dict[str, Any]) -> bool:
    try:
        reply = await database.command(command)
    except OperationFailure as error:
        if error.code == _UNAUTHORIZED:
            return False
        raise
    if reply["cursor"]["id"]:
        await database.command({"killCursors": "$cmd.aggregate", "cursors": [reply["cursor"]["id"]]})
    return True


def changing_actions(privileges: Iterable[dict[str, Any]]) -> set[str]:
    """What these privileges allow beyond reading, on whatever it is."""
    return {action for privilege in privileges for action in privilege["actions"]} & _CHANGING
