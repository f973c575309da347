"""What a line of the log looks like, and what never stands in one."""

from __future__ import annotations

import io
import json
import logging
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import structlog

from daemon import log


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    """Logging is a setting of the process: leave it as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    structlog.reset_defaults()
    root.handlers[:] = handlers
    root.setLevel(level)


class Lines:
    """Standard output, and the lines on it since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.configure("info", "json")

    def configure(self, level: str, log_format: str) -> None:
        self.output = io.StringIO()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", self.output)
            log.configure(level, log_format)

    def __call__(self) -> list[dict[str, Any]]:
        text = self.output.getvalue()
        self.output.seek(0)
        self.output.truncate()
        return [json.loads(line) for line in text.splitlines()]


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> Lines:
    """Logging as JSON at `info`."""
    return Lines(monkeypatch)


def test_a_line_is_a_json_object(lines: Lines) -> None:
    log.get_logger("relay").warning("delivery.attempted", endpoint="crm", count=3, text="Grüße\n👋")
    (line,) = lines()
    written_at = datetime.fromisoformat(line.pop("timestamp"))
    assert abs(datetime.now(UTC) - written_at) < timedelta(minutes=1)
    assert line == {
        "event": "delivery.attempted",
        "level": "warning",
        "stage": "relay",
        "endpoint": "crm",
        "count": 3,
        "text": "Grüße\n👋",
    }


def test_what_json_does_not_know_is_written_too(lines: Lines) -> None:
    log.get_logger("relay").info("odd", value=object(), data=b"\xff", when=timedelta(seconds=1))
    (line,) = lines()
    assert line["event"] == "odd"


@pytest.mark.parametrize(
    ("level", "written"),
    [
        ("debug", ["debug", "info", "warning", "error"]),
        ("info", ["info", "warning", "error"]),
        ("warning", ["warning", "error"]),
        ("error", ["error"]),
    ],
)
def test_levels(lines: Lines, level: str, written: list[str]) -> None:
    lines.configure(level, "json")
    logger = log.get_logger("app")
    for name in ("debug", "info", "warning", "error"):
        getattr(logger, name)(f"a.{name}")
    assert [line["level"] for line in lines()] == written


def test_a_logger_that_was_made_before_follows_the_configuration(capsys: pytest.CaptureFixture[str]) -> None:
    logger = log.get_logger("early")
    log.configure("info", "json")
    logger.info("a.b")
    assert json.loads(capsys.readouterr().out)["stage"] == "early"


def test_the_console_format_is_for_people(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("info", "console")
    log.get_logger("relay").info("delivery.attempted", endpoint="crm")
    (line,) = capsys.readouterr().out.splitlines()
    assert "delivery.attempted" in line
    assert "endpoint=crm" in line
    assert "stage=relay" in line
    assert "\x1b" not in line, "no colours where nobody looks"


def broken(token: str) -> None:
    body = f"what the visitor wrote, and {token}"
    raise ValueError("odd" if body else "even")


def test_an_exception_comes_with_its_trace(lines: Lines) -> None:
    try:
        broken("x")
    except ValueError:
        log.get_logger("relay").exception("relay.attempt_broken", event_id="m1")
    (line,) = lines()
    (exception,) = line["exception"]
    assert (exception["exc_type"], exception["exc_value"]) == ("ValueError", "odd")
    assert exception["frames"][-1]["name"] == "broken"


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_the_trace_holds_no_values_of_variables(capsys: pytest.CaptureFixture[str], log_format: str) -> None:
    log.configure("info", log_format)
    secret = "hunt" + "er2"
    try:
        broken(secret)
    except ValueError:
        log.get_logger("relay").exception("relay.attempt_broken")
    assert "hunter2" not in capsys.readouterr().out


class TestLibraries:
    def test_warnings_pass_through(self, lines: Lines) -> None:
        logging.getLogger("pymongo.client").warning("careful: %s", "x")
        (line,) = lines()
        del line["timestamp"]
        assert line == {
            "event": "library.message",
            "level": "warning",
            "stage": "library",
            "library": "pymongo.client",
            "message": "careful: x",
        }

    def test_quieter_messages_do_not(self, lines: Lines) -> None:
        lines.configure("debug", "json")
        logging.getLogger("aiohttp.access").info("GET /")
        assert lines() == []

    def test_a_long_message_is_cut(self, lines: Lines) -> None:
        logging.getLogger("aiohttp.server").error("x" * 100_000)
        (line,) = lines()
        assert len(line["message"]) == 500

    def test_an_exception_is_named(self, lines: Lines) -> None:
        try:
            broken("x")
        except ValueError:
            logging.getLogger("asyncio").exception("Task exception was never retrieved")
        (line,) = lines()
        assert "ValueError" in json.dumps(line)
        assert "what the visitor wrote" not in json.dumps(line)

    @pytest.mark.parametrize(
        ("level", "message", "values"),
        [(logging.WARNING, "%d", ("no number",)), (35, "a level of its own", ()), (logging.CRITICAL, "the worst", ())],
        ids=["wrong arguments", "unknown level", "critical"],
    )
    def test_a_library_never_fails_because_of_its_logging(
        self, lines: Lines, level: int, message: str, values: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(logging, "raiseExceptions", False)
        logging.getLogger("library").log(level, message, *values)
        assert len(lines()) <= 1
