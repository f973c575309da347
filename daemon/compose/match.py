"""Which endpoints an event goes to. Decided once, when the event happens."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from daemon.config.endpoint import EndpointSection
from daemon.model import EventType, Profile


@dataclass(frozen=True, slots=True)
class Traits:
    """What filters look at: departments by id and by name, tags, and the source of the session. None: that is not known, or there
    can be none.
    """

    departments: frozenset[str] | None = None
    tags: frozenset[str] | None = None
    source: str | None = None


class Endpoints:
    """The configured endpoints, by what they want."""

    def __init__(self, endpoints: Mapping[str, EndpointSection]) -> None:
        self._endpoints = endpoints
        self._wanted = {event_type for endpoint in endpoints.values() for event_type in endpoint.events}
        filtering = [found for found in endpoints.values() if found.departments or found.tags or found.sources]
        filtered = {event_type for endpoint in filtering for event_type in endpoint.events}
        self._unfiltered = {event_type: self.of(event_type, Traits()) for event_type in EventType if event_type not in filtered}

    def unfiltered(self, event_type: EventType) -> Mapping[str, Profile] | None:
        """The endpoints of an event of this type if that is enough to tell them; None: its traits must be known."""
        return self._unfiltered.get(event_type)

    def wanted(self, event_type: str) -> bool:
        """Whether any endpoint gets events of this type."""
        return event_type in self._wanted

    def all(self) -> Mapping[str, Profile]:
        """Every endpoint, for what cannot be told apart."""
        return {name: endpoint.profile for name, endpoint in self._endpoints.items()}

    def of(self, event_type: str, traits: Traits) -> Mapping[str, Profile]:
        """Name and profile of every endpoint that gets an event of this type and these traits."""
        return {
            name: endpoint.profile
            for name, endpoint in self._endpoints.items()
            if event_type in endpoint.events
            and _passes(endpoint.departments, traits.departments)
            and _passes(endpoint.tags, traits.tags)
            and _passes(endpoint.sources, None if traits.source is None else {traits.source})
        }


def _passes(wanted: Collection[str], has: Collection[str] | None) -> bool:
    """An empty filter lets everything through; so does every filter where the event cannot have such a trait."""
    return not wanted or has is None or any(value in wanted for value in has)
