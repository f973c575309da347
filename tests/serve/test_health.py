"""What the relay says of its own state."""

from __future__ import annotations

from daemon.serve.health import Health
from tests.clocks import FakeClock


def test_not_ready_while_mongodb_cannot_be_read() -> None:
    """The change stream can still be open when what a payload needs cannot be read."""
    health = Health(FakeClock())
    health.capture_open(True)
    assert health.not_ready() is None
    health.reads_fail = lambda: "AutoReconnect: connection closed"
    assert health.not_ready() == "MongoDB cannot be read: AutoReconnect: connection closed"
