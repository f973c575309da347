"""The documents that Rocket.Chat 7 stores for a livechat session, built from plain values."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import quote

from bson.binary import Binary
from bson.objectid import ObjectId

from daemon.demo.initial import ROCKET_CAT, SITE_URL, Document
from daemon.demo.texts import OfflineMessage

_LETTERS = "23456789ABCDEFGHJKLMNPQRSTWXYZabcdefghijkmnopqrstuvwxyz"
_PAGE = "https://shop.acme.example/pricing"
_BROWSERS = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:127.0) Gecko/20100101 Firefox/127.0",
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36",
    (
        "Mozilla/5.0 (iPhone; CPU iPhone OS 17_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
        "Version/17.5 Mobile/15E148 Safari/604.1"
    ),
)


def text_id(chance: random.Random) -> str:
    """17 characters, as Rocket.Chat's clients make ids."""
    return "".join(chance.choices(_LETTERS, k=17))


def hex_id(chance: random.Random) -> str:
    """24 hexadecimal digits, as Rocket.Chat's server makes ids."""
    return chance.randbytes(12).hex()


def milliseconds(moment: datetime) -> int:
    """Milliseconds since 1970, as event ids have them."""
    return int(moment.timestamp()) * 1000 + moment.microsecond // 1000


@dataclass(slots=True)
class Chat:
    """One session: what Rocket.Chat knows of it while it is open."""

    chance: random.Random
    name: str
    visitor: Document = field(default_factory=dict)
    contact: str = ""
    rid: str = ""
    inquiry: str = ""
    subscription: str = ""
    agent: Document | None = None
    answered: bool = False
    closed: bool = False
    left_open: bool = False
    messages: int = 0
    created: datetime | None = None
    latest: datetime | None = None
    last_message: Document | None = None

    @property
    def state(self) -> str:
        """Where it stands, in a word."""
        if self.closed:
            return "closed"
        if self.agent:
            return "served"
        return "queued" if self.rid else "new"

    @property
    def server(self) -> Document:
        """Who speaks for the company."""
        return self.agent or ROCKET_CAT


def author(user: Document) -> Document:
    """The short form of a user or visitor."""
    return {"_id": user["_id"], "username": user["username"]}


def markdown(text: str) -> list[Document]:
    """The parsed form of a text, as far as this traffic needs it."""
    return [{"type": "PARAGRAPH", "value": [{"type": "PLAIN_TEXT", "value": line}]} for line in text.splitlines()]


def visitor(chat: Chat, guest: int, email: str | None, department: str | None, now: datetime) -> Document:
    """A visitor who fills in the registration form of the widget."""
    document = {
        "_id": hex_id(chat.chance),
        "token": text_id(chat.chance),
        "_updatedAt": now,
        "host": "chat.acme.example",
        "ip": f"203.0.113.{chat.chance.randint(1, 254)}",
        "name": chat.name,
        "status": "online",
        "ts": now,
        "userAgent": chat.chance.choice(_BROWSERS),
        "username": f"guest-{guest}",
    }
    document |= {"visitorEmails": [{"address": email}]} if email else {}
    document |= {"department": department} if department else {}
    return document


def contact(chat: Chat, now: datetime) -> Document:
    """The contact that is made for a new visitor."""
    channel = {
        "name": "widget",
        "visitor": {"visitorId": chat.visitor["_id"], "source": {"type": "widget"}},
        "blocked": False,
        "verified": False,
        "details": {"type": "widget", "destination": _PAGE},
    }
    return {
        "_id": chat.contact,
        "createdAt": now,
        "name": chat.name,
        "channels": [channel],
        "customFields": {},
        "unknown": True,
        "preRegistration": False,
        "_updatedAt": now,
    }


def room(chat: Chat, department: str | None, now: datetime) -> Document:
    """A room as it is created."""
    document = {
        "_id": chat.rid,
        "cl": False,
        "contactId": chat.contact,
        "estimatedWaitingTimeQueue": 9999999,
        "fname": chat.name,
        "lm": now,
        "msgs": 0,
        "open": True,
        "priorityWeight": 99,
        "queuedAt": now,
        "source": {"type": "widget", "destination": _PAGE},
        "t": "l",
        "ts": now,
        "usersCount": 1,
        "v": _visitor_reference(chat),
        "verified": False,
        "waitingResponse": True,
        "_updatedAt": now,
    }
    return document | ({"departmentId": department} if department else {})


def inquiry(chat: Chat, department: str | None, now: datetime) -> Document:
    """The entry in the queue that goes with a new room."""
    document = {
        "_id": chat.inquiry,
        "estimatedWaitingTimeQueue": 9999999,
        "message": "",
        "name": chat.name,
        "priorityWeight": 99,
        "rid": chat.rid,
        "source": {"type": "widget", "destination": _PAGE},
        "status": "queued",
        "t": "l",
        "ts": now,
        "v": _visitor_reference(chat),
        "_updatedAt": now,
    }
    return document | ({"department": department} if department else {})


def subscription(chat: Chat, agent: Document, now: datetime) -> Document:
    """The agent's membership of the room."""
    return {
        "_id": chat.subscription,
        "rid": chat.rid,
        "name": chat.name,
        "fname": chat.name,
        "alert": True,
        "open": True,
        "unread": 1,
        "userMentions": 1,
        "groupMentions": 0,
        "u": author(agent),
        "t": "l",
        "v": _visitor_reference(chat),
        "ts": now,
        "_updatedAt": now,
    }


def message(chat: Chat, text: str, now: datetime, *, by_visitor: bool) -> Document:
    """What the visitor or the agent says."""
    document = {"_id": text_id(chat.chance), "rid": chat.rid, "msg": text, "ts": now}
    if by_visitor:
        document |= {"token": chat.visitor["token"], "alias": chat.name}
        document |= {"u": {**author(chat.visitor), "name": chat.name}}
    else:
        document |= {"u": chat.server}
    document |= {"md": markdown(text)} if text else {}
    return document | {"urls": [], "mentions": [], "channels": [], "_updatedAt": now}


def system_message(chat: Chat, kind: str, text: str, user: Document, now: datetime, **more: object) -> Document:
    """A message that Rocket.Chat itself puts into the room."""
    document = {"_id": hex_id(chat.chance), "t": kind, "rid": chat.rid, "ts": now, "msg": text, "u": user}
    return document | {"groupable": False, **more, "_updatedAt": now}


def channel_message(message_id: str, channel: str, text: str, user: Document, now: datetime) -> Document:
    """A message in an ordinary channel; rocket.cat's are never grouped."""
    document = {"_id": message_id, "rid": channel, "msg": text, "ts": now, "u": user, "urls": [], "mentions": []}
    document |= {"groupable": False} if user is ROCKET_CAT else {}
    return document | {"channels": [], "md": markdown(text), "_updatedAt": now}


def offline_text(message: OfflineMessage, department: str | None) -> str:
    """What rocket.cat posts for an offline message."""
    lines = ["A new Livechat offline Message has been sent: "]
    lines += [f"Sent from: {message.host} "] if message.host else []
    lines += [f"Visitor Name: {message.name} ", f"Visitor E-mail: {message.email} "]
    lines += [f"Department: {department} "] if department else []
    return "\n".join([*lines, f"Message: {message.text} ", ""])


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way: its row, its content, what the row gets when it is complete, and what the message shows."""

    row: Document
    chunk: Document
    stored: Document
    complete: Document
    shown: Document


def upload(chat: Chat, name: str, kind: str, now: datetime, *, by_visitor: bool) -> Upload:
    """A file of the visitor or the agent."""
    file, size, group = text_id(chat.chance), chat.chance.randint(200, 4000), kind.partition("/")[0]
    encoded = quote(name, safe=";,/?:@&=+$-_.!~*'()#")
    link, path = f"/file-upload/{file}/{encoded}", f"/ufs/GridFS:Uploads/{file}/{encoded}"
    row: Document = {"_id": file, "name": name, "type": kind, "size": size, "rid": chat.rid, "store": "GridFS:Uploads"}
    row |= {"visitorToken": chat.visitor["token"]} if by_visitor else {"userId": chat.server["_id"]}
    row |= {"complete": False, "uploading": True, "progress": 0, "extension": name.rpartition(".")[2]}
    row |= {"typeGroup": group, "_updatedAt": now}
    brief: dict[str, Any] = {"_id": file, "name": name, "type": kind}
    attachment = {"title": name, "type": "file", "title_link": link, "title_link_download": True}
    if kind.startswith("image/"):
        attachment |= {"image_url": link, "image_type": kind, "image_size": size}
    if not by_visitor:
        brief |= {"size": size, "format": "", "typeGroup": group}
        attachment |= {"size": size, "fileId": file}
    return Upload(
        row=row,
        chunk={"_id": ObjectId(hex_id(chat.chance)), "files_id": file, "n": 0, "data": Binary(bytes(size))},
        stored={"_id": file, "length": size, "chunkSize": 261120, "uploadDate": now, "filename": name},
        complete={
            "complete": True,
            "progress": 1,
            "uploading": False,
            "etag": text_id(chat.chance),
            "uploadedAt": now,
            "path": path,
            "url": f"{SITE_URL}{path}",
        },
        shown={"file": brief, "files": [brief], "groupable": False, "attachments": [attachment]},
    )


def _visitor_reference(chat: Chat) -> Document:
    return {key: chat.visitor[key] for key in ("_id", "username", "token", "status")}
