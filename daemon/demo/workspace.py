"""Rocket.Chat 7 as MongoDB sees it: each method makes the writes of one livechat action, in Rocket.Chat's order.

Every write is acknowledged by the majority. The writes that make an event are entered in the ledger.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Coroutine
from datetime import datetime, timedelta
from typing import Any

from motor.motor_asyncio import AsyncIOMotorClientSession, AsyncIOMotorDatabase
from pymongo import ReturnDocument, WriteConcern

from daemon.clock import Clock
from daemon.demo import documents
from daemon.demo.documents import Chat, author, milliseconds
from daemon.demo.initial import (
    COLLECTIONS,
    INDEXES,
    OFFLINE_CHANNEL,
    ROCKET_CAT,
    SUPPORT_CHANNEL,
    Document,
    initial_documents,
)
from daemon.demo.ledger import Ledger
from daemon.demo.texts import OfflineMessage

_MAJORITY = WriteConcern("majority", wtimeout=60_000)


class Workspace:
    """The database of one Rocket.Chat server."""

    def __init__(self, database: AsyncIOMotorDatabase[Document], ledger: Ledger, clock: Clock) -> None:
        self._db = database.with_options(write_concern=_MAJORITY)
        self._ledger = ledger
        self._clock = clock

    async def prepare(self) -> None:
        """Create collections, indexes and the documents that exist before the first visitor."""
        for collection in COLLECTIONS:
            await self._db.create_collection(collection)
        for collection, indexes in INDEXES.items():
            for keys in indexes:
                await self._db[collection].create_index(keys)
        for collection, initial in initial_documents(self._now()).items():
            await self._db[collection].insert_many(initial)

    async def open(self, chat: Chat, email: str | None, department: str | None) -> None:
        """A visitor registers and opens a room, which waits in the queue."""
        guest = await self._count("Livechat_guest_count")
        chat.visitor = documents.visitor(chat, guest, email, department, self._stamp(chat))
        await self._db.rocketchat_livechat_visitor.insert_one(chat.visitor)
        chat.contact = documents.hex_id(chat.chance)
        await self._db.rocketchat_livechat_contact.insert_one(documents.contact(chat, self._stamp(chat)))
        chat.rid, chat.inquiry = documents.text_id(chat.chance), documents.hex_id(chat.chance)
        chat.created = self._stamp(chat)
        room = documents.room(chat, department, chat.created)
        inquiry = documents.inquiry(chat, department, self._stamp(chat))

        async def create(session: AsyncIOMotorClientSession) -> None:
            await self._db.rocketchat_room.insert_one(room, session=session)
            await self._db.rocketchat_livechat_inquiry.insert_one(inquiry, session=session)

        queued = f"LivechatSessionQueued:{chat.rid}:{milliseconds(inquiry['ts'])}"
        with self._ledger.writing(f"LivechatSessionStart:{chat.rid}", chat.rid), self._ledger.writing(queued, chat.rid):
            await self._transaction(create)
        last = {"_id": chat.rid, "ts": self._stamp(chat)}
        await self._set("rocketchat_livechat_visitor", chat.visitor["_id"], {"lastChat": last})
        await self._set("rocketchat_livechat_contact", chat.contact, {"lastChat": last, "channels.0.lastChat": last})
        token = chat.visitor["token"]
        await self._activity(chat, await self._system(chat, "livechat-started", "", author(chat.visitor), token=token))
        await self._count("Livechat_Room_Count")

    async def take(self, chat: Chat, agent: Document) -> None:
        """An agent takes the chat out of the queue."""
        change = {"status": "taken", "takenAt": self._stamp(chat)}
        await self._set("rocketchat_livechat_inquiry", chat.inquiry, change, remove=("queuedAt", "defaultAgent"))
        chat.subscription = documents.hex_id(chat.chance)
        membership = documents.subscription(chat, agent, self._stamp(chat))
        await self._db.rocketchat_subscription.insert_one(membership)
        now = self._stamp(chat)
        with self._ledger.writing(f"LivechatSessionTaken:{chat.rid}:{agent['_id']}:{milliseconds(now)}", chat.rid):
            await self._set("rocketchat_room", chat.rid, {"servedBy": {**author(agent), "ts": now}})
        chat.agent = agent
        await self._set("rocketchat_room", chat.rid, {}, count={"usersCount": 1})
        await self._system(chat, "command", "connected", agent)
        await self._system(chat, "uj", "", agent)

    async def say(self, chat: Chat, text: str, *, by_visitor: bool, file: Document | None = None) -> None:
        """A message of the visitor or the agent, and the updates of room, inquiry and subscription that follow it."""
        message = documents.message(chat, text, self._stamp(chat), by_visitor=by_visitor) | (file or {})
        with self._ledger.writing(f"Message:{message['_id']}", chat.rid):
            await self._db.rocketchat_message.insert_one(message)
        await (self._after_visitor(chat, message) if by_visitor else self._after_agent(chat, message))
        await self._activity(chat, message)

    async def send_file(self, chat: Chat, name: str, kind: str, *, by_visitor: bool) -> None:
        """An upload and the message that shows it."""
        upload = documents.upload(chat, name, kind, self._now(), by_visitor=by_visitor)
        await self._db.rocketchat_uploads.insert_one(upload.row)
        await self._db["rocketchat_uploads.chunks"].insert_one(upload.chunk)
        await self._db["rocketchat_uploads.files"].insert_one(upload.stored)
        await self._set("rocketchat_uploads", upload.row["_id"], upload.complete)
        await self.say(chat, "", by_visitor=by_visitor, file=upload.shown)

    async def edit_last(self, chat: Chat, text: str) -> None:
        """The author of the last message corrects it."""
        message = chat.last_message
        if message is None:
            return
        now = self._stamp(chat)
        edit = {"msg": text, "md": documents.markdown(text), "editedAt": now, "editedBy": author(message["u"])}
        with self._ledger.writing(f"Message:{message['_id']}:{milliseconds(now)}", chat.rid):
            await self._set("rocketchat_message", message["_id"], edit)
        chat.last_message = {**message, **edit}
        await self._set("rocketchat_room", chat.rid, {"lastMessage": chat.last_message})

    async def save_info(self, chat: Chat, topic: str, tags: list[str]) -> None:
        """The agent notes topic, tags and a custom field while the room is open; no event comes from that."""
        await self._set("rocketchat_livechat_visitor", chat.visitor["_id"], {})
        change: Document = {"topic": topic, "livechatData.orderId": f"A-{chat.chance.randint(10, 99)}"}
        await self._set("rocketchat_room", chat.rid, change | ({"tags": tags} if tags else {}))

    async def close(self, chat: Chat, comment: str, tags: list[str], *, by_visitor: bool) -> None:
        """The agent or the visitor closes the chat: a transaction, then the closing message, which completes the event."""
        closed = self._stamp(chat)
        who = author(chat.visitor if by_visitor else chat.server)
        change: Document = {"closedAt": closed, "closedBy": who, "closer": "visitor" if by_visitor else "user"}
        change |= {"metrics.chatDuration": (closed - (chat.created or closed)).total_seconds(), "v.status": "offline"}
        change |= {"tags": tags} if tags else {}
        await self._to_trash("livechat_inquiry", chat.inquiry)

        async def settle(session: AsyncIOMotorClientSession) -> None:
            await self._db.rocketchat_livechat_inquiry.delete_one({"_id": chat.inquiry}, session=session)
            await self._set("rocketchat_room", chat.rid, change, remove=("open",), session=session)
            if chat.subscription:
                await self._to_trash("subscription", chat.subscription, session=session)
                await self._db.rocketchat_subscription.delete_one({"_id": chat.subscription}, session=session)
                await self._set("rocketchat_room", chat.rid, {}, count={"usersCount": -1}, session=session)

        token = {"token": chat.visitor["token"]} if by_visitor else {}
        with self._ledger.writing(f"LivechatSession:{chat.rid}:{milliseconds(closed)}", chat.rid):
            await self._transaction(settle)
            text = "Closed by visitor" if by_visitor else comment
            closing = await self._system(chat, "livechat-close", text, who, transcriptRequested=False, **token)
        chat.closed = True
        await self._activity(chat, closing)
        await self._set("rocketchat_room", chat.rid, {"metrics.visitorInactivity": 0})

    async def leave_offline_message(self, chance: random.Random, offline: OfflineMessage, department: Document | None) -> None:
        """Rocket.Chat mails an offline message and lets rocket.cat post it to the channel for them."""
        await self._count("Triggered_Emails_Count")
        message = documents.hex_id(chance)
        has_channel = department is not None and department["offlineMessageChannelName"]
        post = documents.offline_text(offline, department["name"] if department else None)
        with self._ledger.writing(f"LivechatOfflineMessage:{message}", message):
            await self._post(message, SUPPORT_CHANNEL if has_channel else OFFLINE_CHANNEL, post, ROCKET_CAT)

    async def chatter(self, chance: random.Random, channel: str, user: Document, text: str) -> None:
        """Somebody says something in a channel, and somebody's presence changes: nothing of livechat."""
        await self._post(documents.text_id(chance), channel, text, user)
        await self._set("users", user["_id"], {"status": chance.choice(("online", "away"))})

    async def _post(self, message_id: str, channel: str, text: str, user: Document) -> None:
        now = self._now()
        message = documents.channel_message(message_id, channel, text, user, now)
        await self._db.rocketchat_message.insert_one(message)
        await self._db.rocketchat_subscription.update_many({"rid": channel}, {"$set": {"alert": True, "_updatedAt": now}})
        await self._set("rocketchat_room", channel, {"lm": now, "lastMessage": message}, count={"msgs": 1})

    async def _after_visitor(self, chat: Chat, message: Document) -> None:
        if chat.agent:
            await self._set("rocketchat_subscription", chat.subscription, {"alert": True}, count={"unread": 1})
        change = {"metrics.v.lq": message["ts"], "v.lastMessageTs": message["ts"], "waitingResponse": True}
        await self._set("rocketchat_room", chat.rid, change, remove=("responseBy",))
        if not chat.agent:
            await self._set("rocketchat_livechat_inquiry", chat.inquiry, {"lastMessage": message})

    async def _after_agent(self, chat: Chat, message: Document) -> None:
        ts = message["ts"]
        await self._set("rocketchat_subscription", chat.subscription, {"ls": ts, "alert": False, "unread": 0})
        change: Document = {"metrics.servedBy.lr": ts}
        change["responseBy"] = {**author(message["u"]), "firstResponseTs": ts, "lastMessageTs": ts}
        if not chat.answered:
            chat.answered = True
            month = [ts.strftime("%Y-%m")]
            await self._set("rocketchat_livechat_contact", chat.contact, {"activity": month})
            await self._set("rocketchat_livechat_inquiry", chat.inquiry, {"v.activity": month})
            wait = (ts - (chat.created or ts)).total_seconds()
            change |= {"metrics.response": {"avg": wait, "fd": ts, "ft": wait, "total": 1, "tt": wait}}
            change |= {"v.activity": month}
        await self._set("rocketchat_room", chat.rid, change, remove=("waitingResponse",))

    async def _activity(self, chat: Chat, message: Document) -> None:
        """The room notes its last message."""
        chat.messages += 1
        if "t" not in message:
            chat.last_message = message
        change = {"lm": message["ts"], "lastMessage": message}
        await self._set("rocketchat_room", chat.rid, change, count={"msgs": 1})

    async def _system(self, chat: Chat, kind: str, text: str, user: Document, **more: object) -> Document:
        message = documents.system_message(chat, kind, text, user, self._stamp(chat), **more)
        await self._db.rocketchat_message.insert_one(message)
        await self._set("rocketchat_room", chat.rid, {}, count={"msgs": 1})
        return message

    async def _to_trash(self, model: str, key: str, *, session: AsyncIOMotorClientSession | None = None) -> None:
        document = await self._db[f"rocketchat_{model}"].find_one({"_id": key}, session=session)
        if document is not None:
            document |= {"__collection__": model, "_deletedAt": self._now()}
            await self._db.rocketchat__trash.replace_one({"_id": key}, document, upsert=True, session=session)

    async def _count(self, setting: str) -> int:
        document = await self._db.rocketchat_settings.find_one_and_update(
            {"_id": setting},
            {"$inc": {"value": 1}, "$set": {"_updatedAt": self._now()}},
            return_document=ReturnDocument.AFTER,
        )
        return int(document["value"]) if document else 0

    async def _set(
        self,
        collection: str,
        key: str,
        values: Document,
        *,
        count: dict[str, int] | None = None,
        remove: tuple[str, ...] = (),
        session: AsyncIOMotorClientSession | None = None,
    ) -> None:
        """One update, which also sets `_updatedAt`, as every update of Rocket.Chat does."""
        change: Document = {"$set": {"_updatedAt": self._now(), **values}}
        change |= {"$inc": count} if count else {}
        change |= {"$unset": dict.fromkeys(remove, 1)} if remove else {}
        await self._db[collection].update_one({"_id": key}, change, session=session)

    async def _transaction(self, body: Callable[[AsyncIOMotorClientSession], Coroutine[Any, Any, None]]) -> None:
        async with await self._db.client.start_session() as session:
            await session.with_transaction(body, write_concern=_MAJORITY)

    def _now(self) -> datetime:
        """Now, to the millisecond, as BSON keeps it."""
        now = self._clock.now()
        return now.replace(microsecond=now.microsecond // 1000 * 1000)

    def _stamp(self, chat: Chat) -> datetime:
        """Now, and later than every moment that was noted in this chat before."""
        now = self._now()
        if chat.latest is not None and now <= chat.latest:
            now = chat.latest + timedelta(milliseconds=1)
        chat.latest = now
        return now
