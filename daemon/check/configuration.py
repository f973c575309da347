"""What the configuration says, beyond that it can be loaded."""

from __future__ import annotations

from pathlib import Path

from daemon.check.findings import Finding, names, ok, warning
from daemon.config.root import Config
from daemon.model import EventType


def check_configuration(config: Config, path: Path | None) -> list[Finding]:
    """Endpoints and event types, and whether the intake serves anybody."""
    wanted = {event for endpoint in config.endpoints.values() for event in endpoint.events}
    nobody = set(EventType) - wanted
    found = f"{'' if path is None else f'{path.absolute()}; '}endpoints: {names(config.endpoints)}"
    if nobody:
        found += f"; no endpoint gets {names(nobody)}"
    findings = [ok("configuration.file", found)]
    offline = EventType.OFFLINE_MESSAGE in wanted
    if config.intake.enabled and not offline:
        findings.append(
            warning(
                "configuration.intake",
                "the intake is enabled, but no endpoint gets LivechatOfflineMessage: what it takes goes nowhere",
                "add LivechatOfflineMessage to the events of an endpoint, or set intake.enabled to false",
            )
        )
    elif config.intake.enabled:
        findings.append(ok("configuration.intake", f"takes offline messages at http://{config.serve.listen}/intake/offline"))
    if config.capture.on_lost_position == "restart":
        findings.append(
            warning(
                "configuration.capture",
                "capture.on_lost_position is `restart`: should the oplog pass the position, events are left out without a stop",
                "set it back to `fail`",
            )
        )
    return findings
