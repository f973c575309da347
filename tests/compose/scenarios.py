"""What a workspace of Rocket.Chat 7 writes when people chat, action by action, and the webhooks that it sends for it.

A `Chat` writes the changes of one action into its `Traffic`, and notes which webhooks Rocket.Chat sends, with every member that
matters. `tell` lets a composer read the traffic as capture gives it, and shortens what it says in the same way.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from bson.timestamp import Timestamp

from daemon.compose import documents
from daemon.model import Change, EventType, Watch
from tests.compose.build import START_MS, Database, Json, Workspace, endpoint, moment

ROOMS = "rocketchat_room"
MESSAGES = "rocketchat_message"
VISITORS = "rocketchat_livechat_visitor"
INQUIRIES = "rocketchat_livechat_inquiry"
SUBSCRIPTIONS = "rocketchat_subscription"
USERS = "users"
DEPARTMENTS = "rocketchat_livechat_department"
SETTINGS = "rocketchat_settings"

EVERY_EVENT = [kind for kind in EventType if kind is not EventType.OFFLINE_MESSAGE]
STEP_MS = 3
EMAIL_PATTERN = r"\b[A-Z0-9._%+-]+@(?:[A-Z0-9-]+\.)+[A-Z]{2,4}\b"
PHONE_PATTERN = r"((?:\([0-9]{1,3}\)|[0-9]{2})[ \-]*?[0-9]{4,5}(?:[\-\s\_]{1,2})?[0-9]{4}(?:(?=[^0-9])|$))"

Operation = Literal["insert", "update", "replace", "delete"]


# People and places.


@dataclass
class Agent:
    id: str
    username: str
    name: str

    @property
    def author(self) -> Json:
        return {"_id": self.id, "username": self.username, "name": self.name}


ALICE = Agent("agentAlice", "alice", "Alice Agent")
BRUNO = Agent("agentBruno", "bruno", "Bruno Núñez")
CARLA = Agent("agentCarla", "carla", "Carla Manager")
HELPER = Agent("botHelper", "helper.bot", "Helper")
CAT = Agent("rocket.cat", "rocket.cat", "Rocket.Cat")
SALES, SUPPORT = "depSales", "depSupport"


def workspace_documents(**settings: Any) -> dict[str, list[Json]]:
    """What is there before anybody chats."""
    in_force = {
        "Site_Url": "https://chat.example.test",
        "Livechat_lead_email_regex": EMAIL_PATTERN,
        "Livechat_lead_phone_regex": PHONE_PATTERN,
        "Livechat_Visitor_navigation_as_a_message": False,
        "Send_visitor_navigation_history_livechat_webhook_request": False,
        **settings,
    }
    return {
        USERS: [
            {**agent.author, "emails": [{"address": f"{agent.username}@example.test", "verified": True}], "status": "online"}
            for agent in (ALICE, BRUNO, CARLA, HELPER, CAT)
        ],
        DEPARTMENTS: [{"_id": SALES, "name": "Sales"}, {"_id": SUPPORT, "name": "Support"}],
        SETTINGS: [{"_id": name, "value": value} for name, value in in_force.items()],
    }


# Writing.


class Traffic:
    """Changes in order, three milliseconds apart, and the webhooks that belong to them."""

    def __init__(self, *, at_s: float = 10) -> None:
        self.changes: list[Change] = []
        self.expected: list[Json] = []
        self._ms = int(at_s * 1000)
        self._numbers = 0
        self._together: Timestamp | None = None

    @property
    def now(self) -> datetime:
        return moment(self._ms / 1000)

    def pause(self, seconds: float = 0.1) -> None:
        """People do nothing for a while."""
        self._ms += int(seconds * 1000)

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def insert(self, collection: str, document: Json) -> None:
        self._write(collection, "insert", document["_id"], document={**document, "_updatedAt": self.now})

    def update(self, collection: str, id_: str, sets: Json | None = None, unsets: Sequence[str] = ()) -> None:
        self._write(collection, "update", id_, updated={"_updatedAt": self.now, **(sets or {})}, removed=list(unsets))

    def truncate(self, collection: str, id_: str, field_: str, size: int) -> None:
        cut = [{"field": field_, "newSize": size}]
        self._write(collection, "update", id_, updated={"_updatedAt": self.now}, truncated=cut)

    def delete(self, collection: str, id_: str) -> None:
        self._write(collection, "delete", id_)

    def together(self, *writes: Callable[[], None]) -> None:
        """One transaction: all its changes have one cluster time."""
        self._together = self._tick()
        for write in writes:
            write()
        self._together = None

    def beside(self, order: Sequence[int], *steps: Callable[[], None]) -> None:
        """Steps that run in parallel, as they happen to end."""
        for index in order:
            steps[index]()

    def expect(self, kind: EventType, **members: Any) -> None:
        self.expected.append({"type": kind.value, **{name: value for name, value in members.items() if value is not None}})

    def _write(self, collection: str, operation: Operation, id_: str, **more: Any) -> None:
        at = self._together or self._tick()
        self.changes.append(Change(collection, operation, id_, at, self.now, **copy.deepcopy(more)))

    def _tick(self) -> Timestamp:
        self._ms += STEP_MS
        return Timestamp((START_MS + self._ms) // 1000, (START_MS + self._ms) % 1000 + 1)


@dataclass
class Guest:
    """A visitor: the document as Rocket.Chat holds it."""

    traffic: Traffic
    id: str = "guest1"
    name: str | None = "Vera Visitor"
    emails: list[str] = field(default_factory=lambda: ["vera@client.test"])
    phones: list[str] = field(default_factory=list)

    @property
    def username(self) -> str:
        return f"guest-{self.id[-1]}"

    @property
    def token(self) -> str:
        return f"token-{self.id}"

    @property
    def author(self) -> Json:
        return {"_id": self.id, "username": self.username, **({} if self.name is None else {"name": self.name})}

    @property
    def shown(self) -> Json:
        """The members of a payload that speak of the guest."""
        found = {"name": self.name, "email": list(self.emails) or None, "phone": list(self.phones) or None}
        return {"visitor": {name: value for name, value in found.items() if value is not None}}

    def register(self) -> None:
        who = {"_id": self.id, "username": self.username, "token": self.token}
        document: Json = {**who, "status": "online", "ts": self.traffic.now}
        if self.name is not None:
            document["name"] = self.name
        if self.emails:
            document["visitorEmails"] = [{"address": address} for address in self.emails]
        if self.phones:
            document["phone"] = [{"phoneNumber": number} for number in self.phones]
        self.traffic.insert(VISITORS, document)

    def touch(self, **sets: Any) -> None:
        """An update that is no business of any webhook: presence, the last chat, months of activity; or of nothing at all."""
        self.traffic.update(VISITORS, self.id, sets)

    def rename(self, name: str, *open_chats: Chat) -> None:
        """Registers again with another name; it shows in the chats that are open."""
        self.name = name
        self.traffic.update(VISITORS, self.id, {"name": name})
        for chat in open_chats:
            chat.fname = name
            self.traffic.update(ROOMS, chat.id, {"fname": name})
            self.traffic.update(INQUIRIES, chat.inquiry, {"name": name})

    def capture(self, *, email: str | None = None, phone: str | None = None) -> None:
        """What a lead adds to the visitor; what is there already leaves an update of `_updatedAt` alone."""
        sets: Json = {}
        for stored, key, held, value in (
            ("visitorEmails", "address", self.emails, email),
            ("phone", "phoneNumber", self.phones, phone),
        ):
            if value is None or value in held:
                continue
            if held:
                sets[f"{stored}.{len(held)}"] = {key: value}
            else:
                sets[stored] = [{key: value}]
            held.append(value)
        self.traffic.update(VISITORS, self.id, sets)

    def remove(self) -> None:
        """Since 6.5 the document stays, disabled and without anything personal."""
        personal = ["name", "visitorEmails", "phone", "token", "username", "ip", "userAgent", "livechatData", "lastChat"]
        self.traffic.update(VISITORS, self.id, {"disabled": True}, personal)


@dataclass
class Said:
    """A message that webhooks list."""

    id: str
    ts: datetime
    text: str
    visible: bool = True


class Chat:
    """A room, and what is known of it by those who chat."""

    def __init__(self, traffic: Traffic, guest: Guest, id_: str = "room1", *, department: str | None = None) -> None:
        self.traffic = traffic
        self.guest = guest
        self.id = id_
        self.inquiry = f"inquiry-{id_}"
        self.department = department
        self.fname = guest.name or guest.username
        self.lm = traffic.now
        self.agent: Agent | None = None
        self.served_by: Json | None = None
        self.tags: list[str] = []
        self.topic: str | None = None
        self.fields: Json = {}
        self.closed: Json = {}
        self.said: list[Said] = []
        self.views_listed = False

    # -- what webhooks show

    def expect(self, kind: EventType, *, messages: Sequence[str] | None = None, **members: Any) -> None:
        """Note a webhook that is sent now; `members` replace what the chat shows by itself."""
        shown: Json = {
            "_id": self.id,
            "label": self.fname,
            "topic": self.topic,
            "lastMessageAt": _text(self.lm),
            "tags": list(self.tags) or None,
            "customFields": dict(self.fields) or None,
            "agent": None if self.agent is None else self.agent.id,
            "messages": [found.text for found in self.said if found.visible] if messages is None else list(messages),
            **self.guest.shown,
        }
        if kind in (EventType.SESSION_START, EventType.SESSION_QUEUED):
            shown["departmentId"] = self.department
        elif kind in (EventType.SESSION_TAKEN, EventType.SESSION_FORWARDED, EventType.SESSION):
            shown |= {"departmentId": self.department, "servedBy": _serving(self.served_by)}
        if kind is EventType.SESSION:
            shown |= self.closed
        self.traffic.expect(kind, **{**shown, **members})

    # -- beginning

    def start(self, status: str = "queued", **room: Any) -> None:
        traffic = self.traffic
        created = self.lm = traffic.now
        self.fname = room.get("fname", self.fname)
        department = {} if self.department is None else {"departmentId": self.department}
        guest = {"_id": self.guest.id, "username": self.guest.username, "token": self.guest.token, "status": "online"}
        document = {
            "_id": self.id, "t": "l", "msgs": 0, "usersCount": 1, "ts": created, "lm": created, "fname": self.fname, "v": guest,
            "open": True, "waitingResponse": True, "queuedAt": created, "source": {"type": "widget"}, "cl": False,
            "priorityWeight": 99, "estimatedWaitingTimeQueue": 9999999, "verified": False,
            "contactId": f"contact-{self.guest.id}", **department, **room,
        }  # fmt: skip
        traffic.together(lambda: traffic.insert(ROOMS, document), lambda: self._enter_queue(status))
        self.guest.touch(lastChat={"_id": self.id, "ts": created})
        self.expect(EventType.SESSION_START, lastMessageAt=_text(created), messages=[])
        if status == "queued":
            self.expect(EventType.SESSION_QUEUED, lastMessageAt=_text(created), messages=[])
        self._system("livechat-started", counts=True, token=self.guest.token)

    def start_before_7(self, status: str, *, queued: bool, sees_start: bool) -> None:
        """One write after the other: room, first system message, inquiry. `queued`: the release sends Queued for it, with the
        room as it is by then (`sees_start`) or as it was created.
        """
        traffic = self.traffic
        created = self.lm = traffic.now
        guest = {"_id": self.guest.id, "username": self.guest.username, "token": self.guest.token, "status": "online"}
        document = {"_id": self.id, "t": "l", "msgs": 0, "ts": created, "lm": created, "fname": self.fname, "v": guest}
        traffic.insert(ROOMS, {**document, "open": True, "queuedAt": created, "waitingResponse": True})
        self.expect(EventType.SESSION_START, messages=[])
        self._system("livechat-started", counts=True)
        self._enter_queue(status)
        if queued:
            self.expect(EventType.SESSION_QUEUED, messages=[], lastMessageAt=_text(self.lm if sees_start else created))
        self.guest.touch(lastChat={"_id": self.id, "ts": created})

    def _enter_queue(self, status: str) -> None:
        department = {} if self.department is None else {"department": self.department}
        self.traffic.insert(
            INQUIRIES,
            {
                "_id": self.inquiry, "rid": self.id, "name": self.fname, "ts": self.traffic.now, "message": "", "status": status,
                "t": "l", "v": {"_id": self.guest.id}, **department,
            },
        )  # fmt: skip

    def verify(self, to: str) -> None:
        """The contact was verified: the chat goes where it would have gone at once."""
        self.traffic.update(ROOMS, self.id, {"verified": True})
        self.traffic.update(INQUIRIES, self.inquiry, {"status": to})
        if to == "queued":
            self.expect(EventType.SESSION_QUEUED)

    # -- agents

    def take(self, agent: Agent) -> None:
        """By hand or by routing, as the first agent or as the next."""
        traffic = self.traffic
        traffic.update(INQUIRIES, self.inquiry, {"status": "taken", "takenAt": traffic.now}, ["queuedAt", "defaultAgent"])
        traffic.insert(SUBSCRIPTIONS, {"_id": f"subscription{traffic.number()}", "rid": self.id, "u": agent.author, "t": "l"})
        self.agent = agent
        self.served_by = {"_id": agent.id, "username": agent.username, "ts": traffic.now}
        traffic.update(ROOMS, self.id, {"servedBy": self.served_by})
        self.expect(EventType.SESSION_TAKEN)
        traffic.update(ROOMS, self.id, {"usersCount": 2})
        self._system("command", "connected", agent)
        self._system("uj", "", agent)

    def forward_to_agent(self, agent: Agent, scope: str = "agent") -> None:
        old = self.served_by
        self.take(agent)
        self._transfer(scope, transferredTo=agent.author)
        self.expect(EventType.SESSION_FORWARDED, oldServedBy=_serving(old))
        if old is not None:
            self._leave(str(old["_id"]))

    def forward_to_department(self, department: str, agent: Agent, *, fallback: bool = False) -> None:
        """Automatic routing finds an agent of the department."""
        old, former = self.department, self.served_by
        self.take(agent)
        if fallback:
            self._system("livechat_transfer_history_fallback", "", CAT, transferData={"prevDepartment": SALES})
        self._transfer("department", nextDepartment={"_id": department, "name": "Department"})
        if former is not None:
            self._leave(str(former["_id"]))
        self._move(department, old)

    def forward_to_queue_of(self, department: str, *, order: Sequence[int] = (0, 1, 2)) -> None:
        """Manual routing, or nobody there: the chat waits in the department's queue."""
        old, former = self.department, self.served_by
        self._transfer("department", nextDepartment={"_id": department, "name": "Department"})
        if old != department:
            self._move(department, old, order=order)
        self._to_queue_status()
        self._unassign(former)
        self._to_queue_status()

    def forward_to_full_department(self, department: str, agent: Agent) -> None:
        """Routing picks an agent who has no room for one more: the chat is taken away again."""
        self.forward_to_department(department, agent)
        self.traffic.update(INQUIRIES, self.inquiry, {"status": "ready"}, ["takenAt"])
        self._unassign(self.served_by)
        self._to_queue_status()

    def return_to_queue(self, department: str | None = None, scope: str = "queue") -> None:
        former = self.served_by
        self._transfer(scope)
        if department is not None and department != self.department:
            self._move(department, self.department)
        self._unassign(former)
        self._to_queue_status()

    def hold(self, order: Sequence[int] = (0, 1, 2)) -> None:
        self._change_hold(order, {"onHold": True}, (), "omnichannel_placed_chat_on_hold")

    def resume(self, order: Sequence[int] = (0, 1, 2)) -> None:
        self._change_hold(order, {}, ("onHold",), "omnichannel_on_hold_chat_resumed")

    def resume_without_agent(self, other: Agent | None = None) -> None:
        """The agent is away: the chat is routed again."""
        self._unassign(self.served_by)
        self.traffic.update(INQUIRIES, self.inquiry, {"status": "ready"}, ["takenAt"])
        if other is not None:
            self.take(other)
        self.resume()

    def _change_hold(self, order: Sequence[int], sets: Json, unsets: Sequence[str], kind: str) -> None:
        agent = self.agent or CAT
        self.traffic.beside(
            order,
            lambda: self.traffic.update(ROOMS, self.id, sets, unsets),
            lambda: self.traffic.update(SUBSCRIPTIONS, f"subscription-{self.id}", sets, unsets),
            lambda: self._system(kind, "", agent, comment="A comment"),
        )

    def _transfer(self, scope: str, **more: Any) -> None:
        who = self.agent or CARLA
        by = {"transferredBy": {**who.author, "userType": "agent"}, "comment": None}
        data = {**by, "ts": self.traffic.now, "scope": scope, **more}
        self._system("livechat_transfer_history", "", who, counts=True, transferData=data)

    def _move(self, department: str, old: str | None, *, order: Sequence[int] = (0, 1, 2)) -> None:
        traffic = self.traffic
        self.department = department
        traffic.beside(
            order,
            lambda: traffic.update(ROOMS, self.id, {"departmentId": department}),
            lambda: traffic.update(INQUIRIES, self.inquiry, {"department": department}),
            lambda: traffic.update(SUBSCRIPTIONS, f"subscription-{self.id}", {"department": department}),
        )
        self.expect(EventType.SESSION_FORWARDED, oldDepartmentId=old)

    def _to_queue_status(self) -> None:
        self.traffic.update(INQUIRIES, self.inquiry, {"status": "queued", "queuedAt": self.traffic.now}, ["takenAt"])

    def _unassign(self, former: Json | None) -> None:
        """Removing an agent who is not there leaves `queuedAt` alone."""
        self.traffic.update(ROOMS, self.id, {"queuedAt": self.traffic.now}, ["servedBy"] if former is not None else [])
        self.agent = self.served_by = None
        self.expect(EventType.SESSION_QUEUED)
        if former is not None:
            self._leave(str(former["_id"]))

    def _leave(self, agent: str) -> None:
        self.traffic.delete(SUBSCRIPTIONS, f"subscription-{agent}")
        self.traffic.update(ROOMS, self.id, {"usersCount": 1})
        self._system("ul", "", Agent(agent, agent, agent))

    # -- messages

    def say(
        self, text: str = "Hello", *, lead: Json | None = None, between: Callable[[], None] | None = None, **more: Any
    ) -> str:
        """The guest writes; `lead` is what the patterns find in it, `between` happens before the guest is saved."""
        who = {"token": self.guest.token, "alias": self.guest.name, "u": self.guest.author}
        return self._message(text, lead=lead, between=between, **{**who, **more})

    def answer(self, text: str = "One moment", agent: Agent | None = None, **more: Any) -> str:
        who = agent or self.agent or CARLA
        return self._message(text, u=who.author, **more)

    def _message(
        self, text: str, *, lead: Json | None = None, between: Callable[[], None] | None = None, moves: bool = True, **more: Any
    ) -> str:
        traffic = self.traffic
        id_ = f"message{traffic.number()}"
        ts = traffic.now
        traffic.insert(MESSAGES, {"_id": id_, "rid": self.id, "msg": text, "ts": ts, "urls": [], "mentions": [], **more})
        self.expect(EventType.MESSAGE, messages=[text])
        self.said.append(Said(id_, ts, text))
        if lead is not None:
            room = {"lastMessageAt": _text(self.lm)}
            place = len(traffic.expected)
            if between is not None:
                between()
            self.guest.capture(**lead)
            self.expect(EventType.LEAD, messages=[], **room)
            traffic.expected.insert(place, traffic.expected.pop())
        traffic.update(ROOMS, self.id, {"v.lastMessageTs": ts, "waitingResponse": True})
        if moves:
            self.lm = ts
        traffic.update(ROOMS, self.id, {"msgs": traffic.number(), **({"lm": ts} if moves else {}), "lastMessage": {"_id": id_}})
        traffic.update(MESSAGES, id_, {"urls": [{"url": "https://shop.example"}]})
        return id_

    def edit_message(self, id_: str, text: str, *, keep_history: bool = False, first: bool = True) -> None:
        found = next(said for said in self.said if said.id == id_)
        if keep_history:
            self._copy(found)
        found.text = text
        editor = {"editedBy": {"_id": ALICE.id, "username": ALICE.username}} if first else {}
        self.traffic.update(MESSAGES, id_, {"msg": text, "editedAt": self.traffic.now, **editor})
        self.expect(EventType.MESSAGE, messages=[text])
        self.traffic.update(ROOMS, self.id, {"lastMessage.msg": text})

    def delete_message(self, id_: str, *, history: bool, mark: bool) -> None:
        found = next(said for said in self.said if said.id == id_)
        found.visible = False
        if mark:
            if history:
                self._copy(found)
            edited = {"editedAt": self.traffic.now, "editedBy": {"_id": ALICE.id, "username": ALICE.username}}
            self.traffic.update(MESSAGES, id_, {"t": "rm", "msg": "", "attachments": [], "urls": [], **edited}, ["md"])
        elif history:
            self.traffic.update(MESSAGES, id_, {"_hidden": True})
        else:
            self.traffic.delete(MESSAGES, id_)
        self.traffic.update(ROOMS, self.id, {"msgs": self.traffic.number()})

    def _copy(self, found: Said) -> None:
        """The hidden copy that keeps the history."""
        copied = {"_id": f"copy{self.traffic.number()}", "rid": self.id, "msg": found.text, "ts": found.ts, "u": ALICE.author}
        self.traffic.insert(MESSAGES, {**copied, "_hidden": True, "parent": found.id, "editedAt": self.traffic.now})

    def view(self, title: str, *, hidden: bool = True) -> None:
        """The guest looks at another page."""
        id_ = f"view{self.traffic.number()}"
        text = f"{title} - https://shop.example/{title}"
        page = {"change": "url", "title": title, "location": {"href": f"https://shop.example/{title}"}}
        hides = {"_hidden": True} if hidden else {}
        ts = self.traffic.now
        self.traffic.insert(
            MESSAGES,
            {"_id": id_, "rid": self.id, "t": "livechat_navigation_history", "ts": ts, "msg": text, "u": CAT.author,
             "groupable": False, "navigation": {"page": page, "token": self.guest.token}, **hides},
        )  # fmt: skip
        self.said.append(Said(id_, ts, text, visible=self.views_listed and not hidden))

    def _system(self, kind: str, text: str = "", agent: Agent | None = None, *, counts: bool = False, **more: Any) -> None:
        """A system message; the ones that count move the room's last activity."""
        traffic = self.traffic
        ts = traffic.now
        author = self.guest.author if agent is None else agent.author
        id_ = f"system{traffic.number()}"
        what = {"_id": id_, "rid": self.id, "t": kind, "ts": ts, "msg": text}
        traffic.insert(MESSAGES, {**what, "u": author, "groupable": False, **more})
        traffic.update(ROOMS, self.id, {"msgs": traffic.number()})
        if counts:
            self.lm = ts
            traffic.update(ROOMS, self.id, {"lm": ts, "lastMessage": {"_id": id_}, "msgs": traffic.number()})

    # -- the end, and after

    def close(
        self,
        who: Agent | None = ALICE,
        comment: str = "Bye",
        *,
        tags: Sequence[str] = (),
        late: float = 0,
        message: bool = True,
        comment_is_message: bool = False,
    ) -> None:
        """`who` None: the guest closes. `late`: so many seconds pass before the closing message comes. `comment_is_message`: the
        release sends the comment as a message too, before the end.
        """
        traffic = self.traffic
        by = {"_id": self.guest.id, "username": self.guest.username} if who is None else {"_id": who.id, "username": who.username}
        at = traffic.now
        closed = {"closedAt": at, "closer": "visitor" if who is None else "user", "closedBy": by}
        if tags:
            self.tags = list(tags)
        sets = {**closed, "metrics.chatDuration": 1.5, "v.status": "offline", **({"tags": list(tags)} if tags else {})}
        if self.served_by is not None:
            sets["metrics.serviceTimeDuration"] = 1.25
        traffic.together(
            lambda: traffic.delete(INQUIRIES, self.inquiry),
            lambda: traffic.update(ROOMS, self.id, sets, ["open"]),
            lambda: traffic.delete(SUBSCRIPTIONS, f"subscription-{self.id}"),
            lambda: traffic.update(ROOMS, self.id, {"usersCount": 1}),
        )
        self.closed = {"closer": closed["closer"], "closedBy": by["_id"], "closedAt": _text(at)}
        listed = [found.text for found in self.said if found.visible] + ([comment] if message else [])
        if comment_is_message:
            self.expect(EventType.MESSAGE, messages=[comment])
        self.expect(EventType.SESSION, messages=listed)
        traffic.pause(late)
        if message:
            id_ = f"closing{traffic.number()}"
            author = self.guest.author if who is None else {"_id": who.id, "username": who.username}
            token = {"token": self.guest.token} if who is None else {}
            ts = traffic.now
            traffic.insert(
                MESSAGES,
                {"_id": id_, "rid": self.id, "t": "livechat-close", "ts": ts, "msg": comment, "u": author, "groupable": False,
                 "transcriptRequested": False, **token},
            )  # fmt: skip
            self.said.append(Said(id_, ts, comment))
            traffic.update(ROOMS, self.id, {"msgs": traffic.number()})
            self.lm = ts
            traffic.update(ROOMS, self.id, {"lm": ts, "lastMessage": {"_id": id_}, "msgs": traffic.number()})
        traffic.update(ROOMS, self.id, {"metrics.visitorInactivity": 3.5}, ["omnichannel"])

    def write_after_close(self) -> None:
        """What Rocket.Chat itself still writes to a closed room."""
        for sets in (
            {"transcriptRequest": {"requestedAt": self.traffic.now, "email": "vera@client.test", "subject": "Chat"}},
            {"pdfTranscriptRequested": True},
            {"pdfTranscriptFileId": "file1"},
            {"metrics.visitorInactivity": 7.5},
            {"crmData": "ok"},
            {"departmentAncestors": ["unit1"]},
            {"v.status": "online"},
            {},
        ):
            self.traffic.update(ROOMS, self.id, sets)

    def save(self, order: str = "iv", *, guest: Json | None = None, **room: Any) -> None:
        """An agent saves the information of the chat and of its guest. `order` has the updates as they end: `i` the information,
        `v` the visitor, `n` the room's name; those that say nothing new are of `_updatedAt` alone. Sent only for a closed room.
        """
        traffic = self.traffic
        changed = guest or {}
        before = (self.topic, list(self.tags), dict(self.fields), self.fname)
        steps = {"i": self._information(room), "v": self._guest_saved(changed), "n": self._name_saved(changed)}
        for step in order:
            sets, unsets = steps[step]
            traffic.update(VISITORS if step == "v" else ROOMS, self.guest.id if step == "v" else self.id, sets, unsets)
        if (self.topic, self.tags, self.fields, self.fname) != before and self.closed:
            self.expect(EventType.EDIT)

    def _information(self, room: Json) -> tuple[Json, list[str]]:
        sets: Json = {}
        unsets: list[str] = []
        tags = list(room.get("tags", self.tags))
        if tags != self.tags:
            if tags:
                sets["tags"] = tags
            else:
                unsets.append("tags")
            self.tags = tags
        topic = room.get("topic", self.topic)
        if topic != self.topic:
            sets["topic"] = self.topic = topic
        for name, value in room.get("fields", {}).items():
            sets[f"livechatData.{name}" if self.fields else "livechatData"] = value if self.fields else {name: value}
            self.fields[name] = value
        return sets, unsets

    def _guest_saved(self, changed: Json) -> tuple[Json, list[str]]:
        guest, sets = self.guest, {}
        if "name" in changed and changed["name"] != guest.name:
            sets["name"] = guest.name = changed["name"]
        if "email" in changed and [changed["email"]] != guest.emails:
            guest.emails[:] = [changed["email"]]
            sets["visitorEmails"] = [{"address": changed["email"]}]
        return sets, []

    def _name_saved(self, changed: Json) -> tuple[Json, list[str]]:
        name = changed.get("name", self.fname)
        if name == self.fname:
            return {}, []
        self.fname = name
        return {"fname": name}, []

    def reopen(self, status: str = "queued") -> None:
        """Mail came for a closed chat."""
        unsets = ["closedAt", "closedBy", "closer", *([] if self.served_by is None else ["servedBy"])]
        self.traffic.update(ROOMS, self.id, {"open": True}, unsets)
        self.closed = {}
        self.agent = self.served_by = None
        self.inquiry = f"inquiry{self.traffic.number()}-{self.id}"
        self._enter_queue(status)
        if status == "queued":
            self.expect(EventType.SESSION_QUEUED)

    def remove(self) -> None:
        for found in self.said:
            self.traffic.delete(MESSAGES, found.id)
        self.traffic.delete(SUBSCRIPTIONS, f"subscription-{self.id}")
        self.traffic.delete(INQUIRIES, self.inquiry)
        self.traffic.delete(ROOMS, self.id)


def open_chat(traffic: Traffic, id_: str = "room1", guest: Guest | None = None, **more: Any) -> Chat:
    """A chat that waits in the queue, of a new guest."""
    if guest is None:
        guest = Guest(traffic, f"guest{id_[-1]}")
        guest.register()
    chat = Chat(traffic, guest, id_, **more)
    chat.start()
    return chat


def served_chat(traffic: Traffic, agent: Agent = ALICE, id_: str = "room1", **more: Any) -> Chat:
    chat = open_chat(traffic, id_, **more)
    chat.say("Hello")
    chat.take(agent)
    return chat


def closed_chat(traffic: Traffic, id_: str = "room1", *, rest: float = 5, **more: Any) -> Chat:
    """A chat that is over for `rest` seconds."""
    chat = served_chat(traffic, id_=id_, **more)
    chat.close(tags=["billing", "vip"])
    traffic.pause(rest)
    return chat


def _serving(served_by: Json | None) -> Json | None:
    return None if served_by is None else {**served_by, "ts": _text(served_by["ts"])}


def _text(at: datetime) -> str:
    return f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z"


# Reading.


class _Log(list[Change]):
    """What MongoDB did, told once: what a composer reads of it is a part of it."""

    def __contains__(self, change: object) -> bool:
        return True


class Mongo(Database):
    """The database behind some traffic."""

    def __init__(self, traffic: Traffic, beginning: dict[str, list[Json]] | None = None, *, version: str | None = None) -> None:
        super().__init__(beginning if beginning is not None else workspace_documents())
        self.log = _Log(traffic.changes)
        self.version = version

    async def server_version(self, at: Timestamp | None) -> str | None:
        return self.version


def captured(changes: Iterable[Change]) -> list[Change]:
    """What capture gives of these changes: the collections, operations and fields that compose asks for."""
    watches = {watch.collection: watch for watch in documents.WATCHES}
    kept = (_captured(change, watches[change.collection]) for change in changes if change.collection in watches)
    return [change for change in kept if change is not None]


def _captured(change: Change, watch: Watch) -> Change | None:
    if change.operation not in watch.operations or (watch.ids is not None and change.id not in watch.ids):
        return None
    if change.operation != "update":
        return change
    if watch.update_sets is not None and watch.update_sets not in change.updated:
        return None
    tops = "|".join(re.escape(name.partition(".")[0]) for name in watch.fields if "." in name)
    inside = "|".join(re.escape(name) for name in watch.fields)
    asked = re.compile(rf"(?:{inside})(?:\.|$)|(?:{tops or '(?!)'})$")
    updated = {name: value for name, value in change.updated.items() if asked.match(name)}
    removed = [name for name in change.removed if asked.match(name)]
    if not updated and not removed and not change.truncated:
        return None
    return change._replace(updated=updated, removed=removed)


async def tell(
    traffic: Traffic,
    *,
    mongo: Mongo | None = None,
    together: int = 1,
    restart: bool = False,
) -> list[Json]:
    """What a composer says about the traffic, read in batches of `together`, with a new process before each if `restart`."""
    relay = Workspace(mongo or Mongo(traffic), {"crm": endpoint(EVERY_EVENT)})
    changes = captured(traffic.changes)
    for start in range(0, len(changes), together):
        if restart:
            relay.restart()
        await relay.read(*changes[start : start + together])
    if restart:
        relay.restart()
    await relay.read(seconds=100_000)
    return [shortened(await relay.content(event.id)) for event in relay.events if event.skipped is None]


def shortened(payload: Json) -> Json:
    """The members of a payload that differ from event to event, in the words of `Chat`."""
    names = (
        "type", "_id", "label", "topic", "lastMessageAt", "tags", "customFields", "departmentId", "oldDepartmentId", "servedBy",
        "oldServedBy", "closer", "closedAt",
    )  # fmt: skip
    result = {name: payload[name] for name in names if name in payload}
    if "agent" in payload:
        result["agent"] = payload["agent"]["_id"]
    if "closedBy" in payload:
        result["closedBy"] = payload["closedBy"]["_id"]
    result["messages"] = [message.get("msg") for message in payload["messages"]]
    visitor = payload["visitor"]
    contact = {
        "name": visitor.get("name"),
        "email": [entry["address"] for entry in visitor.get("email") or []] or None,
        "phone": [entry["phoneNumber"] for entry in visitor.get("phone") or []] or None,
    }
    result["visitor"] = {name: value for name, value in contact.items() if value is not None}
    return result


def by_session(webhooks: Iterable[Json]) -> dict[str, list[Json]]:
    """Webhooks in order, by session: the only order that is promised."""
    sessions: dict[str, list[Json]] = {}
    for webhook in webhooks:
        sessions.setdefault(webhook["_id"], []).append(webhook)
    return sessions
