"""The lock that keeps two relays from one outbox."""

from __future__ import annotations

import fcntl
import os
import socket
from pathlib import Path
from types import TracebackType

from daemon.errors import OutboxError


class Lock:
    """Held from construction to `release`, and given up by the system when the process ends, however it ends.

    Raises `OutboxError` that names the holder when another process has it.
    """

    def __init__(self, outbox: Path) -> None:
        path = outbox.with_name(f"{outbox.name}.lock")
        try:
            self._file = path.open("a+", encoding="utf-8")
            self._take(outbox)
        except OSError as error:
            raise OutboxError(
                f"cannot write to {path}: {error.strerror or error}",
                hint="create the folder of outbox.url, let the relay's user write to it, and see that the disk is not full",
            ) from error

    def _take(self, outbox: Path) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.seek(0)
            holder = self._file.read().strip() or "another process"
            self._file.close()
            raise OutboxError(
                f"{outbox} is in use by another relay ({holder})",
                hint="stop that one first (systemctl stop livechat-relay), or give this one a file of its own (outbox.url)",
            ) from None
        self._file.truncate(0)
        self._file.write(f"process {os.getpid()} on {socket.gethostname()}")
        self._file.flush()

    def release(self) -> None:
        """Let others have it."""
        self._file.close()

    def __enter__(self) -> Lock:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.release()
