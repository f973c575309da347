"""The traffic: what the ledger says must be what the database holds and what its change stream tells."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import pytest
from motor.motor_asyncio import AsyncIOMotorDatabase

from daemon.demo.documents import milliseconds
from daemon.demo.initial import initial_documents
from daemon.demo.plan import Action, Traffic, make_plan
from daemon.demo.simulator import Simulator

Database = AsyncIOMotorDatabase[dict[str, Any]]


async def written(database: Database, traffic: Traffic) -> tuple[Simulator, list[dict[str, Any]]]:
    """Run the traffic; the simulator and all changes of the database meanwhile."""
    simulator = Simulator(database, traffic)
    await simulator.prepare()
    async with database.watch() as stream:
        await simulator.run(asyncio.Event())
        await database["end"].insert_one({})
        changes: list[dict[str, Any]] = []
        async for change in stream:
            if change["ns"]["coll"] == "end":
                return simulator, changes
            changes.append(change)
    raise AssertionError("the stream ended")


class Reader:
    """Tells events from changes alone, one after the other."""

    def __init__(self) -> None:
        self.rooms: set[str] = set()
        self.room_of: dict[str, str] = {}

    def event_of(self, change: dict[str, Any]) -> tuple[str, str] | None:
        """The event id and the session, if the change stands for an event."""
        document, key = change.get("fullDocument") or {}, change["documentKey"]["_id"]
        description = change.get("updateDescription", {})
        updated, removed = description.get("updatedFields", {}), description.get("removedFields", [])
        match change["ns"]["coll"], change["operationType"]:
            case "rocketchat_room", "insert":
                self.rooms.add(key)
                return f"LivechatSessionStart:{key}", key
            case "rocketchat_livechat_inquiry", "insert":
                return f"LivechatSessionQueued:{document['rid']}:{milliseconds(document['ts'])}", document["rid"]
            case "rocketchat_room", "update" if "servedBy" in updated:
                served = updated["servedBy"]
                return f"LivechatSessionTaken:{key}:{served['_id']}:{milliseconds(served['ts'])}", key
            case "rocketchat_room", "update" if "open" in removed:
                return f"LivechatSession:{key}:{milliseconds(updated['closedAt'])}", key
            case "rocketchat_message", "insert" if document["rid"] in self.rooms and "t" not in document:
                self.room_of[key] = document["rid"]
                return f"Message:{key}", document["rid"]
            case "rocketchat_message", "insert" if document["u"]["_id"] == "rocket.cat":
                return f"LivechatOfflineMessage:{key}", key
            case "rocketchat_message", "update" if "editedAt" in updated:
                return f"Message:{key}:{milliseconds(updated['editedAt'])}", self.room_of[key]
        return None


async def test_the_ledger_is_what_the_change_stream_tells(database: Database) -> None:
    simulator, changes = await written(database, Traffic(sessions=12, offline=5))
    reader = Reader()
    told: dict[str, list[str]] = {}
    for change in changes:
        event = reader.event_of(change)
        if event is not None:
            told.setdefault(event[1], []).append(event[0])
    assert told == {session: [entry.id for entry in entries] for session, entries in simulator.ledger.sessions.items()}
    assert len(simulator.ledger.owed) == simulator.plan.events
    types = Counter(entry.type for entry in simulator.ledger.owed)
    assert types["LivechatSessionStart"] == types["LivechatSessionTaken"] == 12
    assert types["LivechatSession"] == 10
    assert types["LivechatOfflineMessage"] == 5
    assert any(entry.id.count(":") == 2 for entry in simulator.ledger.owed if entry.type == "Message"), "edits"
    noise = [change for change in changes if (change.get("fullDocument") or {}).get("rid") == "GENERAL"]
    assert noise, "what is not livechat is written too"


async def test_the_database_holds_what_rocket_chat_would_leave(database: Database) -> None:
    simulator, changes = await written(database, Traffic(sessions=6, offline=0, noise=0))
    rooms = await database["rocketchat_room"].find({"t": "l"}).to_list(None)
    assert {room["_id"] for room in rooms if "open" not in room} == {chat.rid for chat in simulator.chats if chat.closed}
    assert {room["_id"] for room in rooms if room.get("open")} == {chat.rid for chat in simulator.chats if chat.left_open}
    inquiries = await database["rocketchat_livechat_inquiry"].find().to_list(None)
    assert {inquiry["rid"] for inquiry in inquiries} == {chat.rid for chat in simulator.chats if chat.left_open}
    for room in rooms:
        messages = await database["rocketchat_message"].find({"rid": room["_id"]}).sort("ts", 1).to_list(None)
        stamps = [message["ts"] for message in messages]
        assert len(set(stamps)) == len(stamps), "the order of a transcript is never open"
        assert room["lastMessage"]["_id"] == messages[-1]["_id"]
        assert messages[-1].get("t") == (None if room.get("open") else "livechat-close")
    for message in await database["rocketchat_message"].find({"file": {"$exists": True}}).to_list(None):
        assert await database["rocketchat_uploads"].find_one({"_id": message["file"]["_id"], "complete": True})
    together: dict[Any, list[str]] = {}
    for change in changes:
        if "txnNumber" in change:
            collection = change["ns"]["coll"].removeprefix("rocketchat_")
            together.setdefault((change["lsid"]["id"], change["txnNumber"]), []).append(f"{change['operationType']} {collection}")
    closing = ["delete livechat_inquiry", "update room", "insert _trash", "delete subscription", "update room"]
    assert Counter(map(tuple, together.values())) == {("insert room", "insert livechat_inquiry"): 6, tuple(closing): 5}


async def test_when_stopped_the_ledger_has_what_was_written_so_far(database: Database) -> None:
    simulator = Simulator(database, Traffic(sessions=8, seconds=30))
    await simulator.prepare()
    stop = asyncio.Event()
    async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        tasks.create_task(simulator.run(stop))
        async with database["rocketchat_room"].watch([{"$match": {"operationType": "insert"}}]) as stream:
            await stream.next()
        stop.set()
    started = {entry.session for entry in simulator.ledger.owed if entry.type == "LivechatSessionStart"}
    assert started == {room["_id"] async for room in database["rocketchat_room"].find({"t": "l"})}
    assert len(simulator.ledger.owed) == len(simulator.ledger.entries) < simulator.plan.events


async def test_a_failed_write_ends_its_session_only_and_is_not_owed(database: Database) -> None:
    simulator = Simulator(database, Traffic(sessions=3, offline=1, noise=1))
    await simulator.prepare()
    await database.command(
        {
            "collMod": "rocketchat_livechat_contact",
            "validator": {"name": {"$ne": simulator.plan.sessions[0].conversation.visitor}},
        }
    )
    await simulator.run(asyncio.Event())
    assert [failure.partition(":")[0] for failure in simulator.failures] == ["session 0 at OPEN"]
    assert {chat.state for chat in simulator.chats} == {"new", "closed"}
    assert len(simulator.ledger.owed) == simulator.plan.events - simulator.plan.sessions[0].events


def test_the_same_seed_gives_the_same_plan_and_the_pace_is_kept() -> None:
    traffic = Traffic(sessions=30, seconds=24)
    plan = make_plan(traffic)
    assert plan == make_plan(traffic)
    assert plan != make_plan(Traffic(sessions=30, seconds=24, seed=8))
    for session in plan.sessions:
        moments = [step.at_s for step in session.steps]
        assert moments == sorted(moments)
        assert moments[0] >= 0
        assert moments[-1] <= 24
        assert session.left_open == (session.steps[-1].action not in {Action.AGENT_CLOSE, Action.VISITOR_CLOSE})
    rated = traffic.at_rate(20.0)
    assert make_plan(rated).events / rated.seconds == pytest.approx(20.0)


def test_a_dozen_sessions_show_every_kind_of_action() -> None:
    actions = {step.action for session in make_plan(Traffic(sessions=12)).sessions for step in session.steps}
    assert actions == set(Action)


def test_nothing_a_visitor_says_is_a_lead() -> None:
    settings = {s["_id"]: s["value"] for s in initial_documents(datetime(2026, 1, 1, tzinfo=UTC))["rocketchat_settings"]}
    lead = re.compile(f"{settings['Livechat_lead_email_regex']}|{settings['Livechat_lead_phone_regex']}", re.IGNORECASE)
    said = {step.text for session in make_plan(Traffic(sessions=40, messages=(9, 9))).sessions for step in session.steps}
    assert not [text for text in said if lead.search(text)]
