"""Has everything in memory that a batch of changes needs: one read per collection, of how things were just before the batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from bson.timestamp import Timestamp

from daemon.compose import documents, transitions
from daemon.compose.documents import Kind
from daemon.compose.fold import nested_id
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
        edited = await self._edited_messages(changes, at)
        queued = _of([change for change in changes if change.updated.get("status") == "queued"], Kind.INQUIRY)
        await self._states.ensure(Kind.INQUIRY, queued - _inserted(changes, Kind.INQUIRY), at)
        entries = [self._states.get(Kind.INQUIRY, inquiry) or {} for inquiry in queued]
        rooms = self._rooms(changes, edited) | _texts(entry.get("rid") for entry in entries) | set(waiting)
        await self._states.ensure(Kind.ROOM, rooms - _inserted(changes, Kind.ROOM), at)
        visitors, agents = self._people(changes, rooms)
        await self._states.ensure(Kind.VISITOR, visitors - _inserted(changes, Kind.VISITOR), at)
        await self._states.ensure(Kind.USER, agents, at)
        for kind in (Kind.VISITOR, Kind.USER, Kind.INQUIRY):
            await self._states.recall(kind, _of(changes, kind) - _inserted(changes, kind))
        return edited

    async def _prepare(self, at: Timestamp) -> None:
        await self._states.prepare(at)
        if await self._states.missing(Kind.SERVER, Kind.SERVER):
            version = await self._lookup.server_version(at)
            self._states.put(Kind.SERVER, Kind.SERVER, {"_id": Kind.SERVER.value, "version": version})
        if self._arbitrary_agent and await self._states.missing(Kind.SERVER, documents.ARBITRARY_AGENT):
            fields = documents.BY_KIND[Kind.USER].fields
            self._states.put(Kind.SERVER, documents.ARBITRARY_AGENT, await self._lookup.first("users", fields))

    async def _edited_messages(self, changes: Iterable[Change], at: Timestamp) -> dict[str, dict[str, Any]]:
        messages = [change for change in changes if change.collection == documents.MESSAGES and isinstance(change.id, str)]
        edited = _texts(change.id for change in messages if transitions.is_edit(change))
        new = {
            change.id: dict(change.document or {}) for change in messages if change.operation == "insert" and change.id in edited
        }
        old = edited - set(new)
        return new | (await self._lookup.by_ids(documents.MESSAGES, old, documents.MESSAGE_FIELDS, at) if old else {})

    def _rooms(self, changes: Iterable[Change], edited: dict[str, dict[str, Any]]) -> set[str]:
        rooms: list[object] = []
        for change in changes:
            if change.collection == _COLLECTION[Kind.ROOM]:
                rooms.append(change.id)
            elif change.collection == _COLLECTION[Kind.INQUIRY]:
                rooms.append((change.document or {}).get("rid"))
            elif change.collection == documents.MESSAGES:
                rooms.append(_room_of(change, edited))
        return _texts(rooms)

    def _people(self, changes: Iterable[Change], rooms: Iterable[str]) -> tuple[set[str], set[str]]:
        """The visitors and agents whom the payloads of this batch may need."""
        seen: list[Document | None] = [self._states.get(Kind.ROOM, room) for room in rooms]
        for change in changes:
            if change.collection == _COLLECTION[Kind.ROOM]:
                seen.append(change.document)
                seen.append({name: change.updated.get(name) for name in ("servedBy", "v")})
                seen.append({name: {"_id": change.updated.get(f"{name}._id")} for name in ("servedBy", "v")})
        livechat = [room for room in seen if room is not None and room.get("t", "l") == "l"]
        return _texts(nested_id(room, "v") for room in livechat), _texts(nested_id(room, "servedBy") for room in livechat)


def _room_of(change: Change, edited: dict[str, dict[str, Any]]) -> object:
    """The room of a message that may matter."""
    if change.operation == "update":
        return edited.get(str(change.id), {}).get("rid")
    message = change.document or {}
    kind = message.get("t")
    return message.get("rid") if not kind or kind in ("livechat-close", "livechat_transfer_history") else None


def _texts(ids: Iterable[object]) -> set[str]:
    """The ids that can be one: Rocket.Chat's are texts, but apps write what they like."""
    return {id_ for id_ in ids if isinstance(id_, str)}


def _of(changes: Sequence[Change], kind: Kind) -> set[str]:
    return _texts(change.id for change in changes if change.collection == _COLLECTION[kind])


def _inserted(changes: Sequence[Change], kind: Kind) -> set[str]:
    """Documents that begin in this batch: the first that is heard of them is their insert."""
    first: dict[object, str] = {}
    for change in changes:
        if change.collection == _COLLECTION[kind] and isinstance(change.id, str):
            first.setdefault(change.id, change.operation)
    return _texts(id_ for id_, operation in first.items() if operation == "insert")


def before(at: Timestamp) -> Timestamp:
    """The last moment before `at`."""
    return Timestamp(at.time, at.inc - 1) if at.inc else Timestamp(at.time - 1, 2**32 - 1)
