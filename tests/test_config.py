"""The configuration: what is accepted, every fault at once with its place and remedy, and no secret in sight."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter

from daemon.config.example import example
from daemon.config.file import load
from daemon.config.root import Config
from daemon.config.types import Duration, format_duration, redact_url
from daemon.errors import ConfigurationError
from daemon.model import EventType, Profile

ROOT = Path(__file__).parents[1]
CRM = "endpoints:\n  crm:\n    url: https://crm.example.org/hook\n"
Load = Callable[[str], Config]
Faults = Callable[[str], str]

EVENTS = " or ".join(", ".join(f"'{event}'" for event in EventType).rsplit(", ", 1))
NO_INTEGER = "Input should be a valid integer, unable to parse string as an integer"


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("LIVECHAT_RELAY_"):
            monkeypatch.delenv(name)


@pytest.fixture
def read(tmp_path: Path) -> Load:
    def load_text(text: str) -> Config:
        path = tmp_path / "config.yaml"
        path.write_bytes(text.encode("utf-8", "surrogatepass"))
        return load(path)

    return load_text


@pytest.fixture
def faults(read: Load, tmp_path: Path) -> Faults:
    """What is said about a text, with its hint; lines start after the path."""

    def said(text: str) -> str:
        with pytest.raises(ConfigurationError) as error:
            read(text)
        assert error.value.hint
        assert str(tmp_path) in str(error.value)
        return str(error.value).replace(str(tmp_path), "")

    return said


def endpoint(lines: str) -> str:
    return CRM + "".join(f"    {line}\n" for line in lines.splitlines())


class TestDefaults:
    def test_an_endpoint_is_enough(self, read: Load) -> None:
        config = read(CRM)
        crm = config.endpoints["crm"]
        assert str(crm.url) == "https://crm.example.org/hook"
        assert crm.events == tuple(EventType)
        assert crm.profile is Profile.GUIDE
        assert (crm.retry.tries, crm.retry.wait) == (10, timedelta(seconds=10))
        assert (crm.timeout, crm.concurrency, crm.token("crm")) == (timedelta(seconds=20), 32, "")
        assert config.capture.start == "now"
        assert config.capture.on_lost_position == "fail"
        assert config.serve.address == ("127.0.0.1", 8940)
        assert config.outbox.path == Path("/var/lib/livechat-relay/outbox.db")
        assert config.outbox.keep_delivered == timedelta(days=7)

    def test_it_cannot_be_changed_afterwards(self, read: Load) -> None:
        config = read(CRM)
        for section in (config, config.mongodb, config.endpoints["crm"]):
            with pytest.raises(ValueError, match="frozen"):
                section.level = "x"  # type: ignore[union-attr]

    def test_the_example_is_the_file_of_the_repository_and_can_be_read(self) -> None:
        assert (ROOT / "config.yaml").read_text(encoding="utf-8") == example()
        config = load(ROOT / "config.yaml")
        expected = Config(endpoints={"crm": {"url": "https://crm.example.org/rocketchat", "secret_token": "change-me"}})
        assert config == expected

    def test_the_example_describes_every_key(self) -> None:
        lines = example().splitlines()
        for before, line in pairwise(lines):
            key = line.strip().partition(":")[0]
            if line.strip() and not line.lstrip().startswith("#") and key != "crm":
                assert before.lstrip().startswith("#"), line


class TestValues:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("now", "now"),
            ("2026-11-23T08:00:00Z", datetime(2026, 11, 23, 8, tzinfo=UTC)),
            ("'2026-11-23T08:00:00Z'", datetime(2026, 11, 23, 8, tzinfo=UTC)),
            ("2026-11-23T10:00:00+02:00", datetime(2026, 11, 23, 8, tzinfo=UTC)),
            ("2026-11-23 08:00:00", datetime(2026, 11, 23, 8, tzinfo=UTC)),
            ("2026-11-23", datetime(2026, 11, 23, tzinfo=UTC)),
        ],
    )
    def test_start(self, read: Load, text: str, expected: object) -> None:
        start = read(f"{CRM}capture: {{start: {text}}}\n").capture.start
        assert start == expected
        assert not isinstance(start, datetime) or start.tzinfo is not None

    @pytest.mark.parametrize(
        ("text", "address"),
        [
            ("127.0.0.1:8940", ("127.0.0.1", 8940)),
            ("'[::1]:80'", ("::1", 80)),
            ("0.0.0.0:0", ("0.0.0.0", 0)),  # noqa: S104 - a test of texts
            ("localhost:65535", ("localhost", 65535)),
        ],
    )
    def test_listen(self, read: Load, text: str, address: tuple[str, int]) -> None:
        assert read(f"{CRM}serve: {{listen: {text}}}\n").serve.address == address

    @pytest.mark.parametrize(
        ("url", "path"),
        [
            ("sqlite:////var/outbox.db", "/var/outbox.db"),
            ("sqlite:///outbox.db", "outbox.db"),
            ("sqlite:///a/b c.db", "a/b c.db"),
        ],
    )
    def test_outbox(self, read: Load, url: str, path: str) -> None:
        assert read(f"{CRM}outbox: {{url: '{url}'}}\n").outbox.path == Path(path)

    def test_events_are_named_once(self, read: Load) -> None:
        config = read(endpoint("events: [Message, LivechatSession, Message]"))
        assert config.endpoints["crm"].events == (EventType.MESSAGE, EventType.SESSION)


class TestDurations:
    ADAPTER: TypeAdapter[timedelta] = TypeAdapter(Duration)

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("500ms", timedelta(milliseconds=500)),
            ("2s", timedelta(seconds=2)),
            ("1.5s", timedelta(seconds=1.5)),
            ("10m", timedelta(minutes=10)),
            ("6h", timedelta(hours=6)),
            ("7d", timedelta(days=7)),
            (" 7d ", timedelta(days=7)),
        ],
    )
    def test_texts(self, text: str, expected: timedelta) -> None:
        assert self.ADAPTER.validate_python(text) == expected

    @pytest.mark.parametrize("text", ["", "2", 2, "2 s", "s", "-2s", "2w", "1h30m", "1e3s", "two s", None, [], "2S"])
    def test_no_durations(self, text: object) -> None:
        with pytest.raises(ValueError, match="a duration is a number and a unit"):
            self.ADAPTER.validate_python(text)

    @given(st.integers(0, 3650 * 86_400_000).map(lambda milliseconds: timedelta(milliseconds=milliseconds)))
    def test_round_trip(self, value: timedelta) -> None:
        assert self.ADAPTER.validate_python(format_duration(value)) == value
        assert self.ADAPTER.validate_json(self.ADAPTER.dump_json(value)) == value

    @pytest.mark.parametrize(
        ("value", "text"),
        [
            (timedelta(0), "0s"),
            (timedelta(milliseconds=1), "1ms"),
            (timedelta(seconds=90), "90s"),
            (timedelta(minutes=90), "90m"),
            (timedelta(hours=36), "36h"),
            (timedelta(days=90), "90d"),
        ],
    )
    def test_the_largest_unit_that_divides_it(self, value: timedelta, text: str) -> None:
        assert format_duration(value) == text

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("0s", timedelta(0)),
            ("1ms", timedelta(milliseconds=1)),
            ("0.001s", timedelta(milliseconds=1)),
            ("3650d", timedelta(3650)),
        ],
        ids=["nothing", "shortest", "shortest in seconds", "longest"],
    )
    def test_just_within(self, text: str, expected: timedelta) -> None:
        assert self.ADAPTER.validate_python(text) == expected

    @pytest.mark.parametrize(
        "text",
        ["0.9ms", "0.0005s", "3650.1d", "87601h", "99999999999d", "1" * 400 + "d"],
        ids=["too short", "too short in seconds", "too long", "too long in hours", "ten digits too many", "infinite"],
    )
    def test_too_short_and_too_long(self, text: str) -> None:
        with pytest.raises(ValueError, match="must be between 1ms and 3650d"):
            self.ADAPTER.validate_python(text)

    def test_a_wait_that_no_date_can_hold(self, faults: Faults) -> None:
        said = "endpoints.crm.retry.wait (line 4): must be between 1ms and 3650d"
        assert said in faults(endpoint("retry: {wait: 99999999d}"))

    def test_a_fraction_of_a_millisecond_comes_back(self) -> None:
        value = self.ADAPTER.validate_python("1.4ms")
        assert self.ADAPTER.validate_python(format_duration(value)) == value


class TestFaults:
    def test_all_at_once_with_key_line_and_remedy(self, faults: Faults) -> None:
        text = """\
mongo: {}
mongodb:
  database: ''
compose: {settle: 0s}
endpoints:
  crm:
    ulr: https://crm.example.org
    retry: {trys: 1, wait: 10}
    events: [Massage]
    concurrency: many
  archive:
    url: ftp://archive.example.org
    timeout: 0s
serve:
  listen: x
log: {level: loud, colour: true}
"""
        expected = {
            "mongo (line 1): unknown key; did you mean `mongodb`?",
            "mongodb.database (line 3): String should have at least 1 character",
            "compose.settle (line 4): must be more than 0",
            "endpoints.crm.url (line 6): is missing; add it",
            "endpoints.crm.ulr (line 7): unknown key; did you mean `url`?",
            "endpoints.crm.retry.trys (line 8): unknown key; did you mean `tries`?",
            "endpoints.crm.retry.wait (line 8): a duration is a number and a unit: 500ms, 2s, 10m, 6h or 7d",
            f"endpoints.crm.events.0 (line 9): Input should be {EVENTS} (now: Massage)",
            f"endpoints.crm.concurrency (line 10): {NO_INTEGER} (now: many)",
            "endpoints.archive.url (line 12): URL scheme should be 'http' or 'https' (now: ftp://archive.example.org)",
            "endpoints.archive.timeout (line 13): must be more than 0",
            "serve.listen (line 15): write address:port, for example 127.0.0.1:8940 or [::1]:8940",
            "log.level (line 16): Input should be 'debug', 'info', 'warning' or 'error' (now: loud)",
            "log.colour (line 16): unknown key; known here: format, level",
        }
        first, *lines = faults(text).splitlines()
        assert first == f"/config.yaml: {len(expected)} faults"
        assert {line.removeprefix("  ") for line in lines} == expected

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            pytest.param("", "endpoints: is missing; add it", id="empty file"),
            pytest.param("# nothing\n", "endpoints: is missing; add it", id="comments only"),
            pytest.param("endpoints: {}\n", "endpoints (line 1): must hold at least one", id="no endpoint"),
            pytest.param("- a\n- b\n", "must hold keys and values", id="a list"),
            pytest.param("just text\n", "must hold keys and values", id="a text"),
            pytest.param("a: b: c\n", "is not valid YAML", id="bad YAML"),
            pytest.param("a: [1\n", "is not valid YAML", id="open bracket"),
            pytest.param("\tlog: {}\n", "is not valid YAML", id="tab"),
            pytest.param(CRM + "log: {}\nlog: {}\n", "duplicate key", id="duplicate key"),
            pytest.param(endpoint("timeout: 1s\ntimeout: 2s"), "duplicate key", id="duplicate key in a section"),
            pytest.param(CRM + "log: 3\n", "log (line 4): ", id="a number for a section"),
            pytest.param(CRM + "log:\n", "log (line 4): ", id="an empty section"),
            pytest.param("endpoints: {crm: null}\n", "endpoints.crm (line 1): ", id="an empty endpoint"),
            pytest.param("endpoints: {'C R M': {url: 'https://x'}}\n", "'C R M' cannot be a name", id="endpoint name"),
            pytest.param(endpoint("retry: {tries: 0}"), "endpoints.crm.retry.tries (line 4): ", id="no tries"),
            pytest.param(endpoint("retry: {tries: 1001}"), "endpoints.crm.retry.tries (line 4): ", id="too many tries"),
            pytest.param(endpoint("concurrency: 0"), "endpoints.crm.concurrency (line 4): ", id="no concurrency"),
            pytest.param(endpoint("events: []"), "name at least one event type", id="no events"),
            pytest.param(endpoint("headers: {'X Y': z}"), "'X Y' is not a header name", id="header name"),
            pytest.param(endpoint("headers: {Host: z}"), "'Host' is not a header name", id="a header of ours"),
            pytest.param(endpoint("headers: {x-livechat-relay-attempt: z}"), "is not a header name", id="a header of ours again"),
            pytest.param(endpoint('headers: {X: "a\\r\\nb"}'), "'X' has characters", id="header value"),
            pytest.param(endpoint('secret_token: "a\\nb"'), "has characters that a header cannot carry", id="token value"),
            pytest.param(endpoint("secret_token: a\nsecret_token_file: b"), "not both", id="two tokens"),
            pytest.param(endpoint("secret_token: 12345"), "endpoints.crm.secret_token (line 4): ", id="token without quotes"),
            pytest.param(endpoint("profile: rocket"), "'guide' or 'native' (now: rocket)", id="profile"),
            pytest.param(CRM + "capture: {start: yesterday}\n", "`now`, or a time such as", id="start"),
            pytest.param(CRM + "capture: {on_lost_position: ignore}\n", "(now: ignore)", id="lost position"),
            pytest.param(CRM + "outbox: {url: /var/outbox.db}\n", "write sqlite:///", id="outbox without scheme"),
            pytest.param(CRM + "outbox: {url: 'sqlite:///'}\n", "write sqlite:///", id="outbox without path"),
            pytest.param(CRM + "outbox: {keep_ids: 1d}\n", "keep_ids must be at least as long as", id="ids outlive bodies"),
            pytest.param(CRM + "serve: {listen: 'host:65536'}\n", "write address:port", id="port"),
            pytest.param(CRM + "serve: {listen: ':8940'}\n", "write address:port", id="no address"),
            pytest.param(
                CRM + "8940: x\n",
                "8940",
                id="a number as key",
            ),
            pytest.param(
                CRM + "datetime_format: x\n",
                "datetime_format (line 4): unknown key",
                id="unknown key that begins with datetime",
            ),
            pytest.param(
                "endpoints: {crm: {url: 'http://[bad'}}\n",
                "endpoints.crm.url (line 1): ",
                id="half an IPv6 address",
            ),
            pytest.param(
                CRM + "capture: {start: 2026-13-45T00:00:00Z}\n",
                "is not valid YAML: a value is not of the type",
                id="no such date",
            ),
            pytest.param(
                CRM + "log: {level: !!int x}\n",
                "is not valid YAML: a value is not of the type",
                id="no such number",
            ),
            pytest.param(
                CRM + "compose: {settle: 99999999999d}\n",
                "compose.settle (line 4): ",
                id="longer than time",
            ),
            pytest.param(
                CRM + "outbox: {url: 'sqlite:////'}\n",
                "outbox.url (line 4): must name a file, not a folder",
                id="outbox is the root folder",
            ),
            pytest.param(
                CRM + "outbox: {url: 'sqlite:///.'}\n",
                "outbox.url (line 4): must name a file, not a folder",
                id="outbox is this folder",
            ),
            pytest.param(
                "endpoints: {crm: {url: 'https://user:pass@host/', headers: {Authorization: x}}}\n",
                "Authorization",
                id="authorized twice",
            ),
        ],
    )
    def test_one(self, faults: Faults, text: str, said: str) -> None:
        assert said in faults(text)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError) as error:
            load(tmp_path / "nowhere.yaml")
        assert "nowhere.yaml" in str(error.value)
        assert "livechat-relay config example" in error.value.hint

    def test_not_utf_8(self, tmp_path: Path) -> None:
        path = tmp_path / "config.yaml"
        path.write_bytes(b"log: {level: \xff\xfe}\n")
        with pytest.raises(ConfigurationError, match="cannot read the configuration"):
            load(path)

    @settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        section=st.sampled_from(["mongodb", "capture", "compose", "outbox", "relay", "serve", "log", "unknown"]),
        key=st.sampled_from(["uri", "start", "settle", "url", "grace", "listen", "level", "unknown"]),
        value=st.one_of(
            st.integers(-10, 10**6),
            st.booleans(),
            st.floats(),
            st.text("abc:/.0129-dsm@", max_size=12).map(repr),
            st.sampled_from(["{}", "[]", "null", "[[1]]", "{a: b}", "~", "2s", "now"]),
        ),
    )
    def test_anything_else_is_accepted_or_a_configuration_error(self, read: Load, section: str, key: str, value: object) -> None:
        with suppress(ConfigurationError):
            read(f"{CRM}{section}: {{{key}: {value}}}\n")


class TestEnvironment:
    @pytest.fixture
    def set_environment(self, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
        def set_them(**variables: str) -> None:
            for name, value in variables.items():
                monkeypatch.setenv(f"LIVECHAT_RELAY_{name}", value)

        return set_them

    def test_it_goes_before_the_file(self, read: Load, set_environment: Callable[..., None]) -> None:
        set_environment(MONGODB__URI="mongodb://elsewhere/", LOG__LEVEL="debug", OUTBOX__KEEP_DELIVERED="1d")
        config = read(f"{CRM}mongodb: {{uri: 'mongodb://here/', database: meteor}}\nlog: {{level: error, format: console}}\n")
        assert config.mongodb.connection_string() == "mongodb://elsewhere/"
        assert (config.mongodb.database, config.log.level, config.log.format) == ("meteor", "debug", "console")
        assert config.outbox.keep_delivered == timedelta(days=1)

    @pytest.mark.parametrize("token", ["hunter2", "12345", "null", "true", '{"a": 1}', "[1]", ""])
    def test_a_token_is_taken_as_it_is(self, read: Load, set_environment: Callable[..., None], token: str) -> None:
        set_environment(ENDPOINTS__CRM__SECRET_TOKEN=token)
        assert read(CRM).endpoints["crm"].token("crm") == token

    def test_within_an_endpoint(self, read: Load, set_environment: Callable[..., None]) -> None:
        set_environment(
            ENDPOINTS__CRM__EVENTS='["Message", "LivechatSession"]',
            ENDPOINTS__CRM__RETRY__TRIES="3",
            ENDPOINTS__CRM__TIMEOUT="500ms",
            ENDPOINTS__CRM__HEADERS='{"X-Tenant": "seven"}',
        )
        crm = read(CRM).endpoints["crm"]
        assert crm.events == (EventType.MESSAGE, EventType.SESSION)
        assert (crm.retry.tries, crm.timeout) == (3, timedelta(milliseconds=500))
        assert crm.headers["X-Tenant"].get_secret_value() == "seven"
        assert str(crm.url) == "https://crm.example.org/hook"

    def test_one_wait(self, read: Load, set_environment: Callable[..., None]) -> None:
        set_environment(ENDPOINTS__CRM__RETRY__WAIT="5s")
        assert read(CRM).endpoints["crm"].retry.wait == timedelta(seconds=5)

    def test_a_whole_endpoint(self, read: Load, set_environment: Callable[..., None]) -> None:
        set_environment(ENDPOINTS__ARCHIVE__URL="https://archive.example.org/")
        assert set(read(CRM).endpoints) == {"crm", "archive"}
        assert set(read("").endpoints) == {"archive"}

    @pytest.mark.parametrize(
        ("name", "said"),
        [
            ("MONGODB__URL", "mongodb.url (environment variable LIVECHAT_RELAY_MONGODB__URL): unknown key; did you mean `uri`?"),
            ("ENDPOINTS__CRM__URLL", "unknown key; did you mean `url`?"),
            ("ENDPOINTS__CRM__RETRY__WAITING", "unknown key; did you mean `wait`?"),
        ],
    )
    def test_an_unknown_variable_of_a_known_section_is_refused(
        self, faults: Faults, set_environment: Callable[..., None], name: str, said: str
    ) -> None:
        set_environment(**{name: "x"})
        assert said in faults(CRM)

    def test_others_are_not_ours(self, read: Load, set_environment: Callable[..., None]) -> None:
        set_environment(TEST_MONGODB_URI="mongodb://x/")
        read(CRM)

    def test_a_wrong_value_is_named(self, faults: Faults, set_environment: Callable[..., None]) -> None:
        set_environment(LOG__LEVEL="loud")
        said = faults(CRM)
        assert "log.level (environment variable LIVECHAT_RELAY_LOG__LEVEL): Input should be 'debug'" in said
        assert "(now: loud)" in said

    def test_a_wrong_value_is_not_looked_for_in_the_file(self, faults: Faults, set_environment: Callable[..., None]) -> None:
        set_environment(LOG__LEVEL="loud")
        assert "(line " not in faults(f"{CRM}log:\n  level: info\n")

    def test_what_is_no_json_is_a_configuration_error(self, read: Load, set_environment: Callable[..., None]) -> None:
        set_environment(ENDPOINTS__CRM__EVENTS="Message")
        with pytest.raises(ConfigurationError) as error:
            read(CRM)
        assert "JSON" in error.value.hint


SECRET = "hunter2"
WITH_SECRETS = f"""\
mongodb:
  uri: mongodb://user:{SECRET}@127.0.0.1/
endpoints:
  crm:
    url: https://crm.example.org/hook
    secret_token: {SECRET}
    headers: {{Authorization: Bearer {SECRET}}}
"""


class TestSecrets:
    @pytest.mark.parametrize(
        "show",
        [repr, str, Config.model_dump_json, lambda config: str(config.model_dump())],
        ids=["repr", "str", "model_dump_json", "model_dump"],
    )
    def test_they_do_not_print(self, read: Load, show: Callable[[Config], str]) -> None:
        config = read(WITH_SECRETS)
        assert SECRET not in show(config)
        assert config.endpoints["crm"].token("crm") == SECRET

    def test_nor_do_those_of_a_url(self, read: Load) -> None:
        config = read(f"endpoints: {{crm: {{url: 'https://user:{SECRET}@crm.example.org/?key={SECRET}'}}}}\n")
        assert SECRET not in repr(config)

    @pytest.mark.parametrize(
        "text",
        [
            pytest.param(WITH_SECRETS + "log: {level: loud}\n", id="a fault elsewhere"),
            pytest.param(WITH_SECRETS + "    secret_tokn: hunter2\n", id="misspelled"),
            pytest.param(endpoint(f"secret_token: [{SECRET}]"), id="a list"),
            pytest.param(endpoint(f"secret_token: {SECRET}é"), id="letters of no header"),
            pytest.param(endpoint(f"headers: {{X: {SECRET}é}}"), id="letters of no header, in a header"),
            pytest.param(endpoint(f"headers: {{X: [{SECRET}]}}"), id="a list in a header"),
            pytest.param(endpoint(f"headers: {SECRET}"), id="no headers"),
            pytest.param(endpoint(f"secret_token: {SECRET}\nsecret_token_file: x"), id="two tokens"),
            pytest.param(CRM + f"mongodb: {{uri: [{SECRET}]}}\n", id="connection string in a list"),
            pytest.param(f"endpoints: {{crm: {{url: 'ftp://user:{SECRET}@host/?key={SECRET}'}}}}\n", id="URL of another scheme"),
            pytest.param(endpoint(f"secret_token: {SECRET}: x"), id="bad YAML"),
            pytest.param(endpoint(f"secret_token: '{SECRET}\n"), id="open quote"),
            pytest.param(endpoint(f"secret_token: {SECRET}\nsecret_token: {SECRET}3"), id="given twice"),
            pytest.param(f"endpoints: {{crm: {{url: 'user:{SECRET}@host/'}}}}\n", id="URL without scheme"),
            pytest.param(f"endpoints: {{crm: {{url: 'https://user:{SECRET}#x@h/'}}}}\n", id="password with #"),
            pytest.param(f"endpoints: {{crm: {{url: 'https://user:{SECRET}/x@h/'}}}}\n", id="password with /"),
        ],
    )
    def test_no_message_quotes_them(self, faults: Faults, text: str) -> None:
        assert SECRET not in faults(text)

    def test_files(self, read: Load, tmp_path: Path) -> None:
        (tmp_path / "token").write_text(f"  {SECRET}\n")
        (tmp_path / "uri").write_text(f"mongodb://user:{SECRET}@host/\n")
        text = endpoint(f"secret_token_file: {tmp_path}/token") + f"mongodb: {{uri_file: {tmp_path}/uri}}\n"
        config = read(text)
        assert config.endpoints["crm"].token("crm") == SECRET
        assert config.mongodb.connection_string() == f"mongodb://user:{SECRET}@host/"
        assert SECRET not in repr(config)

    def test_files_that_cannot_be_read_are_all_named(self, faults: Faults, tmp_path: Path) -> None:
        (tmp_path / "binary").write_bytes(b"\xff\xfe")
        (tmp_path / "lines").write_text(f"{SECRET}\n{SECRET}\n")
        said = faults(
            f"mongodb: {{uri_file: {tmp_path}/nowhere}}\n"
            "endpoints:\n"
            f"  a: {{url: 'https://a', secret_token_file: {tmp_path}/binary}}\n"
            f"  b: {{url: 'https://b', secret_token_file: {tmp_path}/lines}}\n"
            f"  c: {{url: 'https://c', secret_token_file: {tmp_path}}}\n"
        )
        assert "4 faults" in said
        for key in ("mongodb.uri_file", *(f"endpoints.{name}.secret_token_file" for name in "abc")):
            assert f"  {key}: " in said
        assert SECRET not in said

    def test_an_empty_file_is_a_fault(self, faults: Faults, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("\n")
        assert "endpoints.crm.secret_token_file" in faults(endpoint(f"secret_token_file: {tmp_path}/token"))

    def test_the_environment_does_not_print_them_either(self, read: Load, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("LIVECHAT_RELAY_ENDPOINTS__CRM__HEADERS", f'{{"X": "{SECRET}"')
        with pytest.raises(ConfigurationError) as error:
            read(CRM)
        assert SECRET not in str(error.value)
        assert SECRET not in "".join(traceback.format_exception_only(error.value))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://crm.example.org/hook", "https://crm.example.org/hook"),
        ("https://user:hunter2@crm.example.org:8443/hook?key=hunter2#hunter2", "https://crm.example.org:8443/hook"),
        ("https://user:hunter2@x@crm.example.org/", "https://crm.example.org/"),
        ("https://hunter2@[::1]:80/", "https://[::1]:80/"),
        ("https://crm.example.org", "https://crm.example.org"),
    ],
)
def test_redacted_urls(url: str, shown: str) -> None:
    assert redact_url(url) == shown
