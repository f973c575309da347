"""Has everything in memory that a batch of changes needs: one read per collection, of how things were just before the batch."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bson.timestamp import Timestamp

from daemon.compose import documents, transitions
from daemon.compose.documents import Kind
from daemon.compose.fold import nested_id, reduce
from daemon.compose.lookup import Lookup
from daemon.compose.states import FoldedStates
from daemon.model import Batch, Change, Document

_COLLECTION = {kind: folded.collection for kind, folded in documents.BY_KIND.items()}


class Gatherer:
    """Fills the folded states before a batch is taken."""

    def __init__(self, states: FoldedStates, lookup: Lookup, *, arbitrary_agent: bool) -> None:
        self._states = states
        self._lookup = lookup
        self._arbitrary_agent = arbitrary_agent
        self._prepared = False

    async def gather(self, batch: Batch, waiting: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Have what `batch` and the events that wait in these rooms need; gives the messages that it edits, by id, as before."""
        changes = batch.changes
        at = before(changes[0].cluster_time) if changes else batch.position.cluster_time
        if not self._prepared:
            await self._prepare(at)
            self._prepared = True
        told = _look_through(changes)
        edited = await self._edited_messages(changes, told.edited, at)
        await self._states.ensure(Kind.INQUIRY, told.queued - told.inserted(Kind.INQUIRY), at)
        entries = [self._states.get(Kind.INQUIRY, inquiry) or {} for inquiry in told.queued]
        rooms = _texts(message.get("rid") for message in (*edited.values(), *entries)) | told.rooms | set(waiting)
        await self._states.ensure(Kind.ROOM, rooms - told.inserted(Kind.ROOM), at)
        visitors, agents = self._people(told, rooms)
        await self._states.ensure(Kind.VISITOR, visitors - told.inserted(Kind.VISITOR), at)
        await self._states.ensure(Kind.USER, agents, at)
        for kind in (Kind.VISITOR, Kind.USER, Kind.INQUIRY):
            await self._states.recall(kind, told.operations[_COLLECTION[kind]].keys() - told.inserted(kind))
        return edited

    async def _prepare(self, at: Timestamp) -> None:
        await self._states.prepare(at)
        if await self._states.missing(Kind.SERVER, Kind.SERVER):
            version = await self._lookup.server_version(at)
            self._states.put(Kind.SERVER, Kind.SERVER, {"_id": Kind.SERVER.value, "version": version})
        if self._arbitrary_agent and await self._states.missing(Kind.SERVER, documents.ARBITRARY_AGENT):
            fields = documents.BY_KIND[Kind.USER].fields
            self._states.put(Kind.SERVER, documents.ARBITRARY_AGENT, await self._lookup.first("users", fields))

    async def _edited_messages(self, changes: Iterable[Change], edited: set[str], at: Timestamp) -> dict[str, dict[str, Any]]:
        if not edited:
            return {}
        new = {
            change.id: reduce(change.document or {}, documents.MESSAGE_FIELDS)
            for change in changes
            if change.collection == documents.MESSAGES and change.operation == "insert" and change.id in edited
        }
        old = edited - new.keys()
        return new | (await self._lookup.by_ids(documents.MESSAGES, old, documents.MESSAGE_FIELDS, at) if old else {})

    def _people(self, told: _Told, rooms: Iterable[str]) -> tuple[set[str], set[str]]:
        """The visitors and agents whom the payloads of this batch may need."""
        known = [room for id_ in rooms if (room := self._states.get(Kind.ROOM, id_)) is not None]
        livechat = [room for room in (*known, *told.people) if room.get("t", "l") == "l"]
        return _texts(nested_id(room, "v") for room in livechat), _texts(nested_id(room, "servedBy") for room in livechat)


@dataclass(slots=True)
class _Told:
    """What the changes of a batch tell of what they need: ids of messages, inquiries and rooms, and parts of rooms that name
    people. `operations` are the first ones by collection and id.
    """

    edited: set[str] = field(default_factory=set)
    queued: set[str] = field(default_factory=set)
    rooms: set[str] = field(default_factory=set)
    people: list[Document] = field(default_factory=list)
    operations: dict[str, dict[str, str]] = field(
        default_factory=lambda: {_COLLECTION[kind]: {} for kind in (Kind.ROOM, Kind.VISITOR, Kind.USER, Kind.INQUIRY)}
    )

    def inserted(self, kind: Kind) -> set[str]:
        """Documents that begin in this batch: the first that is heard of them is their insert."""
        return {id_ for id_, operation in self.operations[_COLLECTION[kind]].items() if operation == "insert"}


def _look_through(changes: Iterable[Change]) -> _Told:
    """Looks at every change once: nearly all are of other rooms and need nothing."""
    told = _Told()
    for change in changes:
        if change.collection == documents.MESSAGES:
            _note_message(change, told)
            continue
        operations = told.operations.get(change.collection)
        if operations is None:
            continue
        if isinstance(change.id, str):
            operations.setdefault(change.id, change.operation)
        if change.collection == documents.ROOMS:
            _note_room(change, told)
        elif change.collection == _COLLECTION[Kind.INQUIRY]:
            told.rooms |= _texts(((change.document or {}).get("rid"),))
            if change.updated.get("status") == "queued":
                told.queued |= _texts((change.id,))
    return told


def _note_message(change: Change, told: _Told) -> None:
    if change.operation == "update":
        if isinstance(change.id, str) and transitions.is_edit(change):
            told.edited.add(change.id)
        return
    message = change.document or {}
    kind, room = message.get("t"), message.get("rid")
    if isinstance(room, str) and (not kind or kind in ("livechat-close", "livechat_transfer_history")):
        told.rooms.add(room)


def _note_room(change: Change, told: _Told) -> None:
    if isinstance(change.id, str):
        told.rooms.add(change.id)
    if change.document is not None:
        told.people.append(change.document)
    for name in ("servedBy", "v"):
        if name in change.updated:
            told.people.append({name: change.updated[name]})
        if (inside := f"{name}._id") in change.updated:
            told.people.append({name: {"_id": change.updated[inside]}})


def _texts(ids: Iterable[object]) -> set[str]:
    """The ids that can be one: Rocket.Chat's are texts, but apps write what they like."""
    return {id_ for id_ in ids if isinstance(id_, str)}


def before(at: Timestamp) -> Timestamp:
    """The last moment before `at`."""
    return Timestamp(at.time, at.inc - 1) if at.inc else Timestamp(at.time - 1, 2**32 - 1)
