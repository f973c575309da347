"""The aggregation pipeline that runs inside MongoDB, so that only what matters crosses the network."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from daemon.model import Watch

_ENVELOPE = ("operationType", "ns.coll", "documentKey._id", "clusterTime", "wallTime")


def pipeline(watches: Sequence[Watch]) -> list[dict[str, Any]]:
    """Stages to follow `$changeStream`: choose collections and operations, keep the fields, drop updates that then say nothing.

    The first stage uses plain comparisons only, which MongoDB 6.0 and later turns into a filter on the oplog itself.
    """
    fields = sorted({f"fullDocument.{field}" for watch in watches for field in watch.fields})
    return [
        {"$match": {"$or": [_match(watch) for watch in watches]}},
        {
            "$project": {
                **dict.fromkeys((*_ENVELOPE, *fields), 1),
                "updateDescription": {
                    "updatedFields": _by_collection(watches, _kept_updates),
                    "removedFields": _by_collection(watches, _kept_removals),
                    "truncatedArrays": "$updateDescription.truncatedArrays",
                },
                # Every update sets it: carried along, but no reason to read a change.
                "updatedAt": "$updateDescription.updatedFields._updatedAt",
            }
        },
        {
            "$match": {
                "$or": [
                    {"operationType": {"$ne": "update"}},
                    {"updateDescription.updatedFields": {"$ne": {}}},
                    {"updateDescription.removedFields": {"$ne": []}},
                    {"updateDescription.truncatedArrays.0": {"$exists": True}},
                ]
            }
        },
    ]


def _match(watch: Watch) -> dict[str, Any]:
    match: dict[str, Any] = {"ns.coll": watch.collection}
    if watch.ids is not None:
        match["documentKey._id"] = {"$in": list(watch.ids)}
    if watch.update_sets is None:
        return {**match, "operationType": {"$in": list(watch.operations)}}
    others = [operation for operation in watch.operations if operation != "update"]
    return {
        **match,
        "$or": [
            {"operationType": {"$in": others}},
            {"operationType": "update", f"updateDescription.updatedFields.{watch.update_sets}": {"$exists": True}},
        ],
    }


def _by_collection(watches: Sequence[Watch], kept: Any) -> dict[str, Any]:
    # One constant regular expression per branch: MongoDB compiles a constant once and a computed one for every change.
    branches = [{"case": {"$ne": ["$operationType", "update"]}, "then": "$$REMOVE"}]
    branches += [{"case": {"$eq": ["$ns.coll", watch.collection]}, "then": kept(_pattern(watch))} for watch in watches]
    return {"$switch": {"branches": branches, "default": "$$REMOVE"}}


def _kept_updates(pattern: str) -> dict[str, Any]:
    pairs = {"$objectToArray": "$updateDescription.updatedFields"}
    matches = {"$regexMatch": {"input": "$$this.k", "regex": pattern}}
    return {"$arrayToObject": {"$filter": {"input": pairs, "cond": matches}}}


def _kept_removals(pattern: str) -> dict[str, Any]:
    matches = {"$regexMatch": {"input": "$$this", "regex": pattern}}
    return {"$filter": {"input": "$updateDescription.removedFields", "cond": matches}}


def _pattern(watch: Watch) -> str:
    """Matches a dotted path inside one of the fields, and a parent that is set as a whole."""
    inside = "|".join(re.escape(field) for field in watch.fields)
    parents = "|".join(sorted({re.escape(field.partition(".")[0]) for field in watch.fields if "." in field}))
    return rf"^(?:(?:{inside})(?:\.|$){rf'|(?:{parents})$' if parents else ''})"
