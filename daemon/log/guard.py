"""The last look at a line before it is written: plain values only, and no secret that is known."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

_SHORTEST = 6  # what is shorter stands in ordinary words too, and hiding it would make lines unreadable
_HIDDEN = "***"
_OURS = ("timestamp", "level", "event", "stage")


class Guard:
    """Puts `***` where a known secret stands, whatever way it took there, and makes every value one that JSON knows."""

    def __init__(self) -> None:
        self._secrets: set[str] = set()
        self._pattern: re.Pattern[str] | None = None

    def hide(self, secrets: Iterable[str]) -> None:
        """Remember these secrets for as long as the process runs."""
        forms = {form for secret in secrets for form in (secret, json.dumps(secret)[1:-1], repr(secret)[1:-1])}
        new = {form for form in forms if len(form) >= _SHORTEST} - self._secrets
        if new:
            self._secrets |= new
            longest_first = sorted(self._secrets, key=len, reverse=True)
            self._pattern = re.compile("|".join(map(re.escape, longest_first)))

    def __call__(self, _logger: object, _method: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
        """The line with its own members first."""
        plain = {name: line[name] for name in _OURS if name in line}
        return plain | {name: self._plain(value) for name, value in line.items() if name not in plain}

    def _plain(self, value: object) -> Any:
        if value is None or isinstance(value, bool | int):
            return value
        if isinstance(value, float):
            return value if math.isfinite(value) else str(value)
        if isinstance(value, Mapping):
            return {self._text(str(name)): self._plain(member) for name, member in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self._plain(member) for member in value]
        return self._text(str(value))

    def _text(self, text: str) -> str:
        if not text.isascii():  # half of a surrogate pair cannot be written
            text = text.encode("utf-8", "backslashreplace").decode("utf-8")
        return text if self._pattern is None else self._pattern.sub(_HIDDEN, text)
