"""Events again from stored data: for a gap in the change stream, and for an endpoint that is to have what happened before it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from bson.timestamp import Timestamp

from daemon.compose import documents, traces, transitions
from daemon.compose.channel import ChannelPosts
from daemon.compose.documents import Kind
from daemon.compose.drafts import Drafts
from daemon.compose.fold import nested_id
from daemon.compose.lookup import Find, Lookup
from daemon.compose.match import Endpoints
from daemon.compose.states import FoldedStates
from daemon.compose.traces import Stored, Trace
from daemon.compose.versions import behaviour
from daemon.errors import DaemonError
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Document, EventType, NewEvent

_ROOMS_AT_ONCE = 50

log = get_logger("compose")


@dataclass(frozen=True, slots=True)
class Span:
    """What is to be recovered: what happened from `since` on and before `until`, in one session or all.

    `at` is the moment of which the stored data is read, where MongoDB still can; None: now.
    """

    since: datetime
    until: datetime
    room: str | None = None
    at: Timestamp | None = None


class _NothingStored:
    """The folded state that the relay keeps is of other moments."""

    async def load_states(self, _kind: str, _ids: Collection[str]) -> Mapping[str, Document]:
        return {}

    async def load_all_states(self, _kind: str) -> Mapping[str, Document]:
        return {}


class Recovery:
    """Reads MongoDB only. The events are those that the change stream would have given, by id; their payloads show visitors and
    agents as they are, and rooms as far as it can be told how they were.
    """

    def __init__(
        self, lookup: Lookup, endpoints: Endpoints, metrics: Metrics, *, site_url: str | None, server_version: str | None
    ) -> None:
        self._lookup = lookup
        self._endpoints = endpoints
        self._states = FoldedStates(_NothingStored(), lookup)
        self._drafts = Drafts(self._states, endpoints, site_url=site_url, version=server_version, arbitrary_agent=False)
        self._channel = ChannelPosts(self._states, endpoints, metrics)

    async def rooms(self, span: Span) -> list[str]:
        """The ids of the sessions that can have events in `span`, in any order: those that are open, or closed since."""
        query: dict[str, Any] = {"t": "l", "$or": [{"open": True}, {"closedAt": {"$gte": span.since}}]}
        if span.room is not None:
            query["_id"] = span.room
        found = await self._lookup.select(Find(documents.ROOMS, query, ("_id", "ts")), span.at)
        return [room["_id"] for room in found if not isinstance(room.get("ts"), datetime) or room["ts"] < span.until]

    async def events(self, span: Span, rooms: Sequence[str]) -> AsyncIterator[tuple[int, list[NewEvent]]]:
        """The events of these sessions, page by page, each with how many of `rooms` are done; then the offline messages.

        A session is within one page, its events in the order they happened.
        """
        await self._prepare(span)
        for start in range(0, len(rooms), _ROOMS_AT_ONCE):
            page = rooms[start : start + _ROOMS_AT_ONCE]
            found = [event for stored in await self._stored(page, span) for event in await self._events_of(stored, span)]
            self._states.forget()
            yield start + len(page), found
        if span.room is None and self._endpoints.wanted(EventType.OFFLINE_MESSAGE):
            yield len(rooms), await self._offline_messages(span)

    async def _prepare(self, span: Span) -> None:
        await self._states.prepare(span.at)
        version = await self._lookup.server_version(span.at)
        self._states.put(Kind.SERVER, Kind.SERVER, {"_id": Kind.SERVER.value, "version": version})

    async def _stored(self, ids: Sequence[str], span: Span) -> list[Stored]:
        rooms = await self._lookup.by_ids(documents.ROOMS, ids, documents.BY_KIND[Kind.ROOM].fields, span.at)
        query = {"rid": {"$in": list(ids)}}
        messages: dict[str, list[Document]] = {id_: [] for id_ in ids}
        for message in await self._lookup.select(Find(documents.MESSAGES, query, documents.MESSAGE_FIELDS), span.at):
            if isinstance(message.get("ts"), datetime):
                messages[message["rid"]].append(message)
        return [Stored(room, sorted(messages[id_], key=lambda message: message["ts"])) for id_, room in rooms.items()]

    async def _events_of(self, stored: Stored, span: Span) -> list[NewEvent]:
        """The events of one session; one that cannot be understood becomes a skipped event, and the others go on."""
        try:
            return await self._recovered(stored, span)
        except DaemonError:
            raise
        except Exception as error:
            log.exception("compose.unreadable_session", session=stored.room["_id"])
            reason = f"cannot be recovered: {type(error).__name__}: {error}"[:500]
            event_id = f"Change:{documents.ROOMS}:{stored.room['_id']}:recovery"
            endpoints = self._endpoints.all()
            return [NewEvent(event_id, "Change", stored.room["_id"], span.since, endpoints, skipped=reason, recovered=True)]

    async def _recovered(self, stored: Stored, span: Span) -> list[NewEvent]:
        found = traces.traces(stored, span.since, span.until, behaviour(self._drafts.version()))
        found = [leads for trace in found for leads in (trace, *self._leads(trace))]
        people = [trace.transition.room for trace in found]
        await self._states.ensure(Kind.VISITOR, {str(nested_id(room, "v")) for room in people}, span.at)
        await self._states.ensure(Kind.USER, {str(nested_id(room, "servedBy")) for room in people}, span.at)
        events = []
        for trace in found:
            event = self._drafts.event(trace.transition, trace.change)
            if event is None:
                continue
            if event.type == EventType.SESSION:
                event = _until_closing_message(event, stored)
            events.append(event._replace(recovered=True))
        return events

    def _leads(self, trace: Trace) -> list[Trace]:
        message = trace.transition.message
        if message is None or trace.change.operation != "insert" or not transitions.is_visitor_text(message):
            return []
        if not self._drafts.leads(message):
            return []
        lead = transitions.of_lead(trace.change, trace.transition.room, matches=False)
        return [Trace(lead, trace.change)]

    async def _offline_messages(self, span: Span) -> list[NewEvent]:
        names = sorted(str(name) for name in self._channel.names())
        channels = await self._lookup.select(Find(documents.ROOMS, {"name": {"$in": names}}, ("_id", "t", "name")), span.at)
        rooms = {room["_id"]: room for room in channels if room.get("t") != "l"}
        query = {"rid": {"$in": list(rooms)}, "ts": {"$gte": span.since, "$lt": span.until}}
        posts = await self._lookup.select(Find(documents.MESSAGES, query, documents.MESSAGE_FIELDS), span.at)
        found: list[NewEvent] = []
        for post in sorted(posts, key=lambda post: post["ts"]):
            change = traces.stand_in(documents.MESSAGES, post["_id"], post["ts"])
            try:
                found += self._channel.take(change, post, rooms[post["rid"]])
            except Exception:
                log.exception("compose.unreadable_session", session=post["rid"], message=post["_id"])
        return [event._replace(recovered=True) for event in found]


def _until_closing_message(event: NewEvent, stored: Stored) -> NewEvent:
    """The end of a session lists its closing message, which is written after the room is closed."""
    closed = traces.closing_time(stored)
    if event.intent is None or closed is None or closed <= event.intent.cut:
        return event
    completed = Timestamp(int(closed.timestamp()) + 1, 0)
    return event._replace(intent=replace(event.intent, cut=closed, completed=completed))
