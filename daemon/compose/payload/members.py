"""Shapes: tables of members that build a JSON object and describe it as a JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from daemon.compose.json_text import ABSENT
from daemon.model import Document

S = TypeVar("S")
Schema = Mapping[str, Any]

TEXT: Schema = {"type": "string"}
DATE: Schema = {"type": "string", "format": "date-time"}
NUMBER: Schema = {"type": "number"}
OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array"}
TEXTS: Schema = {"type": "array", "items": TEXT}
ANY: Schema = {}


@dataclass(frozen=True)
class Member(Generic[S]):
    """One member. `stored` values come as they are in MongoDB, null included; `required` ones are always there."""

    name: str
    get: Callable[[S], Any]
    schema: Schema
    stored: bool = False
    required: bool = False


@dataclass(frozen=True)
class Shape(Generic[S]):
    """A JSON object with its members in order. With `nulls` a stored null stays, as a server sends it; else it vanishes."""

    members: tuple[Member[S], ...]
    nulls: bool

    def build(self, source: S) -> dict[str, Any]:
        """The object for `source`."""
        result: dict[str, Any] = {}
        for member in self.members:
            value = member.get(source)
            if value is not ABSENT and (self.nulls or value is not None):
                result[member.name] = value
        return result

    def schema(self) -> dict[str, Any]:
        """The JSON Schema of what `build` gives."""
        return {
            "type": "object",
            "properties": {member.name: self._schema(member) for member in self.members},
            "required": [member.name for member in self.members if member.required],
            "additionalProperties": False,
        }

    def _schema(self, member: Member[S]) -> Schema:
        if self.nulls and member.stored and member.schema:
            return {"anyOf": [member.schema, {"type": "null"}]}
        return member.schema


def stored(
    name: str, schema: Schema, part: Callable[[S], Document], field: str | None = None, *, required: bool = False
) -> Member[S]:
    """A member as stored in a document that `part` gives."""
    key = field or name
    return Member(name, lambda source: part(source).get(key, ABSENT), schema, stored=True, required=required)


def first(entries: Any, member: str) -> Any:
    """A member of the first entry of a list; absent where there is none."""
    if isinstance(entries, list) and entries and isinstance(entries[0], Mapping):
        return entries[0].get(member, ABSENT)
    return ABSENT
