"""Errors that a person meets: what happened, and the setting or command that helps."""

from __future__ import annotations

from typing import TypeVar


class DaemonError(Exception):
    """Something that ends the process or a command; `hint` says what to do about it."""

    def __init__(self, message: str, *, hint: str) -> None:
        super().__init__(message)
        self.hint = hint
        self.told = False
        """Whether the log has it already."""


class ConfigurationError(DaemonError):
    """The configuration cannot be used; the message lists every fault at once."""


class MongoError(DaemonError):
    """MongoDB answers, but cannot be used as it is: no replica set, no rights, not Rocket.Chat's database."""


class PositionLostError(DaemonError):
    """The change stream cannot continue where the relay stopped: the oplog no longer reaches back that far."""


class OutboxError(DaemonError):
    """The outbox file cannot be used: locked by another relay, written by a newer version, or not writable."""


E = TypeVar("E", bound=DaemonError)


def first_error(group: BaseExceptionGroup[E]) -> E:
    """The first error of a group of groups."""
    error = group.exceptions[0]
    return first_error(error) if isinstance(error, BaseExceptionGroup) else error
