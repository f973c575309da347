from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from daemon.compose.fold import fold, reduce, touches
from daemon.model import Change
from tests.compose.build import ROOMS, Json, applied, deletion, insert, moment, replacement, stamp, update

FIELDS = ("_id", "a", "b", "v._id", "v.token")


def change(sets: Json | None = None, unsets: Sequence[str] = (), truncated: Sequence[Json] = ()) -> Change:
    return Change(ROOMS, "update", "x", stamp(), moment(), updated=sets or {}, removed=unsets, truncated=truncated)


def test_an_insert_keeps_only_the_fields_that_matter() -> None:
    document = {"_id": "x", "a": {"deep": [1, {"er": None}]}, "other": 1, "v": {"_id": "y", "status": "online"}}

    assert fold(None, insert(ROOMS, document), FIELDS) == {"_id": "x", "a": {"deep": [1, {"er": None}]}, "v": {"_id": "y"}}


def test_an_insert_of_a_known_document_starts_anew() -> None:
    assert fold({"_id": "x", "a": 1}, insert(ROOMS, {"_id": "x", "b": 2}), FIELDS) == {"_id": "x", "b": 2}


def test_a_replacement_forgets_what_it_does_not_name() -> None:
    assert fold({"_id": "x", "a": 1}, replacement(ROOMS, {"_id": "x", "b": 2}), FIELDS) == {"_id": "x", "b": 2}


def test_a_replacement_makes_an_unknown_document_known() -> None:
    assert fold(None, replacement(ROOMS, {"_id": "x", "b": 2}), FIELDS) == {"_id": "x", "b": 2}


@pytest.mark.parametrize("known", [None, {"_id": "x", "a": 1}], ids=["unknown", "known"])
def test_a_deleted_document_is_gone(known: Json | None) -> None:
    assert fold(known, deletion(ROOMS, "x"), FIELDS) is None


@pytest.mark.parametrize(
    ("sets", "unsets"),
    [({"a": 1}, []), ({"_id": "x", "a": 1, "b": 2}, []), ({}, ["a"]), ({"a.b": 1}, [])],
    ids=["set", "set all", "unset", "set inside"],
)
def test_an_update_of_an_unknown_document_leaves_it_unknown(sets: Json, unsets: list[str]) -> None:
    assert fold(None, change(sets, unsets), FIELDS) is None


def case(id_: str, before: Any, after: Any, sets: Json | None = None, unsets: Sequence[str] = (), *cuts: Json) -> Any:
    return pytest.param(before, sets or {}, unsets, cuts, after, id=id_)


def cut(field: str, size: int) -> Json:
    return {"field": field, "newSize": size}


@pytest.mark.parametrize(
    ("before", "sets", "unsets", "cuts", "after"),
    [
        case("set a field", {"a": 1}, {"a": 2}, {"a": 2}),
        case("set a new field", {"a": 1}, {"a": 1, "b": 2}, {"b": 2}),
        case("set null", {"a": 1}, {"a": None}, {"a": None}),
        case("set a field that does not matter", {"a": 1}, {"a": 1}, {"c": 2, "c.d": 3, "_updatedAt": 4}),
        case("set to another kind", {"a": {"x": 1}}, {"a": "text"}, {"a": "text"}),
        case("unset", {"a": 1, "b": 2}, {"b": 2}, {}, ["a"]),
        case("unset what is not there", {"b": 2}, {"b": 2}, {}, ["a", "a.x", "b.x", "b.0", "c.d.e"]),
        case("set inside", {"a": {"x": 1, "y": 2}}, {"a": {"x": 3, "y": 2}}, {"a.x": 3}),
        case("set deep inside", {"a": {"x": {"y": {"z": 1}}}}, {"a": {"x": {"y": {"z": 2}}}}, {"a.x.y.z": 2}),
        case("set inside what is not there", {}, {"a": {"x": {"y": 1}}}, {"a.x.y": 1}),
        case("set a number key of a document", {"a": {"0": "x"}}, {"a": {"0": "y", "1": "z"}}, {"a.0": "y", "a.1": "z"}),
        case("set a number key of what is not there", {}, {"a": {"0": "x"}}, {"a.0": "x"}),
        case("unset inside", {"a": {"x": 1, "y": 2}}, {"a": {"y": 2}}, {}, ["a.x"]),
        case("unset the last inside", {"a": {"x": 1}}, {"a": {}}, {}, ["a.x"]),
        case("set an element", {"a": [1, 2, 3]}, {"a": [1, 9, 3]}, {"a.1": 9}),
        case("append", {"a": [1]}, {"a": [1, 2, 3]}, {"a.1": 2, "a.2": 3}),
        case("append to an empty array", {"a": []}, {"a": [1]}, {"a.0": 1}),
        case("append with a gap", {"a": [1]}, {"a": [1, None, None, 4]}, {"a.3": 4}),
        case("append out of order", {"a": []}, {"a": [0, 1, 2]}, {"a.2": 2, "a.0": 0, "a.1": 1}),
        case("an element by two digits", {"a": list(range(12))}, {"a": [*range(11), "x"]}, {"a.11": "x"}),
        case("set inside an element", {"a": [{"x": 1}, {"x": 2}]}, {"a": [{"x": 1}, {"x": 3}]}, {"a.1.x": 3}),
        case("set inside a gap", {"a": []}, {"a": [None, {"x": 1}]}, {"a.1.x": 1}),
        case("an array in an array", {"a": [[1, 2], [3]]}, {"a": [[1, 2], [3, 4]]}, {"a.1.1": 4}),
        case("unset an element leaves null", {"a": [1, 2, 3]}, {"a": [1, None, 3]}, {}, ["a.1"]),
        case("unset beyond the end", {"a": [1]}, {"a": [1]}, {}, ["a.1"]),
        case("unset inside an element", {"a": [{"x": 1, "y": 2}]}, {"a": [{"y": 2}]}, {}, ["a.0.x"]),
        case("truncate", {"a": [1, 2, 3]}, {"a": [1]}, {}, [], cut("a", 1)),
        case("truncate to nothing", {"a": [1, 2, 3]}, {"a": []}, {}, [], cut("a", 0)),
        case("truncate inside", {"a": {"x": [1, 2]}}, {"a": {"x": [1]}}, {}, [], cut("a.x", 1)),
        case("truncate an array in an array", {"a": [0, [1, 2]]}, {"a": [0, [1]]}, {}, [], cut("a.1", 1)),
        case("truncate what does not matter", {"v": {"_id": 1}}, {"v": {"_id": 1}}, {}, [], cut("c.d", 1), cut("v.x", 1)),
        case("truncate, then set", {"a": [1, 2, 3]}, {"a": [9, 2]}, {"a.0": 9}, [], cut("a", 2)),
        case("truncate, then append", {"a": [1, 2, 3]}, {"a": [1, 4]}, {"a.1": 4}, [], cut("a", 1)),
        case("set, then unset", {}, {"a": {"x": 1}}, {"a": {"x": 1, "y": 2}}, ["a.y"]),
        case("truncate, set, unset", {"a": [1, 2, 3]}, {"a": [None, 5]}, {"a.1": 5}, ["a.0"], cut("a", 1)),
        case("a child that matters", {"v": {"_id": 1, "token": 2}}, {"v": {"_id": 3, "token": 2}}, {"v._id": 3}),
        case("a child that does not", {"v": {"_id": 1}}, {"v": {"_id": 1}}, {"v.status": "away", "v.x.y": 1}),
        case("a first child that matters", {"a": 1}, {"a": 1, "v": {"token": 2}}, {"v.token": 2, "v.status": "away"}),
        case("a first child that does not", {"a": 1}, {"a": 1}, {"v.status": "away"}),
        case("the whole parent", {"v": {"_id": 1, "token": 2}}, {"v": {"_id": 3}}, {"v": {"_id": 3, "status": "away"}}),
        case("the parent becomes null", {"v": {"_id": 1}}, {}, {"v": None}),
        case("the parent is unset", {"v": {"_id": 1}}, {}, {}, ["v"]),
        case("a child is unset", {"v": {"_id": 1, "token": 2}}, {"v": {"_id": 1}}, {}, ["v.token", "v.status"]),
        case("inside a child", {"v": {"_id": {"x": 1}}}, {"v": {"_id": {"x": 2}}}, {"v._id.x": 2}),
    ],
)  # fmt: skip
def test_an_update(before: Json, sets: Json, unsets: list[str], cuts: list[Json], after: Json) -> None:
    assert fold({"_id": "x", **before}, change(sets, unsets, cuts), FIELDS) == {"_id": "x", **after}


@pytest.mark.parametrize(
    ("document", "kept"),
    [
        ({}, {}),
        ({"v": {}}, {}),
        ({"v": None}, {}),
        ({"v": "text"}, {}),
        ({"v": [{"_id": 1}]}, {}),
        ({"v": {"token": 1, "_id": 2, "status": 3}}, {"v": {"_id": 2, "token": 1}}),
        ({"v": {"_id": None}}, {"v": {"_id": None}}),
        ({"a": None, "b": {"_id": 1}}, {"a": None, "b": {"_id": 1}}),
        ({"v._id": 1}, {}),
    ],
    ids=["empty", "empty parent", "null parent", "text", "array", "children", "null child", "whole", "name with a dot"],
)
def test_reduced(document: Json, kept: Json) -> None:
    assert reduce(document, FIELDS) == kept


@pytest.mark.parametrize(
    ("sets", "unsets", "touched"),
    [
        ({"servedBy": {}}, [], True),
        ({"servedBy": None}, [], True),
        ({"servedBy._id": "x"}, [], True),
        ({"servedBy.a.b": "x"}, [], True),
        ({"servedByOther": "x"}, [], False),
        ({"v.servedBy": "x"}, [], False),
        ({}, ["servedBy"], False),
        ({"_updatedAt": 1}, ["servedBy._id"], False),
        ({}, [], False),
    ],
    ids=["whole", "null", "inside", "deep inside", "longer name", "elsewhere", "removed", "removed inside", "nothing"],
)
def test_touches(sets: Json, unsets: list[str], touched: bool) -> None:
    assert touches(change(sets, unsets), "servedBy") is touched


# Wide inputs. The keys are few, so that documents overlap, and some look like the index of an array.

LEAVES = st.none() | st.integers(0, 3) | st.sampled_from(["p", "q", ""])
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.sampled_from(["x", "y", "0", "1", "_id"]), inner, max_size=4),
    max_leaves=8,
)
DOCUMENTS = st.fixed_dictionaries({"_id": st.just("x")}, optional=dict.fromkeys(["a", "b", "c", "v"], VALUES))
FEW = st.dictionaries(st.sampled_from(["_id", "token", "status", "x"]), VALUES, max_size=4)
WITH_PARENT = st.builds(lambda document, v: {**document, "v": v}, DOCUMENTS, FEW) | DOCUMENTS


def described(before: Json, after: Json) -> Change:
    """The update description that MongoDB writes when a document becomes another one: its difference, path by path."""
    sets: Json = {}
    unsets: list[str] = []
    cuts: list[Json] = []

    def compare(path: str, old: Any, new: Any) -> None:
        if isinstance(old, dict) and isinstance(new, dict):
            unsets.extend(f"{path}{key}" for key in old if key not in new)
            for key in new:
                if key in old:
                    compare_member(f"{path}{key}", old[key], new[key])
                else:
                    sets[f"{path}{key}"] = new[key]
        else:
            for index, (one, other) in enumerate(zip(old, new, strict=False)):
                compare_member(f"{path}{index}", one, other)
            sets.update({f"{path}{index}": new[index] for index in range(len(old), len(new))})
            if len(new) < len(old):
                cuts.append(cut(path[:-1], len(new)))

    def compare_member(path: str, old: Any, new: Any) -> None:
        if any(isinstance(old, kind) and isinstance(new, kind) for kind in (dict, list)):
            compare(f"{path}.", old, new)
        elif type(old) is not type(new) or old != new:
            sets[path] = new

    compare("", before, after)
    return change(sets, unsets, cuts)


@settings(max_examples=40)
@given(WITH_PARENT, WITH_PARENT)
def test_folding_the_difference_of_two_documents_gives_the_second(before: Json, after: Json) -> None:
    assert fold(reduce(before, FIELDS), described(before, after), FIELDS) == reduce(after, FIELDS)


@settings(max_examples=40)
@given(st.data())
def test_updates_fold_to_what_the_server_stores(data: st.DataObject) -> None:
    stored = data.draw(WITH_PARENT)
    folded: Json | None = reduce(stored, FIELDS)
    for _ in range(3):
        sets, unsets = draw_update(data, stored)
        stored = applied(stored, sets, unsets)
        folded = fold(folded, change(sets, unsets), FIELDS)

    expected = reduce(stored, FIELDS)
    assert folded == expected
    # Custom fields and attachments are passed on in their stored order.
    assert json.dumps({name: folded.get(name) for name in "ab"}) == json.dumps({name: expected.get(name) for name in "ab"})


@settings(max_examples=40)
@given(st.data())
def test_nothing_that_was_given_is_changed(data: st.DataObject) -> None:
    document = data.draw(WITH_PARENT)
    after = data.draw(WITH_PARENT)
    later = described(document, after)
    sets, unsets = draw_update(data, document)
    update_ = change(sets, unsets)
    given_ = (document, update_.updated, update_.removed, later.updated, later.truncated)
    copies = copy.deepcopy(given_)

    first = fold(document, insert(ROOMS, document), FIELDS)
    fold(first, update_, FIELDS)
    second = fold(first, later, FIELDS)
    fold(second, described(after, document), FIELDS)

    assert given_ == copies


@settings(max_examples=40)
@given(WITH_PARENT, WITH_PARENT, WITH_PARENT)
def test_a_result_is_not_changed_by_the_next_fold(one: Json, two: Json, three: Json) -> None:
    second = fold(one, described(one, two), FIELDS)
    kept = copy.deepcopy(second)

    fold(second, described(two, three), FIELDS)

    assert second == kept


def draw_update(data: st.DataObject, document: Json) -> tuple[Json, list[str]]:
    """An update that the server accepts: paths lead through documents and arrays only, and none lies inside another."""
    sets: Json = {}
    unsets: list[str] = []
    for _ in range(data.draw(st.integers(1, 4))):
        path = ".".join(draw_path(data, document))
        others = [*sets, *unsets]
        if any(f"{path}.".startswith(f"{other}.") or f"{other}.".startswith(f"{path}.") for other in others):
            continue
        if data.draw(st.booleans()):
            sets[path] = data.draw(VALUES)
        else:
            unsets.append(path)
    return sets, unsets


def draw_path(data: st.DataObject, document: Json) -> list[str]:
    path = [data.draw(st.sampled_from(["a", "b", "c", "v"]))]
    value = document.get(path[0], {})
    while isinstance(value, dict | list) and data.draw(st.booleans()):
        if isinstance(value, list):
            index = data.draw(st.integers(0, len(value) + 1))
            path.append(str(index))
            value = value[index] if index < len(value) else {}
        else:
            path.append(data.draw(st.sampled_from(["x", "y", "0", "1", "_id", "token"])))
            value = value.get(path[-1], {})
    return path


def test_the_bare_time_of_an_update_changes_nothing() -> None:
    before = {"_id": "x", "a": [1], "v": {"_id": 1}}

    assert fold(before, update(ROOMS, "x"), FIELDS) == before
