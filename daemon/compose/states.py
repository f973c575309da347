"""The folded state of rooms, visitors, agents, departments and settings: in memory, kept with the outbox, seeded from MongoDB."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Protocol

from bson.timestamp import Timestamp

from daemon.compose.documents import BY_COLLECTION, BY_KIND, Kind
from daemon.compose.fold import fold
from daemon.model import Change, Document, StateRow

_MOST_IN_MEMORY = 20_000  # of a kind


class StateStore(Protocol):
    """Where folded state outlives the process."""

    async def load_states(self, kind: str, ids: Collection[str]) -> Mapping[str, Document]:
        """The stored documents among `ids`, by id."""

    async def load_all_states(self, kind: str) -> Mapping[str, Document]:
        """All stored documents of a kind, by id."""


class Reader(Protocol):
    """The reads that seed."""

    async def by_ids(
        self, collection: str, ids: Collection[Any], fields: Collection[str], at: Timestamp | None
    ) -> Mapping[str, dict[str, Any]]:
        """The documents that existed at `at`, by id."""

    async def every(self, collection: str, fields: Collection[str], at: Timestamp | None) -> list[dict[str, Any]]:
        """All documents as of `at`."""


class FoldedStates:
    """Documents as of the last change that was applied.

    A document that nobody asked for is not followed. One that was asked for is followed from then on: `ensure` seeds it as
    it was before the batch, `apply` folds every later change.
    """

    def __init__(self, store: StateStore, reader: Reader) -> None:
        self._store = store
        self._reader = reader
        # None: known not to exist. Rooms that are not livechat are kept in memory only, to tell their messages apart.
        self._memory: dict[Kind, OrderedDict[str, dict[str, Any] | None]] = {kind: OrderedDict() for kind in Kind}
        self._changed: dict[tuple[Kind, str], None] = {}

    async def prepare(self, at: Timestamp | None) -> None:
        """Have every setting and department; they are few, and a post in a channel is understood by them."""
        await self.ensure(Kind.SETTING, BY_KIND[Kind.SETTING].ids or (), at)
        departments = await self._store.load_all_states(Kind.DEPARTMENT)
        memory = self._memory[Kind.DEPARTMENT]
        for id_, document in departments.items():
            memory.setdefault(id_, dict(document))
        if not departments:
            folded = BY_KIND[Kind.DEPARTMENT]
            for document in await self._reader.every(folded.collection, folded.fields, at):
                memory[document["_id"]] = document
                self._changed[Kind.DEPARTMENT, document["_id"]] = None

    async def ensure(self, kind: Kind, ids: Collection[str], at: Timestamp | None) -> None:
        """Follow these documents from now on; unknown ones are read from MongoDB as they were at `at`."""
        missing = await self._load(kind, ids)
        if not missing:
            return
        folded = BY_KIND[kind]
        found = await self._reader.by_ids(folded.collection, missing, folded.fields, at)
        for id_ in missing:
            if id_ in found:
                self.put(kind, id_, found[id_])
            elif kind is not Kind.USER:  # an agent can be created at any time; rooms and visitors are heard of when they are
                self._memory[kind][id_] = None

    async def missing(self, kind: Kind, id_: str) -> bool:
        """Whether this document is neither in memory nor stored; what is stored is in memory afterwards."""
        return bool(await self._load(kind, (id_,)))

    async def recall(self, kind: Kind, ids: Collection[str]) -> None:
        """Have those of these documents that are followed already."""
        await self._load(kind, ids)

    async def _load(self, kind: Kind, ids: Collection[str]) -> list[str]:
        memory = self._memory[kind]
        missing = [id_ for id_ in dict.fromkeys(ids) if id_ not in memory]
        if not missing:
            return []
        for id_, document in (await self._store.load_states(kind, missing)).items():
            memory[id_] = dict(document)
        return [id_ for id_ in missing if id_ not in memory]

    def get(self, kind: Kind, id_: object) -> dict[str, Any] | None:
        """The document as of the last change applied; None when it does not exist or is not followed."""
        memory = self._memory[kind]
        document = memory.get(id_) if isinstance(id_, str) else None
        if document is not None:
            memory.move_to_end(id_)  # type: ignore[arg-type]
        return document

    def several(self, kind: Kind, ids: Iterable[str]) -> list[dict[str, Any] | None]:
        """These documents of a kind that is held whole, in order; None as in `get`."""
        memory = self._memory[kind]
        return [memory.get(id_) for id_ in ids]

    def all(self, kind: Kind) -> list[dict[str, Any]]:
        """All documents of a kind that is held whole."""
        return [document for document in self._memory[kind].values() if document is not None]

    def apply(self, change: Change) -> dict[str, Any] | None:
        """Fold a change; gives the document after it, None when it does not exist or is not followed."""
        folded = BY_COLLECTION[change.collection]
        memory = self._memory[folded.kind]
        before = memory.get(change.id)
        if before is None and change.operation != "insert":
            return None
        after = fold(before, change, folded.kept)
        if after != before:
            self.put(folded.kind, change.id, after)
        return after

    def put(self, kind: Kind, id_: str, document: dict[str, Any] | None) -> None:
        """Keep a document in this state; None: it does not exist."""
        self._memory[kind][id_] = document
        self._changed[kind, id_] = None

    def changed_rows(self) -> tuple[StateRow, ...]:
        """What the next commit has to keep. Gives each row once; the caller commits it or ends."""
        rows = tuple(
            StateRow(kind, id_, self._memory[kind].get(id_))
            for kind, id_ in self._changed
            if kind is not Kind.ROOM or _is_livechat_or_gone(self._memory[kind].get(id_))
        )
        self._changed.clear()
        return rows

    @property
    def unsaved(self) -> bool:
        """Whether there is anything to keep."""
        return bool(self._changed)

    def forget(self) -> None:
        """Forget people, and what the next commit would keep: for readers that follow nothing."""
        for kind in (Kind.VISITOR, Kind.USER):
            self._memory[kind].clear()
        self._changed.clear()

    def trim(self) -> None:
        """Forget in memory what was not used for longest, once all of it is in the store. Call between batches."""
        if self._changed:
            return
        for kind in (Kind.ROOM, Kind.VISITOR, Kind.USER, Kind.INQUIRY):
            memory = self._memory[kind]
            while len(memory) > _MOST_IN_MEMORY:
                memory.popitem(last=False)


def _is_livechat_or_gone(room: Document | None) -> bool:
    return room is None or room.get("t") == "l"
