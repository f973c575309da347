"""The section of a receiver."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, field_validator, model_validator

from daemon.config.types import Duration, PositiveDuration, Section, header_safe, read_secret
from daemon.errors import ConfigurationError
from daemon.model import EventType, Profile

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = ("content-type", "content-length", "host", "transfer-encoding", "x-rocketchat-livechat-token")


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
    headers: dict[str, SecretStr] = Field(default_factory=dict)
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
            if not header_safe(secret.get_secret_value()):
                raise ValueError(f"the value of {name!r} has characters that a header cannot carry")
        return value

    @field_validator("secret_token")
    @classmethod
    def _token_sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not header_safe(value.get_secret_value()):
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
        token = read_secret(self.secret_token_file, self.secret_token or SecretStr(""), f"endpoints.{name}.secret_token_file")
        if not header_safe(token):
            raise ConfigurationError(
                f"endpoints.{name}.secret_token_file: the token has characters that a header cannot carry",
                hint="put the token alone into the file, on one line",
            )
        return token
