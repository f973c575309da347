"""The outbox: its folder, its file, what is in it, and who uses it. Reads only, beside the relay or without it."""

from __future__ import annotations

import fcntl
import os
import pwd
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

from daemon.check.findings import Finding, failure, for_long, in_bytes, ok, warning
from daemon.clock import Clock
from daemon.config.root import Config
from daemon.model import Position
from daemon.outbox import entries, figures
from daemon.outbox.lanes import endpoint_state
from daemon.outbox.refusals import find_refusals
from daemon.outbox.schema import VERSION
from daemon.outbox.writer import write_error

_QUICK_CHECK_S = 5.0
_STEPS = 10_000  # of SQLite's machine between two looks at the clock
_OWNER_HINT = "run this command, and the relay, as the relay's user (sudo -u livechat-relay); chown what another user made"


@dataclass(frozen=True, slots=True)
class Place:
    """What the other checks need to know of the outbox."""

    position: Position | None
    running: bool


def check_outbox(config: Config, clock: Clock) -> tuple[list[Finding], Place]:
    """Everything about the outbox; also gives where reading stands and whether a relay runs."""
    path = config.outbox.path
    holder = _holder(path)
    findings = [*_check_folder(path, config.outbox.max_size), *holder.findings]
    if not path.exists():
        findings.append(ok("outbox.file", f"{path.absolute()} is not there yet: the relay makes it at its first start"))
        return findings, Place(None, holder.running)
    findings += _check_owner(path)
    try:
        with _opened(path) as connection:
            return _look_inside(connection, config, clock, findings, holder.running)
    except sqlite3.Error as error:
        known = write_error(path, error)
        return [*findings, failure("outbox.file", str(known), known.hint)], Place(None, holder.running)


def _look_inside(
    connection: sqlite3.Connection, config: Config, clock: Clock, findings: list[Finding], running: bool
) -> tuple[list[Finding], Place]:
    path = config.outbox.path
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        found = f"{path} was written by a newer livechat-relay (schema {version}, this one knows {VERSION})"
        return [
            *findings,
            failure("outbox.file", found, "install that version again, or name another file in outbox.url"),
        ], Place(None, running)
    findings.append(_check_pages(connection, path, version, clock))
    if version < VERSION:
        findings.append(ok("outbox.schema", f"schema {version} is brought to {VERSION} at the relay's next start"))
        return findings, Place(None, running)
    position = entries.load_position(connection)
    findings += _check_size(connection, config.outbox.max_size)
    findings += _check_backlog(connection, config, clock)
    findings += _check_refusals(connection, clock)
    return findings, Place(position, running)


@contextmanager
def _opened(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None)) as connection:
        connection.execute("PRAGMA busy_timeout = 5000")
        yield connection


@dataclass(frozen=True, slots=True)
class _Holder:
    findings: tuple[Finding, ...]
    running: bool


def _holder(path: Path) -> _Holder:
    """Whether a relay has this outbox. The lock file is never made here: it must belong to the relay's user."""
    lock = path.with_name(f"{path.name}.lock")
    try:
        with lock.open(encoding="utf-8") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return _Holder((ok("outbox.relay", f"a relay runs on this outbox ({file.read().strip()})"),), running=True)
    except FileNotFoundError:
        pass
    except OSError as error:
        finding = warning("outbox.relay", f"{lock} cannot be read: {error.strerror}", _OWNER_HINT)
        return _Holder((finding,), running=False)
    return _Holder((ok("outbox.relay", "no relay runs on this outbox"),), running=False)


def _check_folder(path: Path, max_size: int) -> list[Finding]:
    folder = path.absolute().parent
    if not folder.is_dir():
        remedy = f"install -d -m 0700 -o livechat-relay {folder}; the systemd unit makes /var/lib/livechat-relay by itself"
        return [warning("outbox.folder", f"the folder {folder} does not exist", remedy)]
    found = f"{folder}, owner {_owner(folder)}"
    if not os.access(folder, os.W_OK | os.X_OK):
        return [failure("outbox.folder", f"{found}: {_user()} may not write there", _OWNER_HINT)]
    findings = [ok("outbox.folder", f"{found}, {_user()} may write there")]
    free, used = shutil.disk_usage(folder).free, sum(file.stat().st_size for file in folder.glob(f"{path.name}*"))
    space = f"{in_bytes(free)} free; the outbox has {in_bytes(used)} and may grow to {in_bytes(max_size)}"
    if used + free < max_size:
        remedy = "make room, or lower outbox.max_size: at that size reading pauses in order, on a full disk the relay stops"
        return [*findings, warning("outbox.space", space, remedy)]
    return [*findings, ok("outbox.space", space)]


def _check_owner(path: Path) -> list[Finding]:
    mode = stat.S_IMODE(path.stat().st_mode)
    found = f"{path.absolute()}, owner {_owner(path)}, mode {mode:04o}"
    if not os.access(path, os.R_OK | os.W_OK):
        return [failure("outbox.owner", f"{found}: {_user()} may not use it", _OWNER_HINT)]
    if _owner(path) != _owner(path.absolute().parent):
        remedy = f"chown {_owner(path.absolute().parent)} {path.absolute()}*, if that is the user of the relay"
        return [warning("outbox.owner", f"{found}: its folder belongs to another user", remedy)]
    if mode & 0o077:
        remedy = f"chmod 600 {path.absolute()}*; the relay does so at its next start"
        return [warning("outbox.owner", f"{found}: others may read what visitors wrote", remedy)]
    return [ok("outbox.owner", found)]


def _check_pages(connection: sqlite3.Connection, path: Path, version: int, clock: Clock) -> Finding:
    """SQLite's own look at its file, for a few seconds at most."""
    until = clock.monotonic() + _QUICK_CHECK_S
    connection.set_progress_handler(lambda: clock.monotonic() > until, _STEPS)
    try:
        faults = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return ok("outbox.file", f"no fault in what could be looked at within {_QUICK_CHECK_S:.0f} seconds")
    finally:
        connection.set_progress_handler(None, 0)
    if faults == ["ok"]:
        return ok("outbox.file", f"schema {version}, SQLite finds no fault in it")
    remedy = (
        "stop the relay, keep a copy, and put a good copy in its place, or save what can be saved: sqlite3 outbox.db .recover"
    )
    return failure("outbox.file", f"{path} is damaged: {'; '.join(faults)}", remedy)


def _check_size(connection: sqlite3.Connection, max_size: int) -> list[Finding]:
    used = figures.size(connection)
    if used > max_size:
        found = f"{in_bytes(used)} are in use, more than outbox.max_size ({in_bytes(max_size)}): reading pauses"
        return [failure("outbox.size", found, "mend the endpoints that take nothing, cancel what need not be sent, or raise it")]
    return []


def _check_backlog(connection: sqlite3.Connection, config: Config, clock: Clock) -> list[Finding]:
    findings = []
    backlogs = {backlog.endpoint: backlog for backlog in figures.count_backlog(connection)}
    for name in config.endpoints:
        backlog, state = backlogs.get(name), endpoint_state(connection, name)
        owed, dead = (backlog.owed, backlog.dead) if backlog is not None else (0, 0)
        found = f"{_events(owed)} owed"
        if backlog is not None and backlog.oldest is not None:
            found += f", the oldest {for_long((clock.now() - backlog.oldest).total_seconds())} old"
        if state.down_since is not None:
            found = f"down for {for_long((clock.now() - state.down_since).total_seconds())}; {found}"
            remedy = f"mend the receiver; its events wait, and follow when it answers (deliveries list --endpoint {name})"
            findings.append(warning("backlog.owed", found, remedy, subject=name))
        else:
            findings.append(ok("backlog.owed", found, subject=name))
        if dead:
            remedy = (
                f"livechat-relay deliveries list --state dead --endpoint {name} tells why; then deliveries retry, or they go"
                " after outbox.keep_dead"
            )
            findings.append(warning("backlog.dead", f"{_events(dead)} could not be delivered", remedy, subject=name))
    for name, backlog in sorted(backlogs.items()):
        if name not in config.endpoints and backlog.owed:
            found = f"{_events(backlog.owed)} owed to an endpoint that is not in the configuration"
            remedy = f"add endpoints.{name} again, or give them up: livechat-relay deliveries cancel --endpoint {name}"
            findings.append(warning("backlog.orphaned", found, remedy, subject=name))
    return findings


def _check_refusals(connection: sqlite3.Connection, clock: Clock) -> list[Finding]:
    return [
        warning(
            "backlog.refused",
            f"answers {refusal.status} to every {refusal.type}: none was delivered since the last five died of it",
            refusal.hint,
            subject=refusal.endpoint,
        )
        for refusal in find_refusals(connection, clock.now().timestamp())
    ]


def _events(count: int) -> str:
    return f"{count} event{'' if count == 1 else 's'}"


def _owner(path: Path) -> str:
    try:
        return path.owner()
    except KeyError:
        return f"user {path.stat().st_uid}"


def _user() -> str:
    try:
        return f"user {pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"user {os.geteuid()}"
