"""Recorded livechat traffic: written to a database again as Rocket.Chat wrote it, and the webhooks it must yield."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import closing
from itertools import groupby
from pathlib import Path
from typing import Any

import bson
from bson import json_util
from motor.motor_asyncio import AsyncIOMotorClientSession, AsyncIOMotorDatabase

_FOLDER = Path(__file__).parent / "recorded"
_JSON = json_util.CANONICAL_JSON_OPTIONS.with_options(tz_aware=True)
TYPES = {
    "LivechatSessionStart", "LivechatSessionQueued", "LivechatSessionTaken", "LivechatSessionForwarded", "LivechatSession",
    "LivechatEdit", "Message", "LeadCapture", "LivechatOfflineMessage",
}  # fmt: skip

Database = AsyncIOMotorDatabase[dict[str, Any]]
Row = dict[str, Any]


def rows(*scenarios: str) -> list[Row]:
    """The recorded writes of these scenarios, in order."""
    return [row for scenario in scenarios for row in _read(f"{scenario}.jsonl")]


async def load_initial(database: Database) -> None:
    """Everything that was there before the recording began."""
    documents = defaultdict(list)
    for row in _read("initial.jsonl"):
        documents[row["collection"]].append(row["document"])
    for collection, found in documents.items():
        await database[collection].insert_many(found)
    for collection in {row["collection"] for row in rows("S1", "S2", "S7", "S11")} - set(documents):
        await database.create_collection(collection)


async def write(database: Database, writes: Iterable[Row]) -> None:
    """Write again, with the transactions that were recorded."""
    async for _ in writing(database, writes):
        pass


async def writing(database: Database, writes: Iterable[Row]) -> AsyncIterator[int]:
    """Write step by step; gives the number of writes done after each step."""
    done = 0
    for transaction, group in groupby(writes, key=lambda row: row.get("transaction")):
        together = list(group)
        if transaction is None:
            for row in together:
                await _apply(database, row, None)
        else:
            async with await database.client.start_session() as session, session.start_transaction():
                for row in together:
                    await _apply(database, row, session)
        done += len(together)
        yield done


def expected(*scenarios: str) -> list[dict[str, Any]]:
    """The payloads that a current Rocket.Chat sends for these scenarios, in its order.

    Two offline messages of S7 reach no channel, so that nothing of them is in the database.
    """
    lost = {"billing: the channel does not exist", "no channel message for this one"}
    lines = (json.loads(line) for line in (_FOLDER / "expected.jsonl").read_text(encoding="utf-8").splitlines())
    payloads = [line["payload"] for line in lines if line["scenario"] in scenarios and line["type"] in TYPES]
    return [payload for payload in payloads if payload.get("message") not in lost]


def by_session(payloads: Iterable[dict[str, Any]]) -> dict[str, list[str]]:
    """Payloads as text, in order, by session; an offline message is its own session.

    `sentAt` is left out: the server's time of the call and the time of the channel post differ by some milliseconds.
    """
    sessions: dict[str, list[str]] = defaultdict(list)
    for payload in payloads:
        session = payload.get("_id") or f"offline {payload['message']}"
        sessions[session].append(json.dumps({**payload, "sentAt": None} if "sentAt" in payload else payload))
    return sessions


async def lose_position(database: Database, folder: Path) -> None:
    """Store in the outbox the token of a change an hour before there was one: the server cannot find it, as when the oplog has
    passed it.
    """
    async with database["rocketchat_room"].watch() as changes:
        await database["rocketchat_room"].insert_one({"_id": "other", "t": "c"})
        token = (await anext(changes))["_id"]["_data"]
    hour_before = f"{int(token[2:10], 16) - 3600:08X}"
    lost = bson.encode({"_data": token[:2] + hour_before + token[10:]})
    with closing(sqlite3.connect(folder / "outbox.db")) as outbox, outbox:
        outbox.execute("UPDATE position SET token = ?", [lost])


async def _apply(database: Database, row: Row, session: AsyncIOMotorClientSession | None) -> None:
    collection = database[row["collection"]]
    match row["op"]:
        case "insert":
            await collection.insert_one(row["document"], session=session)
        case "delete":
            await collection.delete_one({"_id": row["id"]}, session=session)
        case "update":
            change = {"$set": row["updated"], "$unset": dict.fromkeys(row["removed"], 1)}
            filled = {operator: fields for operator, fields in change.items() if fields}
            await collection.update_one({"_id": row["id"]}, filled, session=session)


def _read(name: str) -> list[Row]:
    lines = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    return [json_util.loads(line, json_options=_JSON) for line in lines]
