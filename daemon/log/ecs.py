"""Lines as the Elastic Common Schema names things; what is only ours is under `livechat_relay`."""

from __future__ import annotations

from collections.abc import MutableMapping
from importlib.metadata import version
from typing import Any

from daemon.log.traces import as_text

_VERSION = "8.11.0"
_SERVICE = {"name": "livechat-relay", "version": version("rocketchat-livechat-relay")}
_NANOSECONDS = 1_000_000_000


def to_ecs(_logger: object, _method: str, line: MutableMapping[str, Any]) -> dict[str, Any]:
    """What the schema knows gets its name and type there: time, level, event, stage, reason, error, exception, duration."""
    fields = dict(line)
    name = fields.pop("event")
    stage = fields.pop("stage", "app")
    event: dict[str, Any] = {"action": name, "dataset": f"livechat_relay.{stage}"}
    found: dict[str, Any] = {
        "@timestamp": fields.pop("timestamp"),
        "log.level": fields.pop("level"),
        "message": name,
        "ecs.version": _VERSION,
        "log.logger": f"livechat_relay.{stage}",
        "service": _SERVICE,
        "event": event,
    }
    if "message" in fields:  # of a library
        found["message"] = str(fields.pop("message"))
    if isinstance(fields.get("reason"), str):
        event["reason"] = fields.pop("reason")
    if "duration_s" in fields:
        event["duration"] = round(fields.pop("duration_s") * _NANOSECONDS)
    error = _error(fields)
    if error:
        found["error"] = error
    if fields:
        found["livechat_relay"] = fields
    return found


def _error(fields: dict[str, Any]) -> dict[str, str]:
    error: dict[str, str] = {}
    trace = fields.pop("exception", None)
    if trace:
        error = {"type": trace[0]["type"], "stack_trace": as_text(trace)}
        if trace[0].get("text"):
            error["message"] = trace[0]["text"]
    for name in ("problem", "error"):
        if name in fields:
            error["message"] = str(fields.pop(name))
    return error
