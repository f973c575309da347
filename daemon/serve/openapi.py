"""The OpenAPI description of the API, made from its calls."""

from __future__ import annotations

from functools import cache
from typing import Any

from pydantic import TypeAdapter

from daemon.serve.api import PREFIX, Operation, Token
from daemon.serve.calls import Refusal

_REFUSALS = {
    400: "A parameter is wrong.",
    401: "The token is missing or wrong.",
    403: "No token is configured, or the Host header names another address.",
    404: "There is no such event.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    503: "The outbox cannot be read or written at the moment, or the call takes too long.",
}


@cache
def describe(operations: tuple[Operation, ...], version: str) -> dict[str, Any]:
    """The whole description. Making it takes a while, once."""
    answers = [("answer " + operation.name, "serialization", TypeAdapter(operation.answer)) for operation in operations]
    bodies = [("body " + operation.name, "validation", TypeAdapter(operation.given)) for operation in operations]
    refusal = ("refusal", "serialization", TypeAdapter(Refusal))
    schemas, definitions = TypeAdapter.json_schemas(
        [*answers, *bodies, refusal],  # type: ignore[list-item]
        ref_template="#/components/schemas/{model}",
    )
    found = {key: schema for (key, _), schema in schemas.items()}
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(PREFIX + operation.path, {})[operation.method.lower()] = _operation(operation, found)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "livechat-relay",
            "version": version,
            "description": "What is owed, dead and delivered, and the state of the relay.",
        },
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "serve.api_token"}},
        },
    }


def _operation(operation: Operation, schemas: dict[Any, Any]) -> dict[str, Any]:
    answer = schemas["answer " + operation.name]
    refusals = sorted({400, 401, 403, *operation.refusals})
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": {
            "200": {"description": "Done.", "content": {"application/json": {"schema": answer}}},
            **{
                str(status): {
                    "description": _REFUSALS[status],
                    "content": {"application/json": {"schema": schemas["refusal"]}},
                }
                for status in refusals
            },
        },
    }
    if operation.token is not Token.NEVER:
        described["security"] = [{"token": []}] if operation.token is Token.ALWAYS else [{}, {"token": []}]
    if operation.method == "POST":
        schema = schemas["body " + operation.name]
        described["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    elif parameters := _parameters(operation):
        described["parameters"] = parameters
    return described


def _parameters(operation: Operation) -> list[dict[str, Any]]:
    in_path = [part[1:-1] for part in operation.path.split("/") if part.startswith("{")]
    schema = TypeAdapter(operation.given).json_schema(ref_template="#/components/schemas/{model}")
    return [
        *({"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in in_path),
        *(
            {"name": name, "in": "query", "description": member.pop("description", ""), "schema": member}
            for name, member in schema.get("properties", {}).items()
        ),
    ]
