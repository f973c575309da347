"""The annotated example configuration, written from the models, so that it cannot differ from what the relay reads."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from datetime import timedelta
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from daemon.config.endpoint import EndpointSection
from daemon.config.root import Config
from daemon.config.types import format_duration

_HEAD = """\
Configuration of livechat-relay. Every key is shown with its default, except the endpoint.
Any key can also come from the environment: mongodb.uri is LIVECHAT_RELAY_MONGODB__URI.
This file is written by `livechat-relay config example`."""

_EXAMPLE_ENDPOINT = {"url": "https://crm.example.org/rocketchat", "secret_token": "change-me"}


def example() -> str:
    """A configuration that `daemon.config.file.load` accepts, every key with its description and default."""
    lines = [f"# {line}" for line in _HEAD.splitlines()]
    for name, field in Config.model_fields.items():
        lines.append("")
        lines += _comment(field, 0)
        lines.append(f"{name}:")
        if name == "endpoints":
            lines.append("  crm:")
            lines += _section(EndpointSection, 4, _EXAMPLE_ENDPOINT)
        elif isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            lines += _section(field.annotation, 2, {})
    return "\n".join(lines) + "\n"


def _section(model: type[BaseModel], indent: int, given: dict[str, str]) -> Iterator[str]:
    for name, field in model.model_fields.items():
        yield from _comment(field, indent)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield f"{' ' * indent}{name}:"
            yield from _section(field.annotation, indent + 2, {})
        else:
            yield f"{' ' * indent}{name}: {given.get(name) or _text(field.get_default(call_default_factory=True))}"


def _comment(field: FieldInfo, indent: int) -> list[str]:
    text = " ".join((field.description or "").split())
    return [f"{' ' * indent}# {line}" for line in textwrap.wrap(text, 100 - indent)]


def _text(value: Any) -> str:
    match value:
        case None:
            return "null"
        case SecretStr():
            return value.get_secret_value()
        case timedelta():
            return format_duration(value)
        case Enum():
            return str(value.value)
        case ByteSize():
            return value.human_readable(decimal=True, separator="").replace(".0", "")
        case tuple() | list():
            return f"[{', '.join(_text(item) for item in value)}]"
        case dict():
            return "{}"
        case bool():
            return str(value).lower()
        case str() if value.isdigit():
            return f'"{value}"'
        case str() | int() | float() | Path():
            return str(value)
        case _ if value is PydanticUndefined:
            return "null"
        case _:
            raise TypeError(f"no text for {value!r}")
