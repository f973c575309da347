"""Traffic as Rocket.Chat writes it: a livechat message is its insert and the updates of room, subscription and inquiry; noise
is what other rooms and users do meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

from bson.timestamp import Timestamp
from motor.motor_asyncio import AsyncIOMotorDatabase
from pymongo import InsertOne, UpdateOne

Database = AsyncIOMotorDatabase[dict[str, Any]]
TEXT = "It was billed twice, could you please have a look at it? " * 7  # makes a payload of about 1 kB
_CHANNELS = 50
_USERS = 200
_CHUNK = 250  # of a bulk write, in messages


class Traffic:
    """Writes to one database. `written` is when the insert of a message was acknowledged, by the event id of the message."""

    def __init__(self, database: Database, sessions: int = 200) -> None:
        self._database = database
        self.sessions = sessions
        self.written: dict[str, float] = {}
        self._messages = 0
        self._noise = 0

    async def prepare(self) -> None:
        """Everything that exists before: settings, people, sessions that are served, channels."""
        now = datetime.now(UTC)
        database = self._database
        await database["rocketchat_settings"].insert_one({"_id": "Site_Url", "value": "https://chat.example.org"})
        await database["rocketchat_statistics"].insert_one({"version": "7.5.0", "createdAt": now})
        await database["users"].insert_many([_user(number) for number in range(_USERS)])
        rooms = [f"r{number}" for number in range(self.sessions)]
        await database["rocketchat_livechat_visitor"].insert_many([_visitor(room) for room in rooms])
        await database["rocketchat_room"].insert_many([room_document(room, now) for room in rooms])
        await database["rocketchat_subscription"].insert_many([{"_id": f"s-{room}", "rid": room, "u": _AGENT} for room in rooms])
        inquiries = [{"_id": f"i-{room}", "rid": room, "status": "taken", "ts": now} for room in rooms]
        await database["rocketchat_livechat_inquiry"].insert_many(inquiries)
        channels = [{"_id": f"c{number}", "t": "c", "name": f"channel-{number}", "msgs": 0} for number in range(_CHANNELS)]
        await database["rocketchat_room"].insert_many(channels)
        members = [{"_id": f"s-c{number}", "rid": f"c{number}", "unread": 0} for number in range(_CHANNELS)]
        await database["rocketchat_subscription"].insert_many(members)
        await database["rocketchat_sessions"].insert_many([{"_id": f"login{n}", "userId": f"u{n}"} for n in range(_USERS)])
        await database["rocketchat_message"].create_index([("rid", 1), ("ts", 1)])

    async def next_second(self) -> Timestamp:
        """Wait for a whole second, so that `capture.start` can name what comes and nothing that was before."""
        await asyncio.sleep(1.05 - time.time() % 1)
        return Timestamp(int(time.time()), 0)

    async def messages(self, count: int) -> None:
        """As fast as it goes: messages in turn in all sessions."""
        for start in range(0, count, _CHUNK):
            await self._write_messages([self._next() for _ in range(min(_CHUNK, count - start))])

    async def noise(self, count: int) -> None:
        """As fast as it goes: changes that have nothing to do with livechat."""
        for start in range(0, count, 2000):
            await self._write_noise(min(2000, count - start))

    async def mixed(self, changes: int) -> int:
        """`changes` of which every tenth is of livechat; gives how many messages that were."""
        done = 0
        for _ in range(0, changes, 1000):
            await asyncio.gather(self._write_messages([self._next() for _ in range(25)]), self._write_noise(900))
            done += 25
        return done

    async def last(self) -> tuple[int, int]:
        """One more message; gives its cluster time."""
        message = self._next()
        reply = await self._database.command("insert", "rocketchat_message", documents=[message])
        return reply["operationTime"].time, reply["operationTime"].inc

    async def steady(self, rate: float, seconds: float, *, rooms: tuple[str, ...] = ()) -> list[str]:
        """Messages at this rate, each change on its own, beside ten times as many changes of noise; gives their event ids.

        With `rooms` these are the sessions of the messages, in turn.
        """
        began, ids = time.monotonic(), []
        async with asyncio.TaskGroup() as tasks:
            for number in range(int(rate * seconds)):
                await asyncio.sleep(max(0.0, began + number / rate - time.monotonic()))
                message = self._next(rooms[number % len(rooms)] if rooms else None)
                ids.append(f"Message:{message['_id']}")
                tasks.create_task(self._write_one(message))
                if number % 10 == 0:
                    tasks.create_task(self._write_noise(100))
        return ids

    def number_from(self, number: int) -> None:
        """Another run writes to the same sessions: its messages have numbers of their own."""
        self._messages = number

    @property
    def count(self) -> int:
        """How many messages were made."""
        return self._messages

    def _next(self, room: str | None = None) -> dict[str, Any]:
        number = self._messages
        self._messages += 1
        return message_document(room or f"r{number % self.sessions}", number, datetime.now(UTC))

    async def _write_one(self, message: dict[str, Any]) -> None:
        await self._database["rocketchat_message"].insert_one(message)
        self.written[f"Message:{message['_id']}"] = time.monotonic()
        for collection, update in _updates(message):
            await self._database[collection].bulk_write([update])

    async def _write_messages(self, messages: list[dict[str, Any]]) -> None:
        await self._database["rocketchat_message"].insert_many(messages)
        updates = [_updates(message) for message in messages]
        for column in zip(*updates, strict=True):
            await self._database[column[0][0]].bulk_write([update for _, update in column])

    async def _write_noise(self, count: int) -> None:
        writes: dict[str, list[Any]] = {}
        now = datetime.now(UTC)
        for _ in range(count):
            number = self._noise
            self._noise += 1
            # A time of its own for each: an update that changes nothing is no change.
            collection, write = _noise(number, now + timedelta(milliseconds=number))
            writes.setdefault(collection, []).append(write)
        await asyncio.gather(*(self._database[name].bulk_write(found, ordered=False) for name, found in writes.items()))


_AGENT = {"_id": "u0", "username": "user-0", "name": "User 0"}


def message_document(room: str, number: int, now: datetime) -> dict[str, Any]:
    """A message of the visitor of a session; its id names session and number."""
    return {
        "_id": f"{room}-{number:07}",
        "rid": room,
        "msg": TEXT,
        "token": f"t-{room}",
        "ts": now,
        "u": {"_id": f"v-{room}", "username": f"guest-{room}", "name": f"Guest {room}"},
        "urls": [],
        "mentions": [],
        "channels": [],
        "md": [{"type": "PARAGRAPH", "value": [{"type": "PLAIN_TEXT", "value": TEXT}]}],
        "_updatedAt": now,
    }


def room_document(room: str, now: datetime) -> dict[str, Any]:
    """A session that is served."""
    return {
        "_id": room,
        "t": "l",
        "ts": now,
        "lm": now,
        "msgs": 0,
        "fname": f"Guest {room}",
        "open": True,
        "source": {"type": "widget"},
        "v": {"_id": f"v-{room}", "username": f"guest-{room}", "token": f"t-{room}", "status": "online"},
        "servedBy": {"_id": "u0", "username": "user-0", "ts": now},
        "_updatedAt": now,
    }


def _visitor(room: str) -> dict[str, Any]:
    agent = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36"
    person = {"_id": f"v-{room}", "username": f"guest-{room}", "token": f"t-{room}", "name": f"Guest {room}"}
    return {**person, "visitorEmails": [{"address": f"{room}@example.org"}], "userAgent": agent, "ip": "203.0.113.7"}


def _user(number: int) -> dict[str, Any]:
    user = {"_id": f"u{number}", "username": f"user-{number}", "name": f"User {number}"}
    return {**user, "emails": [{"address": f"user-{number}@example.org", "verified": True}], "status": "online"}


def _updates(message: dict[str, Any]) -> list[tuple[str, UpdateOne]]:
    room, now = message["rid"], message["ts"]
    activity = {"lm": now, "lastMessage": message, "v.lastMessageTs": now, "metrics.v.lq": now, "_updatedAt": now}
    return [
        ("rocketchat_room", UpdateOne({"_id": room}, {"$set": activity, "$inc": {"msgs": 1}})),
        (
            "rocketchat_subscription",
            UpdateOne({"_id": f"s-{room}"}, {"$set": {"alert": True, "_updatedAt": now}, "$inc": {"unread": 1}}),
        ),
        ("rocketchat_livechat_inquiry", UpdateOne({"_id": f"i-{room}"}, {"$set": {"lastMessage": message, "_updatedAt": now}})),
    ]


def _noise(number: int, now: datetime) -> tuple[str, Any]:
    """Of ten changes three are messages, three the update of their channel, two of subscriptions, one each of user and login."""
    channel, user = f"c{number // 10 % _CHANNELS}", f"u{number // 10 % _USERS}"
    message = {
        "_id": f"n{number}",
        "rid": channel,
        "msg": "The build is green again, and the page loads in half the time.",
        "ts": now,
        "u": {"_id": user, "username": f"user-{user[1:]}", "name": f"User {user[1:]}"},
        "md": [],
        "_updatedAt": now,
    }
    match number % 10:
        case 0 | 1 | 2:
            return "rocketchat_message", InsertOne(message)
        case 3 | 4 | 5:
            update = {"$set": {"lm": now, "lastMessage": message, "_updatedAt": now}, "$inc": {"msgs": 1}}
            return "rocketchat_room", UpdateOne({"_id": channel}, update)
        case 6 | 7:
            update = {"$set": {"alert": True, "_updatedAt": now}, "$inc": {"unread": 1}}
            return "rocketchat_subscription", UpdateOne({"_id": f"s-{channel}"}, update)
        case 8:
            state = ("online", "away")[number // 10 // _USERS % 2]
            return "users", UpdateOne({"_id": user}, {"$set": {"status": state, "_updatedAt": now}})
        case _:
            return "rocketchat_sessions", UpdateOne(
                {"_id": f"login{user[1:]}"}, {"$set": {"lastActivityAt": now, "_updatedAt": now}}
            )
