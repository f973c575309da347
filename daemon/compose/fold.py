"""Folding: a document and a change of it give the document after the change. Pure, and never changes what it is given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from daemon.model import Change, Document


def fold(document: Document | None, change: Change, fields: Sequence[str]) -> dict[str, Any] | None:
    """`document`, which holds nothing but `fields`, after `change`; None when it is gone.

    An update of a document that is not known (None) stays unknown: its other fields would be missing. MongoDB lists
    truncated arrays, set and removed fields apart; the server applies them in that order.
    """
    if change.operation == "delete":
        return None
    if change.operation in ("insert", "replace"):
        return reduce(change.document or {}, fields)
    if document is None:
        return None
    quick = None if change.removed or change.truncated else _with_values(document, change.updated, _plan(tuple(fields)))
    return _with_changes(document, change, fields) if quick is None else quick


def _with_values(document: Document, updated: Document, plan: Mapping[str, Sequence[str] | None]) -> dict[str, Any] | None:
    """`document` with new values of whole fields that it has, which is what nearly every update brings; None for any other
    update.
    """
    result = dict(document)
    for key, value in updated.items():
        if key in result and plan.get(key, ()) is None:
            result[key] = value
        elif key.partition(".")[0] in plan:
            return None
    return result


def _with_changes(document: Document, change: Change, fields: Sequence[str]) -> dict[str, Any]:
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
    for name, children in _plan(tuple(fields)).items():
        if name in document:
            value = document[name]
            if children is None:
                result[name] = value
            elif isinstance(value, dict) and (kept := {child: value[child] for child in children if child in value}):
                result[name] = kept
    return result


@lru_cache(maxsize=64)
def _plan(fields: tuple[str, ...]) -> dict[str, list[str] | None]:
    """`fields` by their first part: what is kept inside of it; None: all."""
    plan: dict[str, list[str] | None] = {}
    for field in fields:
        parent, _, child = field.partition(".")
        if not child:
            plan[parent] = None
        elif (children := plan.setdefault(parent, [])) is not None:
            children.append(child)
    return plan


def touches(change: Change, field: str) -> bool:
    """Whether an update sets `field` or something inside it.

    MongoDB never lists a value that was set to itself: being listed *is* the change.
    """
    if field in change.updated:
        return True
    inside = f"{field}."
    for key in change.updated:  # noqa: SIM110 - a generator costs more than all keys of an update
        if key.startswith(inside):
            return True
    return False


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
