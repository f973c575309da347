"""Folding: a document and a change of it give the document after the change. Pure, and never changes what it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from daemon.model import Change, Document


def fold(document: Document | None, change: Change, fields: Sequence[str]) -> dict[str, Any] | None:
    """`document` after `change`, reduced to `fields`; None when it is gone.

    An update of a document that is not known (None) stays unknown: its other fields would be missing. MongoDB lists
    truncated arrays, set and removed fields apart; the server applies them in that order.
    """
    if change.operation == "delete":
        return None
    if change.operation in ("insert", "replace"):
        return reduce(change.document or {}, fields)
    if document is None:
        return None
    result = dict(document)
    for cut in change.truncated:
        path = str(cut["field"]).split(".")
        _set(result, path, list(_get(result, path) or ())[: cut["newSize"]])
    for key, value in change.updated.items():
        _set(result, key.split("."), value)
    for key in change.removed:
        _unset(result, key.split("."))
    return reduce(result, fields)


def reduce(document: Document, fields: Sequence[str]) -> dict[str, Any]:
    """Only `fields` of `document`; of a `parent.child` field only that child."""
    result: dict[str, Any] = {}
    for field in fields:
        parent, _, child = field.partition(".")
        if parent not in document:
            continue
        if not child:
            result[parent] = document[parent]
        elif isinstance(document[parent], dict) and child in document[parent]:
            result.setdefault(parent, {})[child] = document[parent][child]
    return result


def touches(change: Change, field: str) -> bool:
    """Whether an update sets `field` or something inside it.

    MongoDB never lists a value that was set to itself: being listed *is* the change.
    """
    inside = f"{field}."
    return any(key == field or key.startswith(inside) for key in change.updated)


def nested_id(document: Document, field: str) -> object:
    """The `_id` inside a sub-document; None where there is none."""
    nested = document.get(field)
    return nested.get("_id") if isinstance(nested, dict) else None


def _get(value: Any, path: Sequence[str]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and part.isdigit() and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value


def _set(container: dict[str, Any] | list[Any], path: Sequence[str], value: Any) -> None:
    """Set in place, copying every container on the way: `container` itself belongs to the caller."""
    part, rest = path[0], path[1:]
    if isinstance(container, list):
        if not part.isdigit():
            return
        index = int(part)
        container.extend([None] * (index + 1 - len(container)))
        container[index] = value if not rest else _copied(container[index])
        child = container[index]
    else:
        container[part] = value if not rest else _copied(container.get(part))
        child = container[part]
    if rest:
        _set(child, rest, value)


def _unset(container: Any, path: Sequence[str]) -> None:
    part, rest = path[0], path[1:]
    if isinstance(container, dict) and part in container:
        if not rest:
            del container[part]
        elif isinstance(container[part], dict | list):
            container[part] = _copied(container[part])
            _unset(container[part], rest)
    elif isinstance(container, list) and part.isdigit() and int(part) < len(container):
        if not rest:
            container[int(part)] = None  # $unset inside an array leaves null
        elif isinstance(container[int(part)], dict | list):
            container[int(part)] = _copied(container[int(part)])
            _unset(container[int(part)], rest)


def _copied(value: Any) -> dict[str, Any] | list[Any]:
    if isinstance(value, list):
        return list(value)
    return dict(value) if isinstance(value, dict) else {}
