"""Logging for the whole process."""

from __future__ import annotations

import io
import logging
import sys
from collections.abc import Iterable, MutableMapping
from contextlib import suppress
from typing import Any

import structlog

from daemon.clock import SystemClock
from daemon.log.ecs import to_ecs
from daemon.log.guard import Guard
from daemon.log.repeats import Repeats
from daemon.log.traces import Traces, as_text

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}
_LONGEST_MESSAGE = 500

_guard = Guard()
_repeats = Repeats(SystemClock())


def configure(level: str, log_format: str, secrets: Iterable[str] = ()) -> None:
    """Set up logging for the whole process; `secrets` are hidden wherever they would appear. The standard library's loggers
    (aiohttp, pymongo, asyncio) go through it as warnings and worse.
    """
    global _guard, _repeats
    _repeats.say(everything=True)
    _guard, _repeats = Guard(), Repeats(SystemClock())
    _guard.hide(secrets)
    output = sys.stdout
    if isinstance(output, io.TextIOWrapper):
        output.reconfigure(encoding="utf-8", errors="backslashreplace")
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        _repeats,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        Traces(with_texts=level == "debug"),
        _guard,
    ]
    match log_format:
        case "console":
            processors += [_trace_for_people, structlog.dev.ConsoleRenderer(colors=output.isatty())]
        case "ecs":
            processors += [to_ecs, structlog.processors.JSONRenderer(ensure_ascii=False)]
        case _:
            processors.append(structlog.processors.JSONRenderer(ensure_ascii=False))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=lambda *_: _Output(output),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_ToStructlog(with_details=level == "debug")], level=logging.WARNING, force=True)


def hide(*secrets: str) -> None:
    """Hide secrets that became known only now."""
    _guard.hide(secrets)


def say_repeated(*, everything: bool = False) -> None:
    """Write what was counted instead of written and is due; call it every few seconds, and at the end with `everything`."""
    _repeats.say(everything=everything)


def get_logger(stage: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `stage`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(stage=stage)
    return logger


def _trace_for_people(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    if "exception" in line:
        line["exception"] = as_text(line["exception"])
    return line


class _Output(structlog.PrintLogger):
    """Standard output. One that is full or closed costs lines, not the relay."""

    def msg(self, message: str) -> None:
        with suppress(OSError, ValueError):
            super().msg(message)

    log = debug = info = warn = warning = msg
    fatal = failure = err = error = critical = exception = msg


class _ToStructlog(logging.Handler):
    """Passes a record of the standard library on, by name and level. Its text may hold anything, so it is cut: asyncio, for one,
    writes whole exceptions into its further lines.
    """

    def __init__(self, *, with_details: bool) -> None:
        super().__init__()
        self._with_details = with_details

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger = structlog.get_logger(stage="library")
            write = logger.error if record.levelno >= logging.ERROR else logger.warning
            message = record.getMessage()
            message = message if self._with_details else message.partition("\n")[0]
            write("library.message", library=record.name, message=message[:_LONGEST_MESSAGE], exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - logging never raises into the library that logs
            self.handleError(record)
