"""What Rocket.Chat sends, in the plainest way: every change is written to whole documents, one after the other, and each
document is looked at as it was and as it is. It knows which action a change belongs to, which no reader of a stream knows.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from bson.timestamp import Timestamp

from daemon.compose import documents
from daemon.model import Change
from tests.compose.build import MESSAGES, ROOMS, SETTINGS, UPLOADS, USERS, VISITORS, Json, _projected, applied
from tests.compose.scenarios import EMAIL_PATTERN, INQUIRIES, PHONE_PATTERN, Mongo, Traffic

SETTLE_S = 2
BROWSERS = {
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36": (
        "Windows 10",
        "Chrome 126.0.0.0",
    ),
}


@dataclass(frozen=True)
class Step:
    """A change, and the action that it is a part of."""

    change: Change
    action: str


class LabelledTraffic(Traffic):
    """Knows for each change which action made it. As MongoDB does, it never lists a value that was set to itself."""

    def __init__(self, *, at_s: float, numbers: int) -> None:
        super().__init__(at_s=at_s)
        self._numbers = numbers
        self.action = ""
        self.steps: list[Step] = []
        self._data: dict[tuple[str, str], Json | None] = {}

    def _write(self, *args: Any, **more: Any) -> None:
        super()._write(*args, **more)
        change = self.changes.pop()
        before = self._data.get((change.collection, change.id))
        self._data[change.collection, change.id] = after = written(before, change)
        if change.operation == "update" and before is not None and after is not None:
            new = {path: value for path, value in change.updated.items() if _value(before, path) != value}
            gone = [path for path in change.removed if _value(before, path) is not None]
            change = change._replace(updated=new, removed=gone)
        self.changes.append(change)
        self.steps.append(Step(change, self.action))


def written(document: Json | None, change: Change) -> Json | None:
    """A whole document after a change."""
    if change.operation == "delete":
        return None
    if change.document is not None:
        return dict(change.document)
    if document is None:
        return None
    cut = {str(found["field"]): document[str(found["field"])][: found["newSize"]] for found in change.truncated}
    return applied(document, {**cut, **change.updated}, change.removed)


def _value(document: Json, path: str) -> Any:
    value: Any = document
    for part in path.split("."):
        if isinstance(value, list):
            value = value[int(part)] if int(part) < len(value) else None
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value


class Histories(Mongo):
    """The database behind some changes: every version of every document, found by its time. Its snapshots never grow old."""

    def __init__(self, changes: Iterable[Change], beginning: Mapping[str, Sequence[Json]]) -> None:
        super().__init__(Traffic(), {name: list(found) for name, found in beginning.items()})
        self._versions: dict[str, dict[str, list[tuple[Timestamp, Json | None]]]] = defaultdict(dict)
        for collection, found in beginning.items():
            for document in found:
                self._versions[collection][document["_id"]] = [(Timestamp(0, 0), document)]
        for change in changes:
            versions = self._versions[change.collection].setdefault(change.id, [])
            versions.append((change.cluster_time, written(versions[-1][1] if versions else None, change)))
        self._messages: dict[str, list[str]] = defaultdict(list)
        for id_, versions in self._versions[MESSAGES].items():
            self._messages[next(found["rid"] for _, found in versions if found)].append(id_)

    def _at(self, collection: str, id_: Any, at: Timestamp | None) -> Json | None:
        versions = self._versions[collection].get(id_, [])
        place = len(versions) if at is None else bisect_right(versions, at, key=lambda version: version[0])
        return versions[place - 1][1] if place else None

    async def by_ids(
        self, collection: str, ids: Collection[Any], fields: Collection[str], at: Timestamp | None
    ) -> dict[str, Json]:
        found = {id_: self._at(collection, id_, at) for id_ in ids}
        return {id_: _projected(document, fields) for id_, document in found.items() if document is not None}

    async def every(self, collection: str, fields: Collection[str], at: Timestamp | None) -> list[Json]:
        return list((await self.by_ids(collection, self._versions[collection], fields, at)).values())

    async def transcript(self, room_id: str, at: Timestamp | None, cut: datetime) -> list[Json]:
        found = [self._at(MESSAGES, id_, at) for id_ in self._messages[room_id]]
        listed = [
            _projected(one, documents.MESSAGE_FIELDS) for one in found if one is not None and one.get("_hidden") is not True
        ]
        return sorted(listed, key=lambda message: message["ts"])


@dataclass
class _Sent:
    """A webhook in its place; what is `due` becomes known with a later change."""

    kind: str
    room: Json
    visitor: Json | None
    started: Change
    action: str
    agent: Json | None = None
    extra: Json = field(default_factory=dict)
    text: str | None = None

    @property
    def guest(self) -> str:
        return str(self.room["v"]["_id"])


class SequentialModel:
    """Tells the webhooks of some steps, as text, in order by session."""

    def __init__(self, beginning: Mapping[str, Sequence[Json]]) -> None:
        self._data: dict[str, dict[str, Json]] = defaultdict(dict)
        for collection, found in beginning.items():
            self._data[collection] = {document["_id"]: document for document in found}
        self._sent: list[_Sent] = []
        self._due: list[_Sent] = []
        self._served_before: dict[str, Json | None] = {}
        self._transfers: dict[str, Json] = {}

    def tell(self, steps: Sequence[Step]) -> dict[str, list[str]]:
        last = {step.action: number for number, step in enumerate(steps)}
        for number, step in enumerate(steps):
            self._settle(step.change)
            old = self._data[step.change.collection].get(step.change.id)
            new = written(old, step.change)
            if new is None:
                self._data[step.change.collection].pop(step.change.id, None)
            else:
                self._data[step.change.collection][step.change.id] = new
                self._look(step, old, new)
            if last[step.action] == number:
                self._complete_edits(step.action)
        self._settle(None)
        sessions: dict[str, list[str]] = defaultdict(list)
        for sent in self._sent:
            if sent.text is not None:
                sessions[sent.room["_id"]].append(sent.text)
        return dict(sessions)

    # -- what happened

    def _look(self, step: Step, old: Json | None, new: Json) -> None:
        collection = step.change.collection
        if collection == ROOMS and old is None:
            self._send("LivechatSessionStart", new, step, departmentId=new.get("departmentId"), listed=[])
        elif collection == ROOMS and old is not None:
            self._look_at_room(step, old, new)
        elif collection == INQUIRIES and new["status"] == "queued" and (old or {"status": "verifying"})["status"] == "verifying":
            self._send_queued(self._data[ROOMS][new["rid"]], step)
        elif collection == MESSAGES:
            self._look_at_message(step, old, new)
        elif collection == VISITORS and old is not None:
            self._complete_lead(step, new)

    def _look_at_room(self, step: Step, old: Json, new: Json) -> None:
        rid = new["_id"]
        if old.get("servedBy") != new.get("servedBy"):
            self._served_before[rid] = old.get("servedBy")
        if new.get("departmentId") not in (None, old.get("departmentId")) and rid in self._transfers:
            moved = {**new, "lm": max(new["lm"], self._transfers.pop(rid)["ts"])}
            self._send("LivechatSessionForwarded", moved, step, **_where(new), oldDepartmentId=old.get("departmentId"))
        if "closedAt" not in new and new.get("servedBy") not in (None, old.get("servedBy")):
            self._send("LivechatSessionTaken", new, step, **_where(new))
        left = "servedBy" in old and "servedBy" not in new
        if "closedAt" not in old and "closedAt" not in new and (left or old.get("queuedAt") != new.get("queuedAt")):
            self._transfers.pop(rid, None)
            self._send_queued(new, step)
        if "open" in old and "open" not in new:
            closed = {name: new.get(name) for name in ("closedAt", "closedBy", "closer")}
            self._send("LivechatSession", new, step, due=True, **_where(new), **closed)
        edited = any(old.get(name) != new.get(name) for name in ("topic", "tags", "livechatData", "priorityId", "slaId", "fname"))
        waiting = any(sent.kind == "LivechatEdit" and sent.action == step.action for sent in self._due)
        if edited and "closedAt" in old and "closedAt" in new and step.action.startswith("save") and not waiting:
            self._send("LivechatEdit", new, step, due=True)

    def _look_at_message(self, step: Step, old: Json | None, new: Json) -> None:
        room = self._data[ROOMS].get(new["rid"])
        if room is None or new.get("_hidden") is True:
            return
        if old is None and new.get("t") == "livechat_transfer_history":
            scope = new["transferData"]["scope"]
            if scope in ("agent", "autoTransferUnansweredChatsToAgent"):
                before = self._served_before.get(room["_id"])
                moved = {**room, "lm": max(room["lm"], new["ts"])}
                self._send("LivechatSessionForwarded", moved, step, **_where(room), oldServedBy=before)
            elif scope in ("department", "queue"):
                self._transfers[room["_id"]] = new
        elif old is None and new.get("t") == "livechat-close":
            due = [sent for sent in self._due if sent.kind == "LivechatSession" and sent.room["_id"] == room["_id"]]
            for sent in due:
                self._complete(sent)
        elif not new.get("t") and (old is None or old.get("editedAt") != new.get("editedAt")):
            self._send("Message", room, step, listed=[new])
            if old is None and "token" in new and _is_lead(new["msg"]):
                self._send("LeadCapture", room, step, due=True)

    # -- what is sent

    def _send_queued(self, room: Json, step: Step) -> None:
        self._send("LivechatSessionQueued", room, step, departmentId=room.get("departmentId"))

    def _send(
        self, kind: str, room: Json, step: Step, *, due: bool = False, listed: Sequence[Json] | None = None, **extra: Any
    ) -> None:
        visitor = self._data[VISITORS].get(room["v"]["_id"])
        if visitor is None or visitor.get("disabled"):
            return
        shown = {name: value for name, value in extra.items() if value is not None}
        sent = _Sent(kind, room, visitor, step.change, step.action, self._agent(room), shown)
        self._sent.append(sent)
        if due:
            self._due.append(sent)
        else:
            sent.text = self._payload(sent, self._transcript(room) if listed is None else listed)

    def _complete(self, sent: _Sent) -> None:
        self._due.remove(sent)
        sent.text = self._payload(sent, [] if sent.kind == "LeadCapture" else self._transcript(sent.room))

    def _complete_lead(self, step: Step, visitor: Json) -> None:
        for sent in list(self._due):
            if sent.kind == "LeadCapture" and sent.guest == visitor["_id"] and sent.action == step.action:
                # Whatever else happens to the guest meanwhile sets more than an address.
                if not set(step.change.updated) <= {"_updatedAt"} and not any(
                    name.partition(".")[0] in ("visitorEmails", "phone") for name in step.change.updated
                ):
                    continue
                sent.visitor = visitor
                self._complete(sent)

    def _complete_edits(self, action: str) -> None:
        for sent in list(self._due):
            if sent.kind == "LivechatEdit" and sent.action == action:
                sent.room = self._data[ROOMS].get(sent.room["_id"], sent.room)
                sent.visitor = self._data[VISITORS].get(sent.guest, sent.visitor)
                sent.agent = self._agent(sent.room)
                self._complete(sent)

    def _settle(self, change: Change | None) -> None:
        """What waited in vain is told as it is."""
        for sent in list(self._due):
            if change is None or change.cluster_time.time > sent.started.cluster_time.time + SETTLE_S:
                self._complete(sent)

    # -- what it says

    def _agent(self, room: Json) -> Json | None:
        return self._data[USERS].get((room.get("servedBy") or {}).get("_id", ""))

    def _setting(self, name: str) -> Any:
        return self._data[SETTINGS].get(name, {}).get("value")

    def _transcript(self, room: Json) -> list[Json]:
        found = [one for one in self._data[MESSAGES].values() if one["rid"] == room["_id"] and one.get("_hidden") is not True]
        views = self._setting(documents.NAVIGATION_AS_MESSAGE) and self._setting(documents.NAVIGATION_IN_WEBHOOK)
        kinds = {None, "livechat-close", *(["livechat_navigation_history"] if views else [])}
        return sorted((one for one in found if one.get("t") in kinds), key=lambda message: message["ts"])

    def _payload(self, sent: _Sent, listed: Sequence[Json]) -> str:
        room, visitor, agent = sent.room, sent.visitor or {}, sent.agent
        shown: Json = {"_id": room["_id"], "label": room["fname"]}
        shown |= _renamed(room, topic="topic", ts="createdAt", lm="lastMessageAt", tags="tags", livechatData="customFields")
        system, browser = BROWSERS.get(visitor.get("userAgent", ""), (None, None))
        guest = _renamed(visitor, _id="_id", token="token", name="name", username="username", department="department", ip="ip")
        guest |= {name: value for name, value in (("os", system), ("browser", browser)) if value is not None}
        guest |= _renamed(visitor, livechatData="customFields")
        guest |= {name: visitor[of] for name, of in (("email", "visitorEmails"), ("phone", "phone")) if visitor.get(of)}
        shown["visitor"] = guest
        if agent is not None:
            shown["agent"] = _renamed(agent, _id="_id", username="username", name="name")
            if "customFields" in agent:
                sends = json.loads(self._setting(documents.AGENT_FIELDS))
                exported = {name: value for name, value in agent["customFields"].items() if sends[name]["sendToIntegrations"]}
                shown["agent"]["customFields"] = exported
            shown["agent"]["email"] = agent["emails"][0]["address"]
        if room.get("crmData"):
            shown["crmData"] = room["crmData"]
        shown["type"] = sent.kind
        shown["messages"] = [self._entry(message, visitor) for message in listed]
        shown |= sent.extra
        return json.dumps(shown, ensure_ascii=False, separators=(",", ":"), default=_date)

    def _entry(self, message: Json, visitor: Json) -> Json:
        author = message["u"]
        entry: Json = {"u": author, "_id": message["_id"], "username": author["username"]}
        if message.get("msg"):
            entry["msg"] = message["msg"]
        entry |= {"ts": message["ts"], "rid": message["rid"]}
        if "editedAt" in message and "editedBy" in message:
            entry["editedAt"] = message["editedAt"]
        if author["username"] != visitor.get("username"):
            entry["agentId"] = author["_id"]
        entry |= _renamed(message, navigation="navigation")
        if message.get("t") == "livechat-close":
            entry["closingMessage"] = True
        if "file" in message:
            entry |= _renamed(message, file="file", attachments="attachments")
            upload = self._data[UPLOADS].get(message["file"]["_id"])
            if upload is not None:
                site = self._setting(documents.SITE_URL)
                protected = self._setting(documents.PROTECT_FILES) and self._setting(documents.FILE_TOKENS)
                path = f"{site}/file-upload/{upload['_id']}/{upload['name'].replace(' ', '%20')}{'?token=' if protected else ''}"
                entry["fileUpload"] = {"publicFilePath": path, "type": upload["type"], "size": upload["size"]}
        return {**entry, "_updatedAt": message["_updatedAt"]}


def _where(room: Json) -> Json:
    return {name: room.get(name) for name in ("departmentId", "servedBy")}


def _renamed(document: Json, **names: str) -> Json:
    return {shown: document[stored] for stored, shown in names.items() if stored in document}


def _is_lead(text: str) -> bool:
    return re.search(EMAIL_PATTERN, text, re.IGNORECASE) is not None or re.search(PHONE_PATTERN, text) is not None


def _date(value: datetime) -> str:
    return f"{value:%Y-%m-%dT%H:%M:%S}.{value.microsecond // 1000:03}Z"
