"""The whole configuration and its sections."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    HttpUrl,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from daemon.config.endpoint import EndpointSection
from daemon.config.send import SendSection
from daemon.config.types import PositiveDuration, Section, read_secret
from daemon.errors import ConfigurationError

ENVIRONMENT_PREFIX = "LIVECHAT_RELAY_"
_SHORTEST_TOKEN = 16


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
        return read_secret(self.uri_file, self.uri, "mongodb.uri_file")


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
    on_lost_position: Literal["fail", "heal", "restart"] = "fail"
    """When the oplog no longer reaches back to where the relay stopped: `fail` (stop and say so), `heal` (make what is missing
    from stored rooms and messages, then go on from now; what leaves no trace there is not delivered, such as
    LivechatSessionQueued) or `restart` (go on from now; nothing of what happened in between is delivered)."""

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

    @property
    def address(self) -> str | None:
        """`site_url` as text; None: read from Rocket.Chat's settings."""
        return None if self.site_url is None else str(self.site_url)

    @property
    def version(self) -> str | None:
        """`server_version`; None: as Rocket.Chat notes it."""
        return None if self.server_version == "auto" else self.server_version


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
        return read_secret(self.secret_token_file, self.secret_token or SecretStr(""), "intake.secret_token_file")


class ServeSection(Section):
    """The operator's window: /livez, /readyz, /metrics, and the API under /api/v1."""

    listen: Annotated[str, AfterValidator(_listen)] = "127.0.0.1:8940"
    """Address and port. Keep it on loopback: who reaches it sees ids and states of deliveries, and on another address calls of
    the API need the token."""
    api_token: SecretStr | None = None
    """The token for calls of the API that change something or show what visitors wrote (`Authorization: Bearer ...`). Without
    one they are refused."""
    api_token_file: Path | None = None
    """A file that holds the token; used instead of `api_token`."""

    @model_validator(mode="after")
    def _one_token(self) -> ServeSection:
        if self.api_token is not None and self.api_token_file is not None:
            raise ValueError("give api_token or api_token_file, not both")
        if self.api_token is not None and len(self.api_token.get_secret_value()) < _SHORTEST_TOKEN:
            raise ValueError(f"api_token needs {_SHORTEST_TOKEN} characters or more: `openssl rand -hex 32` makes one")
        return self

    def token(self) -> str:
        """The token of the API, empty when none is set. Raises `ConfigurationError` when its file cannot be read."""
        token = read_secret(self.api_token_file, self.api_token or SecretStr(""), "serve.api_token_file")
        if token and len(token) < _SHORTEST_TOKEN:
            raise ConfigurationError(
                f"serve.api_token_file: the token has fewer than {_SHORTEST_TOKEN} characters",
                hint="`openssl rand -hex 32` makes one",
            )
        return token

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


class LogSection(Section):
    """Logs, on standard output."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least level that is written. At `info` no message text and no data of a visitor appear."""
    format: Literal["json", "ecs", "console"] = "json"
    """`json`: one object a line; `ecs`: the same with the names of the Elastic Common Schema; `console`: for people."""


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
    send: SendSection = SendSection()
    """Where requests may go, by the address that is connected to. Link-local addresses, where clouds keep their metadata,
    multicast and 0.0.0.0 are refused from the start; private networks and loopback are not."""
    endpoints: dict[str, EndpointSection] = Field(min_length=1)
    """The receivers, by name. The name is the identity: a renamed endpoint is a new one."""
    intake: IntakeSection = IntakeSection()
    """Offline messages by Rocket.Chat's own webhook, at POST /intake/offline on serve.listen."""
    serve: ServeSection = ServeSection()
    """The operator's window: /livez, /readyz, /metrics, and the API under /api/v1."""
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
