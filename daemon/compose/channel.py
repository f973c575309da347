"""Offline messages in a channel: Rocket.Chat stores an offline message nowhere else, but rocket.cat can post it."""

from __future__ import annotations

from daemon.compose import documents
from daemon.compose.documents import Kind
from daemon.compose.json_text import encode
from daemon.compose.match import Endpoints, Traits
from daemon.compose.offline import looks_like_offline_post, parse_offline_post
from daemon.compose.pairing import Way, pairing
from daemon.compose.payload.offline import OfflinePost, build_offline
from daemon.compose.states import FoldedStates
from daemon.log import get_logger
from daemon.metrics import Metrics
from daemon.model import Change, Document, EventType, NewEvent

log = get_logger("compose")


class ChannelPosts:
    """Recognises offline messages among the posts in the channels that are configured for them."""

    def __init__(self, states: FoldedStates, endpoints: Endpoints, metrics: Metrics) -> None:
        self._states = states
        self._endpoints = endpoints
        self._metrics = metrics

    def take(self, change: Change, message: Document, room: Document) -> list[NewEvent]:
        """The event of a post, if it is an offline message. What can be read in two ways is delivered, and said to be
        doubtful.
        """
        if not looks_like_offline_post(message) or room.get("name") not in self.names():
            return []
        language = self._setting(documents.LANGUAGE)
        offline = parse_offline_post(str(message["msg"]), language if isinstance(language, str) and language else None)
        if offline is None:
            return []
        traits = Traits(departments=self._departments(offline.department))
        endpoints = self._endpoints.of(EventType.OFFLINE_MESSAGE, traits)
        if not endpoints:
            return []
        event_id = f"{EventType.OFFLINE_MESSAGE}:{change.id}"
        if offline.doubtful:
            self._metrics.doubtful.inc()
            log.warning("compose.offline_doubtful", event_id=event_id, doubtful=True, note="its lines can be read in two ways")
        post = OfflinePost(message["ts"], offline.name, offline.email, offline.message)
        self._metrics.events.labels(EventType.OFFLINE_MESSAGE).inc()
        return [
            NewEvent(
                id=event_id,
                type=EventType.OFFLINE_MESSAGE,
                session=f"offline:{change.id}",
                happened_at=change.wall_time,
                endpoints=endpoints,
                bodies=dict.fromkeys(endpoints.values(), encode(build_offline(post))),
                pairing=pairing(Way.CHANNEL, post),
            )
        ]

    def names(self) -> set[object]:
        """The names of the channels that are configured."""
        names: set[object] = {self._setting(documents.OFFLINE_CHANNEL)}
        names |= {department.get("offlineMessageChannelName") for department in self._states.all(Kind.DEPARTMENT)}
        return names - {None, ""}

    def _departments(self, name: str | None) -> frozenset[str] | None:
        """The department that the post names, by name and id; a post without one tells nothing."""
        if name is None:
            return None
        same = {str(department["_id"]) for department in self._states.all(Kind.DEPARTMENT) if department.get("name") == name}
        return frozenset(same | {name})

    def _setting(self, name: str) -> object:
        setting = self._states.get(Kind.SETTING, name)
        return None if setting is None else setting.get("value")
