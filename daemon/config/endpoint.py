"""The section of a receiver."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, HttpUrl, SecretStr, field_validator, model_validator

from daemon.config.tls import TlsSection
from daemon.config.types import (
    Duration,
    PositiveDuration,
    Section,
    header_safe,
    read_header,
    read_secret,
    signing_key,
)
from daemon.errors import ConfigurationError
from daemon.model import TOKEN_HEADER, EventType, Profile

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_OWN_HEADERS = ("accept-encoding", "content-type", "content-length", "host", "transfer-encoding", TOKEN_HEADER.lower())
_OWN_PREFIXES = ("x-livechat-relay-", "webhook-")


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


class BasicAuthSection(Section):
    """User and password, sent as `Authorization: Basic ...`."""

    username: str
    """The user; without a colon."""
    password: SecretStr | None = None
    """The password."""
    password_file: Path | None = None
    """A file that holds the password; used instead of `password`."""

    @model_validator(mode="after")
    def _complete(self) -> BasicAuthSection:
        if ":" in self.username:
            raise ValueError("a username with a colon cannot be sent")
        if (self.password is None) == (self.password_file is None):
            raise ValueError("give password or password_file, one of them")
        return self


class EndpointSection(Section):
    """A receiver. Its name is its identity: a renamed endpoint is a new one."""

    url: HttpUrl = Field(repr=False)
    """Where events are posted to."""
    secret_token: SecretStr | None = None
    """Sent as X-RocketChat-Livechat-Token, as Rocket.Chat does with its secret token."""
    secret_token_file: Path | None = None
    """A file that holds the token; used instead of `secret_token`."""
    signing_secrets: tuple[SecretStr, ...] = ()
    """Secrets that sign each request as Standard Webhooks describes it, each of them `whsec_` and then base64 of 24 to 64 bytes.
    One, or while you change it the new and the old one. Empty: not signed."""
    signing_secrets_file: Path | None = None
    """A file that holds them, one a line; used instead of `signing_secrets`."""
    bearer_token: SecretStr | None = Field(default=None, min_length=1)
    """Sent as `Authorization: Bearer ...`."""
    bearer_token_file: Path | None = None
    """A file that holds that token; used instead of `bearer_token`."""
    basic_auth: BasicAuthSection | None = None
    """User and password: `username` with `password` or `password_file`."""
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
    """More request headers. Values are treated as secrets."""
    header_files: dict[str, Path] = Field(default_factory=dict)
    """More request headers, each with a file that holds its value."""
    tls: TlsSection = TlsSection()
    """How to meet a receiver over https. Its certificate and name are always verified, with TLS 1.2 or later."""

    @field_validator("events")
    @classmethod
    def _some_events(cls, value: tuple[EventType, ...]) -> tuple[EventType, ...]:
        if not value:
            raise ValueError("name at least one event type, or leave the key out to get all")
        return tuple(dict.fromkeys(value))

    @field_validator("headers", "header_files")
    @classmethod
    def _header_names(cls, value: dict[str, SecretStr] | dict[str, Path]) -> dict[str, SecretStr] | dict[str, Path]:
        for name in value:
            if not _HEADER_NAME.fullmatch(name) or name.lower() in _OWN_HEADERS or name.lower().startswith(_OWN_PREFIXES):
                raise ValueError(f"{name!r} is not a header name that can be set here")
        return value

    @field_validator("headers")
    @classmethod
    def _sendable(cls, value: dict[str, SecretStr]) -> dict[str, SecretStr]:
        for name, secret in value.items():
            if not header_safe(secret.get_secret_value()):
                raise ValueError(f"the value of {name!r} has characters that a header cannot carry")
        return value

    @field_validator("secret_token", "bearer_token")
    @classmethod
    def _token_sendable(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not header_safe(value.get_secret_value()):
            raise ValueError("has characters that a header cannot carry")
        return value

    @field_validator("signing_secrets")
    @classmethod
    def _usable_secrets(cls, value: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for secret in value:
            signing_key(secret.get_secret_value())
        return value

    @model_validator(mode="after")
    def _one_place_of_each(self) -> EndpointSection:
        for key in ("secret_token", "bearer_token", "signing_secrets"):
            if getattr(self, key) and getattr(self, f"{key}_file") is not None:
                raise ValueError(f"give {key} or {key}_file, not both")
        names = [name.lower() for name in (*self.headers, *self.header_files)]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"the header {twice} is given twice")
        return self

    @model_validator(mode="after")
    def _one_authorization(self) -> EndpointSection:
        ways = list(self._authorizations())
        if len(ways) > 1:
            raise ValueError(f"only one of them can be the Authorization of a request: {', '.join(ways)}")
        return self

    @model_validator(mode="after")
    def _tls_is_used(self) -> EndpointSection:
        if self.tls != TlsSection() and self.url.scheme != "https":
            raise ValueError("tls is for https, and the url begins with http:")
        return self

    def _authorizations(self) -> Iterator[str]:
        """The keys that make an Authorization."""
        if self.url.username is not None or self.url.password is not None:
            yield "user and password in the url"
        if self.bearer_token is not None or self.bearer_token_file is not None:
            yield "bearer_token"
        if self.basic_auth is not None:
            yield "basic_auth"
        for key, names in (("headers", self.headers), ("header_files", self.header_files)):
            if any(name.lower() == "authorization" for name in names):
                yield f"Authorization in {key}"

    @property
    def authorization(self) -> str | None:
        """Where the Authorization of requests comes from, in words; None when they carry none."""
        return next(self._authorizations(), None)

    @property
    def address(self) -> str:
        """The url without user and password, which are sent as a header."""
        return re.sub(r"(?<=://)[^/?#]*@", "", str(self.url), count=1)

    def token(self, name: str) -> str:
        """The token of endpoint `name`, empty when none is set. Raises `ConfigurationError` when its file cannot be read."""
        return read_header(self.secret_token_file, self.secret_token or SecretStr(""), f"endpoints.{name}.secret_token_file")

    def signing_keys(self, name: str) -> tuple[bytes, ...]:
        """The keys that sign the requests to endpoint `name`. Raises `ConfigurationError` when their file cannot be used."""
        path = f"endpoints.{name}.signing_secrets_file"
        if self.signing_secrets_file is None:
            return tuple(signing_key(secret.get_secret_value()) for secret in self.signing_secrets)
        keys = []
        for number, line in enumerate(read_secret(self.signing_secrets_file, SecretStr(""), path).splitlines(), start=1):
            try:
                keys.append(signing_key(line.strip()))
            except ValueError as error:
                raise ConfigurationError(
                    f"{path}: line {number} of {self.signing_secrets_file}: {error}", hint="one secret a line, and nothing else"
                ) from None
        return tuple(keys)

    def request_headers(self, name: str) -> dict[str, str]:
        """What every request to endpoint `name` carries: token, Authorization, headers of its own. Raises `ConfigurationError`
        when one of their files cannot be used.
        """
        headers = {header: value.get_secret_value() for header, value in self.headers.items()}
        headers.update({header: self._from_file(header, name) for header in self.header_files})
        if token := self.token(name):
            headers[TOKEN_HEADER] = token
        if credentials := self._credentials(name):
            headers["Authorization"] = credentials
        return headers

    def _from_file(self, header: str, name: str) -> str:
        return read_header(self.header_files[header], SecretStr(""), f"endpoints.{name}.header_files.{header}")

    def _credentials(self, name: str) -> str:
        """The Authorization, empty when none is set."""
        bearer = read_header(self.bearer_token_file, self.bearer_token or SecretStr(""), f"endpoints.{name}.bearer_token_file")
        if bearer:
            return f"Bearer {bearer}"
        if self.basic_auth is not None:
            section = self.basic_auth
            path = f"endpoints.{name}.basic_auth.password_file"
            return _basic(section.username, read_secret(section.password_file, section.password or SecretStr(""), path))
        if self.url.username is not None or self.url.password is not None:
            return _basic(unquote(self.url.username or ""), unquote(self.url.password or ""))
        return ""

    def file_readers(self, name: str) -> Iterator[Callable[[], object]]:
        """What reads the files of endpoint `name`; each raises `ConfigurationError` when a file of its own cannot be used."""
        yield partial(self.token, name)
        yield partial(self.signing_keys, name)
        yield partial(self._credentials, name)
        yield from (partial(self._from_file, header, name) for header in self.header_files)
        yield partial(self.tls.context, f"endpoints.{name}.tls")


def _basic(username: str, password: str) -> str:
    return "Basic " + base64.b64encode(f"{username}:{password}".encode()).decode()
