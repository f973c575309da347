"""What a line of the log looks like, and what never stands in one."""

from __future__ import annotations

import ast
import io
import json
import logging
import re
import sys
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import structlog

from daemon import log
from daemon.errors import OutboxError
from daemon.log.repeats import EVERY_S, Repeats
from tests.clocks import FakeClock

ROOT = Path(__file__).parents[1]


class Lines:
    """Standard output, and the lines on it since the last look."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self.configure("info", "json")

    def configure(self, level: str, log_format: str, secrets: Iterable[str] = ()) -> None:
        self.output = io.StringIO()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", self.output)
            log.configure(level, log_format, secrets)

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
    assert exception["type"] == "ValueError"
    assert "text" not in exception, "it may quote what a visitor wrote"
    assert exception["frames"][-1].endswith(" broken")
    assert re.match(r"/.*/tests/test_log\.py:\d+ ", exception["frames"][-1])


def test_the_texts_of_exceptions_are_there_at_debug(lines: Lines) -> None:
    lines.configure("debug", "json")
    try:
        broken("x")
    except ValueError:
        log.get_logger("relay").exception("relay.attempt_broken")
    assert lines()[0]["exception"][0]["text"] == "odd"


def test_the_texts_of_errors_of_ours_and_of_the_system_are_always_there(lines: Lines) -> None:
    try:
        try:
            try:
                broken("x")
            except ValueError as error:
                raise OutboxError("the outbox cannot be used", hint="mend it") from error
        except OutboxError:
            raise ExceptionGroup("visitor", [OSError(28, "No space left on device"), KeyError("visitor")]) from None
    except ExceptionGroup as group:
        chained = OutboxError("closed", hint="open it")
        chained.__context__ = group
        log.get_logger("relay").error("relay.crashed", exc_info=chained)
    (line,) = lines()
    ours, group_of = line["exception"]
    assert ours["text"] == "closed"
    assert [trace[0].get("text") for trace in group_of["exceptions"]] == ["[Errno 28] No space left on device", None]
    assert "visitor" not in json.dumps(line)


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

    def test_only_the_first_line_of_a_message_is_written(self, lines: Lines) -> None:
        text = "Task exception was never retrieved\nfuture: <Task exception=ValueError('what the visitor wrote')>"
        logging.getLogger("asyncio").error(text)
        (line,) = lines()
        assert line["message"] == "Task exception was never retrieved"
        lines.configure("debug", "json")
        logging.getLogger("asyncio").error(text)
        assert lines()[0]["message"] == text


class TestOutput:
    def test_one_that_is_full_or_closed_costs_lines_not_the_relay(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with Path("/dev/full").open("w", encoding="utf-8", buffering=1) as full:
            monkeypatch.setattr(sys, "stdout", full)
            log.configure("info", "json")
            log.get_logger("app").info("relay.starting")
            monkeypatch.undo()
            with suppress(OSError):
                full.close()
        log.get_logger("app").info("relay.stopped")

    @pytest.mark.parametrize("encoding", ["ascii", "iso-8859-1"])
    def test_it_is_unicode_whatever_the_locale(self, encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
        raw = io.BytesIO()
        output = io.TextIOWrapper(raw, encoding=encoding)
        monkeypatch.setattr(sys, "stdout", output)
        log.configure("info", "json")
        log.get_logger("app").info("a.b", text="Grüße 👋", half="\ud83d")
        monkeypatch.undo()
        output.flush()
        line = json.loads(raw.getvalue().decode("utf-8"))
        assert (line["text"], line["half"]) == ("Grüße 👋", "\\ud83d")


class TestGuard:
    SECRETS = ("hunter2", 'with"quote\\', "pässwörd", "longer hunter2 secret", "short")

    @pytest.fixture(params=["json", "ecs", "console"])
    def text(self, request: pytest.FixtureRequest, lines: Lines) -> str:
        lines.configure("debug", request.param, self.SECRETS)
        one, two, three, four, short = self.SECRETS
        log.get_logger("relay").error(
            "a.b",
            url=f"https://u:{one}@host",
            fields={two: [two, {"deep": one}]},
            value=Odd(two),
            group=(four,),
            kept=short,
            exc_info=ValueError(f"cannot send {three}"),
        )
        return lines.output.getvalue()

    def test_known_secrets_are_hidden_wherever_they_are(self, text: str) -> None:
        for secret in self.SECRETS[:-1]:
            assert secret not in text
            assert json.dumps(secret)[1:-1] not in text
        assert "longer" not in text
        assert "***" in text

    def test_what_is_as_short_as_a_word_stays(self, text: str) -> None:
        assert "short" in text

    def test_one_that_became_known_later_is_hidden_too(self, lines: Lines) -> None:
        log.get_logger("app").info("a.b", value="the file secret")
        log.hide("file secret")
        log.get_logger("app").info("a.c", value="the file secret")
        assert [line["value"] for line in lines()] == ["the file secret", "the ***"]

    def test_its_own_members_come_first_and_are_left_alone(self, lines: Lines) -> None:
        lines.configure("info", "json", ["timestamp", "warning"])
        log.get_logger("relay").warning("a.warning", value="warning")
        (line,) = lines()
        assert list(line) == ["timestamp", "level", "event", "stage", "value"]
        assert (line["level"], line["event"], line["value"]) == ("warning", "a.warning", "***")

    def test_every_value_is_one_that_json_knows(self, lines: Lines) -> None:
        log.get_logger("relay").info("a.b", nan=float("nan"), infinite=float("inf"), whole=1, yes=True, none=None, share=0.5)
        text = lines.output.getvalue()
        line = json.loads(text, parse_constant=pytest.fail)
        assert {name: line[name] for name in ("nan", "infinite", "whole", "yes", "none", "share")} == {
            "nan": "nan", "infinite": "inf", "whole": 1, "yes": True, "none": None, "share": 0.5,
        }  # fmt: skip


class Odd:
    """Prints what it holds."""

    def __init__(self, value: str) -> None:
        self._value = value

    def __str__(self) -> str:
        return f"Odd({self._value})"


class TestRepeats:
    @pytest.fixture
    def clock(self, lines: Lines) -> FakeClock:
        """Repeats on a clock that moves only when told."""
        clock = FakeClock()
        repeats = Repeats(clock)
        processors = structlog.get_config()["processors"]
        structlog.configure(processors=[repeats if isinstance(one, Repeats) else one for one in processors])
        self.say = repeats.say
        return clock

    @staticmethod
    def fail(times: int, reason: str = "answered 500", endpoint: str = "crm") -> None:
        for number in range(times):
            log.get_logger("relay").warning("endpoint.failing", endpoint=endpoint, reason=reason, event_id=f"m{number}")

    def test_the_first_at_once_then_one_a_minute_that_stands_for_all(self, lines: Lines, clock: FakeClock) -> None:
        self.fail(1000)
        (line,) = lines()
        assert (line["event_id"], "repeated" in line) == ("m0", False)
        self.say()
        assert lines() == []
        clock.advance(EVERY_S)
        self.say()
        (line,) = lines()
        assert (line["event_id"], line["repeated"], line["level"], line["stage"]) == ("m999", 999, "warning", "relay")
        self.fail(5)
        self.say()
        assert lines() == []
        clock.advance(EVERY_S)
        self.say()
        assert [line["repeated"] for line in lines()] == [5]

    def test_after_a_quiet_minute_the_next_is_a_first_one(self, lines: Lines, clock: FakeClock) -> None:
        self.fail(1)
        clock.advance(EVERY_S)
        self.say()
        self.fail(1)
        assert ["repeated" in line for line in lines()] == [False, False]

    def test_endpoints_and_reasons_are_told_apart(self, lines: Lines, clock: FakeClock) -> None:
        self.fail(2)
        self.fail(2, reason="answered 503")
        self.fail(2, endpoint="archive")
        assert len(lines()) == 3

    def test_exceptions_are_told_apart_by_type(self, lines: Lines, clock: FakeClock) -> None:
        for kind in (ValueError, KeyError, ValueError):
            log.get_logger("compose").error("compose.intent_failed", exc_info=kind("x"))
        assert [line["exception"][0]["type"] for line in lines()] == ["ValueError", "KeyError"]
        self.say(everything=True)
        (line,) = lines()
        assert (line["repeated"], "exception" in line) == (1, False)

    def test_reasons_without_end_do_not_become_lines_without_end(self, lines: Lines, clock: FakeClock) -> None:
        for number in range(500):
            self.fail(1, reason=f"reason {number}")
        assert len(lines()) == 11
        self.say(everything=True)
        (line,) = lines()
        assert (line["reason"], line["repeated"]) == ("reason 499", 489)

    def test_counts_are_summed(self, lines: Lines, clock: FakeClock) -> None:
        for count in (5, 7, 9):
            log.get_logger("relay").error("delivery.expired", endpoint="crm", count=count, reason="older than max_age")
        self.say(everything=True)
        first, rest = lines()
        assert (first["count"], rest["count"], rest["repeated"]) == (5, 16, 2)

    def test_nothing_is_lost_when_the_process_ends(self, lines: Lines, clock: FakeClock) -> None:
        self.fail(3)
        self.say(everything=True)
        assert [line.get("repeated") for line in lines()] == [None, 2]

    def test_attempts_at_debug_are_all_written(self, lines: Lines) -> None:
        lines.configure("debug", "json")
        for _ in range(3):
            log.get_logger("relay").debug("delivery.attempted", endpoint="crm")
        assert len(lines()) == 3


class TestEcs:
    @pytest.fixture(autouse=True)
    def _ecs(self, lines: Lines) -> None:
        lines.configure("info", "ecs")

    def test_names_are_those_of_the_schema(self, lines: Lines) -> None:
        log.get_logger("relay").error(
            "delivery.dead", endpoint="crm", reason="answered 400", attempt=10, duration_s=0.0125, event_id="m1"
        )
        (line,) = lines()
        assert datetime.fromisoformat(line.pop("@timestamp")).tzinfo is not None
        assert line == {
            "log.level": "error",
            "message": "delivery.dead",
            "ecs.version": "8.11.0",
            "log.logger": "livechat_relay.relay",
            "service": {"name": "livechat-relay", "version": version("rocketchat-livechat-relay")},
            "event": {
                "action": "delivery.dead", "dataset": "livechat_relay.relay", "reason": "answered 400", "duration": 12_500_000,
            },
            "livechat_relay": {"endpoint": "crm", "attempt": 10, "event_id": "m1"},
        }  # fmt: skip

    def test_errors(self, lines: Lines) -> None:
        log.get_logger("capture").warning("capture.unreachable", problem="no primary")
        log.get_logger("app").error("relay.crashed", exc_info=OSError(28, "No space left on device"))
        try:
            broken("x")
        except ValueError:
            log.get_logger("app").exception("relay.attempt_broken")
        unreachable, crashed, defect = lines()
        assert unreachable["error"] == {"message": "no primary"}
        assert (crashed["error"]["type"], crashed["error"]["message"]) == ("OSError", "[Errno 28] No space left on device")
        assert defect["error"]["type"] == "ValueError"
        assert "message" not in defect["error"]
        assert defect["error"]["stack_trace"].endswith(" broken")

    def test_messages_of_libraries(self, lines: Lines) -> None:
        logging.getLogger("aiohttp.server").error("Error handling request")
        (line,) = lines()
        assert (line["message"], line["livechat_relay"]) == ("Error handling request", {"library": "aiohttp.server"})


class TestDocumentation:
    LEVELS = ("warning", "error", "exception", "critical")

    def said(self) -> set[tuple[str, str]]:
        """The warnings and errors in the source, with their level."""
        found = {("library.message", "warning")}  # its level is the library's
        for path in (ROOT / "daemon").rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if (
                    not isinstance(node, ast.Call)
                    or not isinstance(node.func, ast.Attribute)
                    or node.func.attr not in self.LEVELS
                ):
                    continue
                if "log" in ast.unparse(node.func.value):  # log, logger, log.get_logger("app")
                    event = ast.literal_eval(node.args[0])
                    found.add((event, node.func.attr.replace("exception", "error")))
        return found

    def test_every_warning_and_error_is_explained(self) -> None:
        text = (ROOT / "docs" / "logs.md").read_text(encoding="utf-8")
        rows = re.findall(r"^\| `([a-z_.]+)` \| (\w+) \| (.+) \| (.+) \|$", text, re.MULTILINE)
        assert len(rows) == text.count("\n| `")
        assert {(event, level) for event, level, *_ in rows} == self.said()
        assert [event for event, *_ in rows] == sorted(event for event, *_ in rows)

    def test_names_are_dotted_words(self) -> None:
        said = self.said()
        assert len(said) > 20
        assert [event for event, _ in said if not re.fullmatch(r"[a-z]+\.[a-z_]+", event)] == []
