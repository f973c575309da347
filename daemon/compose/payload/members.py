"""Shapes: tables of members that build a JSON object and describe it as a JSON Schema."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from daemon.compose.json_text import ABSENT, READY, Members, ready, written
from daemon.model import Document

S = TypeVar("S")
Schema = Mapping[str, Any]
_Step = tuple[str, int | None, str, Callable[[S], Any] | None]
_MOST_REPEATED = 500

TEXT: Schema = {"type": "string"}
DATE: Schema = {"type": "string", "format": "date-time"}
NUMBER: Schema = {"type": "number"}
OBJECT: Schema = {"type": "object"}
LIST: Schema = {"type": "array"}
TEXTS: Schema = {"type": "array", "items": TEXT}
ANY: Schema = {}


@dataclass(frozen=True)
class Member(Generic[S]):
    """One member. `stored` values come as they are in MongoDB, null included; `required` ones are always there.

    Its value is what `get` gives. With `part` and `field` there is none unless that document has this field, and without
    `get` it is the field's value.
    """

    name: str
    get: Callable[[S], Any] | None
    schema: Schema
    stored: bool = False
    required: bool = False
    part: Callable[[S], Document] | None = None
    field: str = ""


@dataclass(frozen=True)
class Shape(Generic[S]):
    """A JSON object with its members in order. With `nulls` a stored null stays, as a server sends it; else it vanishes."""

    members: tuple[Member[S], ...]
    nulls: bool

    def build(self, source: S) -> Members:
        """The object for `source`."""
        parts, steps = self._plan
        documents = [part(source) for part in parts]
        nulls, result = self.nulls, Members()
        for name, document, field, get in steps:
            if document is not None:
                value = documents[document].get(field, ABSENT)
                if value is ABSENT:
                    continue
            if get is not None:
                value = get(source)
            if value is not ABSENT and (nulls or value is not None):
                result[name] = value if type(value) in READY else ready(value)
        return result

    @cached_property
    def _plan(self) -> tuple[list[Callable[[S], Document]], list[_Step[S]]]:
        """The parts of a source, so that each is asked for once, and for each member which of them has its field."""
        parts = list(dict.fromkeys(member.part for member in self.members if member.part is not None))
        return parts, [
            (member.name, None if member.part is None else parts.index(member.part), member.field, member.get)
            for member in self.members
        ]

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
    return Member(name, None, schema, stored=True, required=required, part=part, field=field or name)


class Repeated(Generic[S]):
    """An object that is written once for as long as it is built of the same: payload after payload has the same visitor and
    agent.

    `of` gives the document and the other value that it is built of. Both are told by identity: documents are replaced, never
    changed. Without a document there is no object.
    """

    def __init__(self, build: Callable[[S], Members], of: Callable[[S], tuple[Document | None, Any]]) -> None:
        self._build = build
        self._of = of
        self._written: dict[tuple[int, int], tuple[object, Any]] = {}

    def __call__(self, source: S) -> Any:
        """The object for `source`."""
        built_of = document, other = self._of(source)
        found = self._written.get((id(document), id(other)))
        if found is not None:
            return found[1]
        if document is None:
            return ABSENT
        if len(self._written) >= _MOST_REPEATED:
            self._written.clear()
        result = written(self._build(source))
        # What it is built of stays with it, so that these ids are nobody else's.
        self._written[id(document), id(other)] = (built_of, result)
        return result


def first(entries: Any, member: str) -> Any:
    """A member of the first entry of a list; absent where there is none."""
    if isinstance(entries, list) and entries and isinstance(entries[0], Mapping):
        return entries[0].get(member, ABSENT)
    return ABSENT
