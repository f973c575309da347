"""Which endpoints an event goes to. Decided once, when the event happens."""

from __future__ import annotations

from collections.abc import Mapping

from daemon.config import EndpointSection
from daemon.model import Profile


class Endpoints:
    """The configured endpoints, by the events they want."""

    def __init__(self, endpoints: Mapping[str, EndpointSection]) -> None:
        self._endpoints = endpoints

    def of(self, event_type: str) -> Mapping[str, Profile]:
        """Endpoint name and profile of every endpoint that gets events of this type; of an unknown type all."""
        return {
            name: endpoint.profile
            for name, endpoint in self._endpoints.items()
            if event_type == "Change" or event_type in endpoint.events
        }
