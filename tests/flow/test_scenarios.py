"""Whole stories written to a real MongoDB: read live, read with a stop in between, and by a relay first started afterwards."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any

import pytest

from daemon.demo.receiver import Receiver
from daemon.model import Change, EventType
from tests.clocks import START
from tests.compose.scenarios import (
    ALICE,
    BRUNO,
    CARLA,
    CAT,
    DEPARTMENTS,
    HELPER,
    INQUIRIES,
    MESSAGES,
    ROOMS,
    SALES,
    SETTINGS,
    SUBSCRIPTIONS,
    SUPPORT,
    USERS,
    VISITORS,
    Chat,
    Guest,
    Traffic,
    by_session,
    shortened,
    workspace_documents,
)
from tests.flow.harness import TOKEN, accepted, eventually, payloads, running, write_config
from tests.flow.traffic import Database

CHANNEL = "after-hours"
OFFLINE = (
    "A new Livechat offline Message has been sent: \nVisitor Name: Olga \nVisitor E-mail: olga@home.test \nMessage: My lamp \n"
)


def start_chat(traffic: Traffic, number: int, status: str = "queued", department: str | None = SALES) -> Chat:
    guest = Guest(traffic, f"guest{number}")
    guest.register()
    chat = Chat(traffic, guest, f"room{number}", department=department)
    chat.start(status)
    return chat


def a_long_way(traffic: Traffic) -> None:
    """Handed on in every way there is, corrected, held, and closed by the guest."""
    chat = start_chat(traffic, 1, "ready")
    chat.take(HELPER)
    chat.answer("How can I help?")
    first = chat.say("A persn, please")
    chat.forward_to_department(SUPPORT, ALICE)
    chat.edit_message(first, "A person, please")
    chat.forward_to_agent(BRUNO)
    chat.forward_to_agent(ALICE, "autoTransferUnansweredChatsToAgent")
    chat.forward_to_queue_of(SALES)
    chat.forward_to_agent(BRUNO)
    chat.forward_to_full_department(SUPPORT, ALICE)
    chat.take(ALICE)
    chat.return_to_queue(SALES)
    chat.take(BRUNO)
    chat.return_to_queue(scope="autoTransferUnansweredChatsToQueue")
    chat.forward_to_department(SUPPORT, ALICE, fallback=True)
    chat.hold()
    chat.say("Still there?")
    chat.resume_without_agent(BRUNO)
    oops = chat.answer("Oops")
    chat.delete_message(oops, history=False, mark=False)
    chat.close(None, "Closed by visitor")


def a_lead_that_comes_back(traffic: Traffic) -> None:
    """Leads, information saved after the close in each order, opened again, saved once more."""
    chat = start_chat(traffic, 2)
    chat.say("Write to second@home.test", lead={"email": "second@home.test"})
    chat.take(ALICE)
    chat.say("or call 089 12345 6789", lead={"phone": "12345 6789"}, between=lambda: chat.guest.touch(status="away"))
    chat.say("second@home.test, I said", lead={"email": "second@home.test"})
    chat.guest.rename("Vera Venus", chat)
    chat.close(tags=["billing", "vip"])
    traffic.pause(5)
    chat.save("ivn", tags=["billing"], topic="Parcel", guest={"name": "Vera Visitor"})
    traffic.pause(5)
    chat.save("vin", fields={"order": "1"}, guest={"email": "vera@office.test"})
    traffic.pause(5)
    chat.write_after_close()
    chat.reopen()
    chat.say("It is me again")
    chat.take(BRUNO)
    chat.close(BRUNO)
    traffic.pause(5)
    chat.save("inv", tags=[], guest={"name": "Vera Venus"})
    chat.answer("One more thing", CARLA)


def nobody_is_there(traffic: Traffic) -> None:
    """A chat that is only verified and closed, and an offline message in a channel."""
    chat = start_chat(traffic, 3, "verifying", None)
    chat.verify("queued")
    chat.say("Hello?")
    traffic.insert(ROOMS, {"_id": "channel1", "t": "c", "name": CHANNEL})
    cat = {"_id": CAT.id, "username": CAT.username}
    post = {"_id": "offline1", "rid": "channel1", "msg": OFFLINE, "ts": traffic.now, "u": cat, "groupable": False}
    traffic.insert(MESSAGES, post)
    chat.close(CAT, "Abandoned")


def everything() -> Traffic:
    """All stories, as if they had happened during the last minutes."""
    traffic = Traffic(at_s=int((datetime.now(UTC) - START).total_seconds()) - 600)
    for story in (a_long_way, a_lead_that_comes_back, nobody_is_there):
        story(traffic)
        traffic.pause(5)
    return traffic


async def prepare(database: Database) -> datetime:
    """The workspace before anybody chats; gives the time by MongoDB's clock."""
    for collection in (ROOMS, MESSAGES, VISITORS, INQUIRIES, SUBSCRIPTIONS):
        await database.create_collection(collection)
    beginning = workspace_documents(Livechat_OfflineMessageToChannel_channel_name=CHANNEL, Language="en")
    for collection in (USERS, DEPARTMENTS, SETTINGS):
        await database[collection].insert_many(beginning[collection])
    reply = await database.client.admin.command("ping")
    before: datetime = reply["operationTime"].as_datetime()
    return before


async def write(database: Database, changes: Iterable[Change]) -> None:
    """Write what the changes tell; what has one cluster time is one transaction."""
    for _, group in groupby(changes, key=lambda change: change.cluster_time):
        async with await database.client.start_session() as session, session.start_transaction():
            for change in group:
                collection = database[change.collection]
                if change.document is not None:
                    await collection.insert_one(dict(change.document), session=session)
                elif change.operation == "delete":
                    await collection.delete_one({"_id": change.id}, session=session)
                else:
                    operators = {"$set": change.updated, "$unset": dict.fromkeys(change.removed, 1)}
                    filled = {operator: fields for operator, fields in operators.items() if fields}
                    await collection.update_one({"_id": change.id}, filled, session=session)


def half(traffic: Traffic) -> int:
    """A place in the middle, not inside of a transaction."""
    number = len(traffic.changes) // 2
    while traffic.changes[number].cluster_time == traffic.changes[number - 1].cluster_time:
        number += 1
    return number


@pytest.mark.parametrize("reading", ["live", "stopped in between", "first started afterwards"])
async def test_stories(mongodb_uri: str, database: Database, tmp_path: Path, reading: str) -> None:
    traffic = everything()
    before = await prepare(database)
    middle = {"live": len(traffic.changes), "stopped in between": half(traffic), "first started afterwards": 0}[reading]
    expected = len(traffic.expected) + 1
    async with Receiver(token=TOKEN) as receiver:
        start: dict[str, Any] = {"capture": {"start": before.isoformat()}}
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, **start)
        if middle:
            async with running(config):
                await write(database, traffic.changes[:middle])
                if middle == len(traffic.changes):
                    await eventually(lambda: len(accepted(receiver)) >= expected, "all webhooks")
        await write(database, traffic.changes[middle:])
        async with running(config):
            await eventually(lambda: len(accepted(receiver)) >= expected, "all webhooks")
        got = payloads(receiver)
    assert {payload["type"] for payload in got} == set(EventType)
    offline = [payload for payload in got if payload["type"] == EventType.OFFLINE_MESSAGE]
    assert [(payload["visitor"], payload["message"]) for payload in offline] == [
        ({"name": "Olga", "email": "olga@home.test"}, "My lamp")
    ]
    told = [shortened(payload) for payload in got if payload["type"] != EventType.OFFLINE_MESSAGE]
    assert by_session(told) == by_session(traffic.expected)
