"""Makes events of transitions: the context of the payload, the endpoints, the bodies or the intent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from daemon.compose import documents
from daemon.compose.documents import Kind
from daemon.compose.fold import nested_id
from daemon.compose.json_text import encode
from daemon.compose.leads import is_lead
from daemon.compose.match import Endpoints, Traits
from daemon.compose.payload.context import Context, encode_context
from daemon.compose.payload.messages import file_ids
from daemon.compose.payload.session import build
from daemon.compose.states import FoldedStates
from daemon.compose.transitions import Awaits, Transition
from daemon.model import Change, Document, EventType, Intent, NewEvent, Profile


class Drafts:
    """Reads folded state only."""

    def __init__(
        self, states: FoldedStates, endpoints: Endpoints, *, site_url: str | None, version: str | None, arbitrary_agent: bool
    ) -> None:
        self._states = states
        self._endpoints = endpoints
        self._site_url = site_url
        self._version = version
        self._arbitrary_agent = arbitrary_agent
        self._settings: tuple[list[Document | None], Document] = ([], {})

    def version(self) -> str | None:
        """The server's version; None when it is not known."""
        server = self._states.get(Kind.SERVER, Kind.SERVER)
        return self._version or (None if server is None else server.get("version"))

    def setting(self, name: str) -> Any:
        """The value of one of Rocket.Chat's settings."""
        document = self._states.get(Kind.SETTING, name)
        return None if document is None else document.get("value")

    def context(
        self,
        event_type: EventType,
        room: Document,
        visitor: Document,
        *,
        extra: Document | None = None,
        message: Document | None = None,
        transcript: bool = False,
    ) -> Context:
        """The context of an event, as of now."""
        agent = self._states.get(Kind.USER, nested_id(room, "servedBy"))
        if agent is None and self._arbitrary_agent and not room.get("servedBy"):
            agent = self._states.get(Kind.SERVER, documents.ARBITRARY_AGENT)
        return Context(
            type=event_type,
            room=room,
            visitor=visitor,
            agent=agent,
            settings=self._payload_settings(),
            version=self.version(),
            department=self._department_name(visitor.get("department")),
            extra=extra or {},
            message=message,
            transcript=transcript,
        )

    def _payload_settings(self) -> Document:
        """The settings that a payload depends on: the same object while they stay the same."""
        found = self._states.several(Kind.SETTING, documents.PAYLOAD_SETTINGS)
        if found != self._settings[0]:
            values: dict[str, Any] = {name: self.setting(name) for name in documents.PAYLOAD_SETTINGS}
            if self._site_url is not None:
                values[documents.SITE_URL] = self._site_url
            self._settings = ([*found], values)
        return self._settings[1]

    def event(self, transition: Transition, change: Change) -> NewEvent | None:
        """The event of a transition: with bodies where everything is at hand, else as an intent; skipped without visitor. None
        if no endpoint gets it.
        """
        endpoints = self._endpoints_of(transition)
        if not endpoints:
            return None
        room = transition.room
        visitor = self._states.get(Kind.VISITOR, nested_id(room, "v"))
        if visitor is None or visitor.get("disabled") is True:
            reason = "the visitor no longer exists" if visitor is None else "the visitor was removed"
            return self.skipped(transition, change, reason)
        message, transcript = transition.message, transition.transcript
        context = self.context(transition.type, room, visitor, extra=transition.extra, message=message, transcript=transcript)
        messages = () if message is None else (message,)
        session = str(room["_id"])
        if transition.awaits is Awaits.NOTHING and not transcript and not file_ids(messages):
            bodies = {profile: encode(build(profile, context, messages, {})) for profile in set(endpoints.values())}
            return NewEvent(transition.event_id, transition.type, session, change.wall_time, endpoints, bodies)
        intent = Intent(
            event_id=transition.event_id,
            session=session,
            started=change.cluster_time,
            completed=change.cluster_time if transition.awaits is Awaits.NOTHING else None,
            cut=_cut(transition, change),
            context=encode_context(context),
        )
        return NewEvent(transition.event_id, transition.type, session, change.wall_time, endpoints, intent=intent)

    def skipped(self, transition: Transition, change: Change, reason: str) -> NewEvent:
        """The event of a transition that cannot be composed."""
        session, endpoints = str(transition.room["_id"]), self._endpoints_of(transition)
        return NewEvent(transition.event_id, transition.type, session, change.wall_time, endpoints, skipped=reason)

    def _endpoints_of(self, transition: Transition) -> Mapping[str, Profile]:
        endpoints = self._endpoints.unfiltered(transition.type)
        if endpoints is None:
            return self._endpoints.of(transition.type, self.traits(transition.room, transition.departments))
        return endpoints

    def leads(self, message: Document) -> bool:
        """Whether a visitor's text holds an address, by the patterns of the settings."""
        return is_lead(
            str(message.get("msg") or ""),
            phone_pattern=self.setting(documents.LEAD_PHONE),
            email_pattern=self.setting(documents.LEAD_EMAIL),
        )

    def traits(self, room: Document, departments: Iterable[str] = ()) -> Traits:
        """What filters look at in a room; `departments` are more ids that count."""
        ids = {str(id_) for id_ in (room.get("departmentId"), *departments) if id_}
        names = {name for id_ in ids if (name := self._department_name(id_))}
        tags, source = room.get("tags"), room.get("source")
        return Traits(
            departments=frozenset(ids | names),
            tags=frozenset(tag for tag in tags if isinstance(tag, str)) if isinstance(tags, list) else frozenset(),
            source=str(source.get("type")) if isinstance(source, Mapping) else "",
        )

    def _department_name(self, id_: object) -> str | None:
        department = self._states.get(Kind.DEPARTMENT, id_)
        name = None if department is None else department.get("name")
        return name if isinstance(name, str) else None


def _cut(transition: Transition, change: Change) -> datetime:
    """The latest `ts` that belongs to the transcript, by the clock that writes `ts`: Rocket.Chat's, not MongoDB's."""
    room = transition.room
    served = room.get("servedBy")
    at: Any = None
    match transition.type:
        case EventType.SESSION:
            at = room.get("closedAt")
        case EventType.SESSION_TAKEN:
            at = served.get("ts") if isinstance(served, Mapping) else None
        case EventType.SESSION_QUEUED:
            at = change.updated.get("queuedAt") or (change.document or {}).get("ts")
        case EventType.SESSION_FORWARDED:
            at = room.get("lm")
        case _:
            pass
    return at if isinstance(at, datetime) else change.wall_time
