"""What differs between two configurations: by key, and without secrets."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr

from daemon.config.root import Config
from daemon.config.types import format_duration

# What the running process holds on to.
_FIXED = ("outbox.url", "serve.listen")


@dataclass(frozen=True, slots=True)
class Value:
    """A value to compare, and the text that may be shown of it (None: nothing)."""

    compared: Any = field(repr=False)
    shown: str | None


Snapshot = Mapping[str, Value]


def snapshot(config: Config) -> Snapshot:
    """Every key with its value; for a file with a secret also what is in it at the moment."""
    return dict(_values(config, ""))


def _values(section: BaseModel, prefix: str) -> Iterator[tuple[str, Value]]:
    for name in type(section).model_fields:
        yield from _value(f"{prefix}{name}", getattr(section, name))


def _value(key: str, value: Any) -> Iterator[tuple[str, Value]]:
    match value:
        case BaseModel():
            yield from _values(value, f"{key}.")
        case dict():
            for name, member in value.items():
                yield from _value(f"{key}.{name}", member)
        case SecretStr():
            yield key, Value(value.get_secret_value(), None)
        case Path():
            yield key, Value(str(value), str(value))
            yield f"{key} (content)", Value(_digest(value), None)
        case _:
            yield key, Value(value, None if key.endswith("url") else _show(value))


def _show(value: Any) -> str:
    match value:
        case timedelta():
            return format_duration(value)
        case tuple():
            return f"[{', '.join(_show(member) for member in value)}]"
        case _:
            return str(value)


def _digest(file: Path) -> str | None:
    try:
        return hashlib.sha256(Path(os.path.expandvars(file)).read_bytes()).hexdigest()
    except OSError:
        return None


def difference(before: Snapshot, after: Snapshot) -> dict[str, list[str]]:
    """The keys that are new, gone or different; old and new value where both may be shown."""
    return {
        "added": sorted(after.keys() - before.keys()),
        "removed": sorted(before.keys() - after.keys()),
        "changed": [
            _describe(key, before[key], after[key]) for key in sorted(before.keys() & after.keys()) if before[key] != after[key]
        ],
    }


def _describe(key: str, before: Value, after: Value) -> str:
    return key if before.shown is None or after.shown is None else f"{key}: {before.shown} -> {after.shown}"


def keep_fixed(wanted: Config, running: Config) -> tuple[Config, list[str]]:
    """`wanted` with the values of `running` where only a start can change them; also gives the keys of these."""
    kept = []
    for key in _FIXED:
        section, _, name = key.partition(".")
        now = getattr(getattr(running, section), name)
        if getattr(getattr(wanted, section), name) != now:
            kept.append(key)
            wanted = wanted.model_copy(update={section: getattr(wanted, section).model_copy(update={name: now})})
    return wanted, kept
