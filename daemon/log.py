"""Logs by structlog: dotted event names with fields, one JSON object a line (or text for people) on standard output."""

from __future__ import annotations

import logging
import sys
from typing import Any

import structlog

_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(level: str, log_format: str) -> None:
    """Set up logging for the whole process; the standard library's loggers (aiohttp, pymongo) go through it as warnings and
    worse.
    """
    processors: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    if log_format == "json":
        # Traces without local variables: those hold bodies and tokens.
        traces = structlog.tracebacks.ExceptionDictTransformer(show_locals=False)
        processors += [
            structlog.processors.ExceptionRenderer(traces),
            structlog.processors.JSONRenderer(ensure_ascii=False),
        ]
    else:
        plain = structlog.dev.plain_traceback
        processors.append(structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty(), exception_formatter=plain))
    structlog.configure(
        processors=processors,
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_ToStructlog()], level=logging.WARNING, force=True)


class _ToStructlog(logging.Handler):
    """Passes a record of the standard library on, by name and level; its text may hold anything, so it is cut."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            logger = structlog.get_logger(stage="library")
            write = logger.error if record.levelno >= logging.ERROR else logger.warning
            write("library.message", library=record.name, message=record.getMessage()[:500], exc_info=record.exc_info)
        except Exception:  # noqa: BLE001 - logging never raises into the library that logs
            self.handleError(record)


def get_logger(stage: str) -> structlog.stdlib.BoundLogger:
    """A logger whose lines carry `stage`."""
    logger: structlog.stdlib.BoundLogger = structlog.get_logger(stage=stage)
    return logger
