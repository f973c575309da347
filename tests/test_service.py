"""What systemd hears."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from daemon.service import ServiceManager
from tests.clocks import FakeClock


@pytest.fixture
def systemd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket that systemd would listen on."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


def silent(listener: socket.socket) -> bool:
    listener.setblocking(False)
    try:
        listener.recv(4096)
    except BlockingIOError:
        return True
    return False


def test_ready_is_said_once(systemd: socket.socket) -> None:
    manager = ServiceManager()
    manager.ready()
    manager.ready()
    assert systemd.recv(4096) == b"READY=1"
    assert silent(systemd)


def test_a_status_feeds_the_watchdog(systemd: socket.socket) -> None:
    ServiceManager().status("reading; 3 events owed, Grüße")
    assert systemd.recv(4096).decode().split("\n") == ["STATUS=reading; 3 events owed, Grüße", "WATCHDOG=1"]


def test_a_status_is_one_line(systemd: socket.socket) -> None:
    ServiceManager().status("the change stream is not open: two\nREADY=1")
    assert "READY=1" not in systemd.recv(4096).decode().split("\n")


def test_stopping(systemd: socket.socket) -> None:
    ServiceManager().stopping()
    assert systemd.recv(4096).split(b"\n")[0] == b"STOPPING=1"


def test_a_reload_is_told_with_its_time(systemd: socket.socket) -> None:
    manager = ServiceManager(FakeClock())
    manager.ready()
    manager.reloading()
    manager.reloaded(None)
    assert systemd.recv(4096) == b"READY=1"
    assert systemd.recv(4096) == b"RELOADING=1\nMONOTONIC_USEC=1000000000"
    assert systemd.recv(4096) == b"READY=1\nSTATUS=reloaded"


def test_a_reload_during_the_start_is_not_told(systemd: socket.socket) -> None:
    """Its READY=1 would end the start before the change stream is open."""
    manager = ServiceManager()
    manager.reloading()
    manager.reloaded(None)
    assert silent(systemd)


def test_ready_that_nobody_heard_is_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    manager = ServiceManager()
    manager.ready()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(1)
        manager.ready()
        assert listener.recv(4096) == b"READY=1"


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    name = f"livechat-relay-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(f"\0{name}")
        listener.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")
        ServiceManager().ready()
        assert listener.recv(4096) == b"READY=1"


@pytest.mark.parametrize("value", [None, ""], ids=["not set", "empty"])
def test_without_systemd_nothing_happens(monkeypatch: pytest.MonkeyPatch, value: str | None) -> None:
    if value is None:
        monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    else:
        monkeypatch.setenv("NOTIFY_SOCKET", value)
    manager = ServiceManager()
    manager.ready()
    manager.status("text")
    manager.stopping()


@pytest.mark.parametrize("kind", ["gone", "nobody listens", "no socket"])
def test_a_socket_that_does_not_work_does_not_stop_the_relay(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, kind: str) -> None:
    address = tmp_path / "notify"
    if kind == "nobody listens":
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
            listener.bind(str(address))
    elif kind == "no socket":
        address.touch()
    monkeypatch.setenv("NOTIFY_SOCKET", str(address))
    ServiceManager().ready()
