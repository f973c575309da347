"""What the sections are made of: durations, secrets, the base of all sections."""

from __future__ import annotations

import base64
import binascii
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, SecretStr

from daemon.errors import ConfigurationError

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_LONGEST_DURATION_S = 3650 * 86400.0


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


_CREDENTIALS = "${CREDENTIALS_DIRECTORY}"


def located(file: Path, path: str) -> Path:
    """`file`, where it may begin with systemd's directory of credentials. Raises `ConfigurationError` when there is none."""
    if file.parts[:1] != (_CREDENTIALS,):
        return file
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    if not folder:
        raise ConfigurationError(
            f"{path}: {file} needs the environment variable CREDENTIALS_DIRECTORY",
            hint="systemd sets it for a service with LoadCredential=; by hand set it to /run/credentials/<name of the service>",
        )
    return Path(folder, *file.parts[1:])


def read_secret(file: Path | None, value: SecretStr, path: str) -> str:
    """The secret in `file`, else `value`. Raises `ConfigurationError` when the file at the key `path` cannot be read."""
    if file is None:
        return value.get_secret_value()
    try:
        secret = located(file, path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(
            f"{path}: cannot read {file}: {_fault(error)}",
            hint="check the path and that the relay's user may read it; a credential needs LoadCredential= and a restart",
        ) from error
    if not secret:
        raise ConfigurationError(f"{path}: {file} is empty", hint="put the secret into the file, or leave the key out")
    return secret


def _fault(error: OSError | UnicodeDecodeError) -> str:
    """Without the content: what cannot be decoded may be a secret all the same."""
    return (error.strerror or type(error).__name__) if isinstance(error, OSError) else "it is not text in UTF-8"


def read_header(file: Path | None, value: SecretStr, path: str) -> str:
    """As `read_secret`, of a value that a header can carry."""
    secret = read_secret(file, value, path)
    if not header_safe(secret):
        raise ConfigurationError(
            f"{path}: {file or 'the value'} has characters that a header cannot carry",
            hint="put the secret alone into the file, on one line",
        )
    return secret


def signing_key(secret: str) -> bytes:
    """The key of a Standard Webhooks secret. Raises `ValueError`, which does not quote it, for anything else."""
    prefix, mark, encoded = secret.partition("_")
    if (prefix, mark) != ("whsec", "_"):
        raise ValueError("a signing secret begins with whsec_; `echo whsec_$(openssl rand -base64 32)` makes one")
    try:
        key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("after whsec_ a signing secret is base64: letters, digits, + and /") from None
    if not 24 <= len(key) <= 64:
        raise ValueError(f"a signing secret has 24 to 64 bytes, this one {len(key)}; longer is not safer, shorter can be guessed")
    return key


def header_safe(value: str) -> bool:
    return value.isprintable() and value.isascii()


def redact_url(url: str) -> str:
    """`url` without user, password and query, for logs and errors; whatever it is, since what is wrong with a URL is told too."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = rest.rpartition("@")[2]
    return f"{scheme}{mark}{rest.partition('?')[0].partition('#')[0]}"
