"""Offline messages by both ways: posts in channels that are renamed and re-labelled while it runs, and the intake."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from daemon.config.file import load
from daemon.demo.receiver import Receiver
from tests.flow import traffic
from tests.flow.harness import TOKEN, accepted, eventually, payloads, running, write_config
from tests.flow.traffic import Database

INTAKE_TOKEN = "rocket"
INTAKE = {"enabled": True, "secret_token": INTAKE_TOKEN}
SENT_AT = datetime(2026, 11, 23, 8, 0, 0, 120_000, tzinfo=UTC)
ENGLISH = "A new Livechat offline Message has been sent: \nVisitor Name: {} \nVisitor E-mail: {} \nMessage: {} \n"
GERMAN = "Eine neue Livechat-Offline-Nachricht wurde gesendet: \nName des Besuchers: {} \nBesucher-E-Mail: {} \nNachricht: {} \n"


def post(id_: str, room: str, text: str) -> dict[str, Any]:
    cat = {"_id": "rocket.cat", "username": "rocket.cat"}
    return {"_id": id_, "rid": room, "msg": text, "ts": SENT_AT, "u": cat, "groupable": False, "urls": [], "_updatedAt": SENT_AT}


def webhook(
    message: str, *, name: str = "Olga", email: str = "olga@example.org", at: str = "2026-11-23T08:00:00.100Z"
) -> dict[str, Any]:
    return {"type": "LivechatOfflineMessage", "sentAt": at, "visitor": {"name": name, "email": email}, "message": message}


async def send(config: Path, body: object, token: str = INTAKE_TOKEN) -> int:
    url = f"http://{load(config).serve.listen}/intake/offline"
    async with (
        aiohttp.ClientSession() as http,
        http.post(url, json=body, headers={"X-RocketChat-Livechat-Token": token}) as answer,
    ):
        return answer.status


async def test_channels_that_change_while_it_runs(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    await traffic.load_initial(database)
    rooms, settings, messages = (database[f"rocketchat_{name}"] for name in ("room", "settings", "message"))
    await rooms.insert_many([{"_id": "desk", "t": "c", "name": "desk"}, {"_id": "elsewhere", "t": "c", "name": "elsewhere"}])
    async with Receiver(token=TOKEN) as receiver:
        async with running(write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url)):
            await messages.insert_one(post("m1", "desk", ENGLISH.format("A", "a@example.org", "not an offline channel yet")))
            await settings.update_one(
                {"_id": "Livechat_OfflineMessageToChannel_channel_name"}, {"$set": {"value": "front-desk"}}, upsert=True
            )
            await messages.insert_one(post("m2", "desk", ENGLISH.format("A", "a@example.org", "still another name")))
            await rooms.update_one({"_id": "desk"}, {"$set": {"name": "front-desk"}})
            await messages.insert_one(post("m3", "desk", ENGLISH.format("B", "b@example.org", "first")))
            await settings.update_one({"_id": "Language"}, {"$set": {"value": "de"}}, upsert=True)
            await messages.insert_one(post("m4", "desk", GERMAN.format("C", "c@example.org", "zweite")))
            await messages.insert_one(post("m5", "elsewhere", ENGLISH.format("D", "d@example.org", "nobody's channel")))
            await database["rocketchat_livechat_department"].insert_one(
                {"_id": "night", "name": "Night", "offlineMessageChannelName": "elsewhere"}
            )
            await messages.insert_one(post("m6", "elsewhere", ENGLISH.format("E", "e@example.org", "a department's channel")))
            await messages.insert_one(post("m7", "desk", "just a remark of the bot"))
            await messages.insert_one(post("m8", "desk", ENGLISH.format("F", "f@example.org", "last")))
            await eventually(lambda: len(accepted(receiver)) >= 4, "the offline messages")
        got = {(payload["visitor"]["name"], payload["message"]) for payload in payloads(receiver)}
        assert got == {("B", "first"), ("C", "zweite"), ("E", "a department's channel"), ("F", "last")}
        assert len(accepted(receiver)) == 4
        assert all(payload["sentAt"] == "2026-11-23T08:00:00.120Z" for payload in payloads(receiver))


async def test_both_ways_count_once(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """Whichever comes first is delivered; equal texts pair one to one; a repeated webhook is the same one."""
    await traffic.load_initial(database)
    messages = database["rocketchat_message"]
    channel = (await database["rocketchat_room"].find_one({"name": "offline-messages"}) or {})["_id"]
    async with Receiver(token=TOKEN) as receiver:
        config = write_config(tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, intake=INTAKE)
        async with running(config):
            assert await send(config, webhook("by both, webhook first")) == 200
            await messages.insert_one(post("m1", channel, ENGLISH.format("Olga", "olga@example.org", "by both, webhook first")))
            await messages.insert_one(post("m2", channel, ENGLISH.format("Olga", "olga@example.org", "by both, channel first")))
            await eventually(lambda: len(accepted(receiver)) >= 2)
            assert await send(config, webhook("by both, channel first")) == 200
            for _ in range(3):
                assert await send(config, webhook("only by webhook, repeated")) == 200
            assert await send(config, webhook("twice", at="2026-11-23T08:00:01.000Z")) == 200
            assert await send(config, webhook("twice", at="2026-11-23T08:00:02.000Z")) == 200
            await messages.insert_one(post("m3", channel, ENGLISH.format("Olga", "olga@example.org", "twice")))
            await messages.insert_one(post("m4", channel, ENGLISH.format("Olga", "olga@example.org", "twice")))
            await messages.insert_one(post("m5", channel, ENGLISH.format("Olga", "olga@example.org", "only in the channel")))
            await eventually(lambda: any("only in" in payload["message"] for payload in payloads(receiver)), "the last one")
        texts = sorted(payload["message"] for payload in payloads(receiver))
        assert texts == [
            "by both, channel first",
            "by both, webhook first",
            "only by webhook, repeated",
            "only in the channel",
            "twice",
            "twice",
        ]
        assert payloads(receiver)[0] == webhook("by both, webhook first")


async def test_intake_survives_a_stop_and_refuses_what_it_must(mongodb_uri: str, database: Database, tmp_path: Path) -> None:
    """What was answered with 200 is delivered after a restart, also when MongoDB and the endpoint were away."""
    await traffic.load_initial(database)
    receiver = Receiver(token=TOKEN)
    await receiver.start()
    config = write_config(
        tmp_path, uri=mongodb_uri, database=database.name, url=receiver.url, intake=INTAKE, endpoint={"retry": {"wait": "200ms"}}
    )
    await receiver.stop()
    async with running(config):
        assert await send(config, webhook("kept")) == 200
        assert await send(config, webhook("kept"), token="wrong") == 401
        assert await send(config, {**webhook("kept"), "type": "LivechatSession"}) == 422
        assert await send(config, webhook("x" * 300_000)) == 413
    await receiver.start()
    async with running(config):
        await eventually(lambda: accepted(receiver), "the kept message")
    await receiver.stop()
    assert payloads(receiver) == [webhook("kept")]
