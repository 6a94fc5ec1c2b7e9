"""The OpenAPI 3.1 document, made of the tables of operations: nothing in it is written a second time.

The schemas are those of the Structs that the handlers read and answer. The refusals of an operation are the
problems of its reasons, as they are answered.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

import gateway
from gateway.admin.documents import Problem
from gateway.problems import PROBLEMS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from gateway.admin.operation import Operation

_REF = "#/components/schemas/{name}"
_ETAG = {"description": "The state of the record.", "schema": {"type": "string"}}
_LOCATION = {"description": "Where it is.", "schema": {"type": "string"}}
_LINK = {"description": "The next page, rel=next, if there is one.", "schema": {"type": "string"}}
_ALLOW = {"description": "The methods of this path.", "schema": {"type": "string"}}
_TEXTS = {200: "Done.", 201: "Made.", 202: "Made; a worker may act on what was before until `sure_at`."}
_IDEMPOTENCY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "With it, the request can be sent again and is carried out once within a day.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def document_of(operations: Sequence[Operation], *, path: str) -> dict[str, Any]:
    """The document of these operations, whose paths are below this one."""
    kinds: list[Any] = [Problem]
    for one in operations:
        kinds += [one.reply, one.query, *([] if one.body is None else [one.body])]
    (*_,), components = msgspec.json.schema_components(dict.fromkeys(kinds), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for one in operations:
        paths.setdefault(path + one.path, {})[one.method.lower()] = _operation(one, components)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Cachegate administration",
            "version": gateway.__version__,
            "description": "The operations of the commands, for administering keys.",
        },
        "servers": [{"url": "/"}],
        "security": [{"key": []}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "An administering key, or an access token made for one.",
                }
            },
        },
    }


def _operation(one: Operation, components: dict[str, Any]) -> dict[str, Any]:
    document: dict[str, Any] = {
        "operationId": one.action.value,
        "summary": one.summary,
        "description": f"Needs the action `{one.action.value}`.",
        "x-cachegate-action": one.action.value,
        "tags": [one.path.split("/")[1]],
        "parameters": _parameters(one, components),
        "responses": {**_answers(one), **_refusals(one)},
    }
    if one.body is not None:
        document["requestBody"] = {
            "required": not one.is_body_optional,
            "content": {"application/json": {"schema": _schema_of(one.body)}},
        }
    return document


def _parameters(one: Operation, components: dict[str, Any]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    if "{id}" in one.path:
        schema = {"type": "string", "minLength": 1}
        found.append({"name": "id", "in": "path", "required": True, "schema": schema})
    query = components[one.query.__name__]
    for name, schema in query["properties"].items():
        found.append(
            {
                "name": name,
                "in": "query",
                "required": name in query.get("required", ()),
                "schema": _set(schema),
            }
        )
    if one.has_etag:
        found.append(
            {
                "name": "If-Match",
                "in": "header",
                "required": one.needs_match,
                "description": "The ETag of the state that is meant.",
                "schema": {"type": "string"},
                "example": '"17"',
            }
        )
    if one.takes_idempotency_key:
        found.append(_IDEMPOTENCY)
    return found


def _set(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a parameter that is there: in a query, nothing is null."""
    some = [one for one in schema.get("anyOf", ()) if one.get("type") != "null"]
    return some[0] if len(some) == 1 else {name: value for name, value in schema.items() if name != "default"}


def _answers(one: Operation) -> dict[str, Any]:
    headers: dict[str, Any] = {}
    if one.has_etag:
        headers["ETag"] = _ETAG
    if one.creates:
        headers["Location"] = _LOCATION
    if "after" in one.query.__struct_fields__:
        headers["Link"] = _LINK
    content = {"application/json": {"schema": _schema_of(one.reply)}}
    return {
        str(status): {"description": _TEXTS[status], "headers": headers, "content": content}
        for status in one.statuses
    }


def _refusals(one: Operation) -> dict[str, Any]:
    by_status: dict[int, dict[str, str]] = {}
    for reason in one.refusals:
        problem = PROBLEMS[reason]
        by_status.setdefault(problem.status, {})[problem.kind] = problem.title
    schema = {"application/problem+json": {"schema": _schema_of(Problem)}}
    return {
        str(status): {
            "description": "; ".join(f"{title} ({kind})" for kind, title in sorted(kinds.items())),
            "headers": {"Allow": _ALLOW} if status == 405 else {},  # noqa: PLR2004 -- HTTP
            "content": schema,
        }
        for status, kinds in sorted(by_status.items())
    }


def _schema_of(kind: Any) -> dict[str, Any]:
    [schema], _ = msgspec.json.schema_components([kind], ref_template=_REF)
    return schema
