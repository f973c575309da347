"""The configuration: one frozen section per stage, the text under each key is its description. Secrets never print.

Every key can be given as an environment variable: `mongodb.uri` is `LIVECHAT_RELAY_MONGODB__URI`.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    HttpUrl,
    PlainSerializer,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daemon.errors import ConfigurationError
from daemon.model import EventType, Profile

ENVIRONMENT_PREFIX = "LIVECHAT_RELAY_"
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_DURATION_S = 3650 * 86400.0
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = ("content-type", "content-length", "host", "transfer-encoding", "x-rocketchat-livechat-token")


def parse_duration(value: object) -> timedelta:
    """`500ms`, `2s`, `10m`, `6h` or `7d`. Raises `ValueError` for anything else."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)", str(value).strip())
    if match is None:
        raise ValueError("a duration is a number and a unit: 500ms, 2s, 10m, 6h or 7d")
    seconds = float(match[1]) * _UNITS[match[2]]
    if seconds > _LONGEST_DURATION_S or 0 < seconds < _UNITS["ms"]:
        raise ValueError("must be between 1ms and 3650d")
    return timedelta(milliseconds=round(seconds * 1000))


def format_duration(value: timedelta) -> str:
    """The text that gives `value` again, in the largest unit that divides it."""
    seconds = value.total_seconds()
    if not seconds:
        return "0s"
    for unit in ("d", "h", "m", "s"):
        if seconds % _UNITS[unit] == 0:
            return f"{int(seconds // _UNITS[unit])}{unit}"
    return f"{round(seconds * 1000)}ms"


Duration = Annotated[
    timedelta,
    BeforeValidator(parse_duration, json_schema_input_type=str),
    PlainSerializer(format_duration, return_type=str),
    Field(examples=["500ms", "2s", "10m", "6h", "7d"]),
]


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be more than 0")
    return value


PositiveDuration = Annotated[Duration, AfterValidator(_positive)]


class Section(BaseModel):
    """What all sections share: frozen, unknown keys refused, the text under each field is its description."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, validate_default=True)


class MongoSection(Section):
    """Where Rocket.Chat's MongoDB is. Read rights on the one database are enough."""

    uri: SecretStr = SecretStr("mongodb://127.0.0.1:27017/?replicaSet=rs0")
    """Connection string, as Rocket.Chat has it in MONGO_URL. MongoDB has to be a replica set."""
    uri_file: Path | None = None
    """A file that holds the connection string; used instead of `uri`, so that a password need not stand here."""
    database: str = Field(default="rocketchat", min_length=1)
    """Rocket.Chat's database: the path of its MONGO_URL."""

    def connection_string(self) -> str:
        """The connection string with its password. Raises `ConfigurationError` when its file cannot be read."""
        return _secret(self.uri_file, self.uri, "mongodb.uri_file")


def _start(value: object) -> object:
    if value == "now" or isinstance(value, datetime):
        return value
    try:
        return datetime.fromisoformat(str(value))
    except ValueError:
        raise ValueError("`now`, or a time such as 2026-11-23T08:00:00Z") from None


class CaptureSection(Section):
    """Reading the change stream."""

    start: Annotated[Literal["now"] | datetime, BeforeValidator(_start)] = "now"
    """Where the very first start begins: `now`, or a time such as 2026-11-23T08:00:00Z that the oplog still reaches."""
    on_lost_position: Literal["fail", "restart"] = "fail"
    """When the oplog no longer reaches back to where the relay stopped: `fail` (stop and say so) or `restart` (go on from now;
    what happened in between is not delivered)."""

    @field_validator("start")
    @classmethod
    def _aware(cls, value: datetime | str) -> datetime | str:
        return value.replace(tzinfo=UTC) if isinstance(value, datetime) and value.tzinfo is None else value


def _version(value: str) -> str:
    if value != "auto" and not re.fullmatch(r"\d{1,3}\.\d{1,3}(\.\d{1,4})?", value):
        raise ValueError("write `auto` or a version in quotes, such as '6.5'")
    if value != "auto" and int(value.split(".", maxsplit=1)[0]) < 6:
        raise ValueError("versions before 6.0 are not supported")
    return value


Defect = Literal["leads_without_match", "stale_taken", "arbitrary_agent"]


class ComposeSection(Section):
    """Turning changes into events and payloads."""

    site_url: HttpUrl | None = None
    """Address of Rocket.Chat for links to files. Empty: the setting Site_Url of Rocket.Chat."""
    settle: PositiveDuration = timedelta(seconds=2)
    """How long an event waits for the later change that completes it, such as a closed session for its closing message."""
    server_version: Annotated[str, AfterValidator(_version)] = "auto"
    """Rocket.Chat's version, such as 6.5: payloads differ a little between releases. `auto`: as Rocket.Chat itself notes it in
    MongoDB, else the newest known."""
    imitate: tuple[Defect, ...] = ()
    """Defects of Rocket.Chat to reproduce, for receivers that count on them: `leads_without_match` (a LeadCapture for every
    message of a visitor, as 6.2 to 7.x send), `stale_taken` (LivechatSessionTaken with the room as before, as 6.11 and 6.12
    send) and `arbitrary_agent` (some user as agent of a session that has none, as 6.2 to 6.5 send)."""


def _sqlite_path(url: str) -> str:
    if not url.startswith("sqlite:///") or len(url) == len("sqlite:///"):
        raise ValueError("write sqlite:///relative/path.db or sqlite:////absolute/path.db (sqlite:/// and then the path)")
    if not Path(url.removeprefix("sqlite:///")).name:
        raise ValueError("must name a file, not a folder")
    return url


class OutboxSection(Section):
    """What is owed, and its record: one SQLite file."""

    url: Annotated[str, AfterValidator(_sqlite_path)] = "sqlite:////var/lib/livechat-relay/outbox.db"
    """Where it is: sqlite:/// and then the path (four slashes for an absolute one). One relay per file."""
    keep_delivered: PositiveDuration = timedelta(days=7)
    """How long payload and attempts of a delivered event are kept."""
    keep_dead: PositiveDuration = timedelta(days=90)
    """How long payload and attempts of an event that could not be delivered are kept."""
    keep_ids: PositiveDuration = timedelta(days=90)
    """How long the id of an event is remembered, so that it is not delivered twice when changes are read again."""
    keep_state: PositiveDuration = timedelta(days=90)
    """How long the folded state of a room, visitor or agent is kept after its last change."""

    max_size: ByteSize = ByteSize(10_000_000_000)
    """How large the file may grow. From four fifths on payloads of delivered events go before their time. When it is full reading
    pauses, and the relay is not ready, until deliveries make room; MongoDB's oplog must still reach back when it goes on."""

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return Path(self.url.removeprefix("sqlite:///"))

    @model_validator(mode="after")
    def _ids_outlive_bodies(self) -> OutboxSection:
        if self.keep_ids < self.keep_delivered or self.keep_ids < self.keep_dead:
            raise ValueError("keep_ids must be at least as long as keep_delivered and keep_dead")
        return self


class RelaySection(Section):
    """Order and concurrency of deliveries."""

    grace: PositiveDuration = timedelta(seconds=20)
    """How long requests in flight may finish when the relay is told to stop. The rest is sent after the next start."""


class RetrySection(Section):
    """When a try fails."""

    tries: int = Field(default=10, ge=1, le=1000)
    """How many tries an event gets before it is kept as a dead letter."""
    wait: PositiveDuration | Annotated[tuple[PositiveDuration, ...], Field(min_length=1)] = timedelta(seconds=10)
    """The wait between two tries: one for all, or a list, of which the last one is repeated."""
    jitter: float = Field(default=0.0, ge=0.0, le=1.0)
    """How much of a wait may be added at random, as a share of it."""
    final: tuple[Annotated[int, Field(ge=300, le=599)], ...] = ()
    """Statuses that no further try follows, for receivers that answer so on purpose: 400, 410, 422."""
    honour_retry_after: bool = False
    """Wait at least as long as an answer's Retry-After says, an hour at most."""
    max_age: PositiveDuration = timedelta(days=3)
    """How long an event is tried at all, counted from when the relay read it."""
    outage_probe: Duration = timedelta(seconds=30)
    """How often an endpoint that is down is tried. When an event has used up its tries by errors, time-outs or 5xx, and the
    endpoint took nothing else meanwhile, the endpoint is down: its events wait, in their order and without losing tries,
    until it is back. 0s switches that off: such an event is dead."""

    @property
    def waits(self) -> tuple[timedelta, ...]:
        """The waits after the first, second, ... failed try; the last one is repeated."""
        return self.wait if isinstance(self.wait, tuple) else (self.wait,)


class EndpointSection(Section):
    """A receiver. Its name is its identity: a renamed endpoint is a new one."""

    url: HttpUrl = Field(repr=False)
    """Where events are posted to."""
    secret_token: SecretStr | None = None
    """Sent as X-RocketChat-Livechat-Token, as Rocket.Chat does with its secret token."""
    secret_token_file: Path | None = None
    """A file that holds the token; used instead of `secret_token`."""
    events: tuple[EventType, ...] = tuple(EventType)
    """The event types this endpoint gets; all of them by default. Decided once, when the event happens."""
    departments: tuple[str, ...] = ()
    """Only sessions of these departments, by id or name; a forward matches by either side. Empty: all, also without
    department.
    """
    tags: tuple[str, ...] = ()
    """Only sessions that have one of these tags when the event happens. Empty: all."""
    sources: tuple[str, ...] = ()
    """Only sessions from these sources: widget, email, sms, app, api, other. Empty: all."""
    profile: Profile = Profile.GUIDE
    """Shape of the payloads: `guide` (as the public guide documents them) or `native` (as current servers send them)."""
    crm_data: Literal["off", "text", "object"] = "off"
    """What becomes of the body of a 200: with `text` it comes back as `crmData` in later payloads of the session, as Rocket.Chat
    does from 6.2 on; with `object` only the member `data` of a JSON answer, as before 6.2."""
    timeout: PositiveDuration = timedelta(seconds=20)
    """How long one try may take, from connecting to the end of the answer."""
    concurrency: int = Field(default=32, ge=1, le=1000)
    """How many sessions may have a request in flight at once; within a session there is always one at a time."""
    success: Annotated[Literal["200", "2xx"], BeforeValidator(str, json_schema_input_type=Literal["200", "2xx", 200])] = "200"
    """Which answers are a success: only `200`, as for Rocket.Chat, or any of `2xx`."""
    retry: RetrySection = RetrySection()
    """When a try fails: any answer but 200, a time-out, a connection error. Redirects are not followed."""
    headers: dict[str, SecretStr] = {}
    """More request headers, for example `Authorization`. Values are treated as secrets."""

    @field_validator("events")
    @classmethod
    def _some_events(cls, value: tuple[EventType, ...]) -> tuple[EventType, ...]:
        if not value:
            raise ValueError("name at least one event type, or leave the key out to get all")
        return tuple(dict.fromkeys(value))

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS or name.lower().startswith("x-livechat-relay-"):
                raise ValueError(f"{name!r} is not a header name that can be set here")
            if not _header_safe(secret.get_secret_value()):
                raise ValueError(f"the value of {name!r} has characters that a header cannot carry")
        return value

    @field_validator("secret_token")
    @classmethod
    def _token_sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not _header_safe(value.get_secret_value()):
            raise ValueError("has characters that a header cannot carry")
        return value

    @model_validator(mode="after")
    def _one_authorization(self) -> EndpointSection:
        if self.url.username is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("give user and password in the url or a header Authorization, not both")
        return self

    @model_validator(mode="after")
    def _one_token(self) -> EndpointSection:
        if self.secret_token is not None and self.secret_token_file is not None:
            raise ValueError("give secret_token or secret_token_file, not both")
        return self

    def token(self, name: str) -> str:
        """The token of endpoint `name`, empty when none is set. Raises `ConfigurationError` when its file cannot be read."""
        token = _secret(self.secret_token_file, self.secret_token or SecretStr(""), f"endpoints.{name}.secret_token_file")
        if not _header_safe(token):
            raise ConfigurationError(
                f"endpoints.{name}.secret_token_file: the token has characters that a header cannot carry",
                hint="put the token alone into the file, on one line",
            )
        return token


def _listen(value: str) -> str:
    host, colon, port = value.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 <= int(port) <= 65535:
        raise ValueError("write address:port, for example 127.0.0.1:8940 or [::1]:8940")
    return value


class IntakeSection(Section):
    """Offline messages by Rocket.Chat's own webhook, at POST /intake/offline on serve.listen."""

    enabled: bool = False
    """Take them. In Rocket.Chat set the webhook URL to http://127.0.0.1:8940/intake/offline and switch on only the event for
    offline messages."""
    secret_token: SecretStr | None = None
    """The same as Rocket.Chat's secret token; needed."""
    secret_token_file: Path | None = None
    """A file that holds the token; used instead of `secret_token`."""

    @model_validator(mode="after")
    def _needs_token(self) -> IntakeSection:
        if self.secret_token is not None and self.secret_token_file is not None:
            raise ValueError("give secret_token or secret_token_file, not both")
        if self.enabled and not self.secret_token and self.secret_token_file is None:
            raise ValueError("needs secret_token or secret_token_file, the same as Rocket.Chat's secret token")
        return self

    def token(self) -> str:
        """The token. Raises `ConfigurationError` when its file cannot be read."""
        return _secret(self.secret_token_file, self.secret_token or SecretStr(""), "intake.secret_token_file")


class ServeSection(Section):
    """The operator's window: /livez, /readyz, /metrics."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8940"
    """Address and port. Keep it on loopback: it has no password."""

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class LogSection(Section):
    """Logs, on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written. At `info` no message text and no data of a visitor appear."""
    format: Literal["json", "console"] = "json"
    """`json`: one object a line; `console`: for people."""


class Config(BaseSettings):
    """The whole configuration."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        validate_default=True,
        env_prefix=ENVIRONMENT_PREFIX,
        env_nested_delimiter="__",
    )

    mongodb: MongoSection = MongoSection()
    """Where Rocket.Chat's MongoDB is. Read rights on the one database are enough."""
    capture: CaptureSection = CaptureSection()
    """Reading the change stream."""
    compose: ComposeSection = ComposeSection()
    """Turning changes into events and payloads."""
    outbox: OutboxSection = OutboxSection()
    """What is owed, and its record: one SQLite file."""
    relay: RelaySection = RelaySection()
    """Order and concurrency of deliveries."""
    endpoints: dict[str, EndpointSection] = Field(min_length=1)
    """The receivers, by name. The name is the identity: a renamed endpoint is a new one."""
    intake: IntakeSection = IntakeSection()
    """Offline messages by Rocket.Chat's own webhook, at POST /intake/offline on serve.listen."""
    serve: ServeSection = ServeSection()
    """The operator's window: /livez, /readyz, /metrics."""
    log: LogSection = LogSection()
    """Logs, on standard output."""

    endpoint_name: ClassVar[re.Pattern[str]] = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")

    @field_validator("endpoints")
    @classmethod
    def _names(cls, value: dict[str, EndpointSection]) -> dict[str, EndpointSection]:
        for name in value:
            if not cls.endpoint_name.fullmatch(name):
                raise ValueError(f"{name!r} cannot be a name: use up to 63 of a-z, 0-9, - and _")
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the signature is the library's
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used: one file is enough
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - not used: secrets have keys of their own
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment goes before the file."""
        return env_settings, init_settings


def _secret(file: Path | None, value: SecretStr, path: str) -> str:
    if file is None:
        return value.get_secret_value()
    try:
        secret = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot read {file}: {error}", hint="check the path and that the relay's user may read the file"
        ) from error
    if not secret:
        raise ConfigurationError(f"{path}: {file} is empty", hint="put the secret into the file, or leave the key out")
    return secret


def _header_safe(value: str) -> bool:
    return value.isprintable() and value.isascii()


def redact_url(url: str) -> str:
    """`url` without user, password and query, for logs and errors; whatever it is, since what is wrong with a URL is told too."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = rest.rpartition("@")[2]
    return f"{scheme}{mark}{rest.partition('?')[0].partition('#')[0]}"
