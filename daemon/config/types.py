"""What the sections are made of: durations, secrets, the base of all sections."""

from __future__ import annotations

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


def read_secret(file: Path | None, value: SecretStr, path: str) -> str:
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


def header_safe(value: str) -> bool:
    return value.isprintable() and value.isascii()


def redact_url(url: str) -> str:
    """`url` without user, password and query, for logs and errors; whatever it is, since what is wrong with a URL is told too."""
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    rest = rest.rpartition("@")[2]
    return f"{scheme}{mark}{rest.partition('?')[0].partition('#')[0]}"
