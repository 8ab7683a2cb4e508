"""The OpenAPI 3.1 document of the operations: apispec around the JSON Schemas of their pydantic models."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from importlib.metadata import version
from typing import Any, Literal

from apispec import APISpec
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from ...core.job import Json
from .operation import PREFIX, Operation, location_of
from .problems import ProblemReply

Mode = Literal["validation", "serialization"]
REFERENCE = "#/components/schemas/{model}"
DESCRIPTION = """Enqueue jobs and operate the gateway. Times are RFC 3339, spans are seconds, ids are UUIDs.
Errors are RFC 9457 problem documents whose `code` is stable. New fields may be added to replies at any time;
unknown fields in requests are refused."""

REFUSALS = {"400": "A parameter is wrong", "401": "No token, or one that is not known", "403": "Not allowed",
            "503": "Postgres is away; try again after Retry-After seconds"}  # fmt: skip
OF_ONE = {"404": "There is no such thing", "409": "Its state forbids this"}
OF_BODY = {"413": "The body is longer than 1 MiB", "415": "The body is not JSON", "422": "The body is wrong"}


def openapi(operations: Sequence[Operation[Any, Any, Any]]) -> dict[str, Json]:
    """The document, as it is served."""
    spec = APISpec(
        title="Hammerwork",
        version=version("hammerwork"),
        openapi_version="3.1.0",
        info={"description": DESCRIPTION, "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"}},
        servers=[{"url": PREFIX}],
        security=[{"token": []}],
    )
    spec.components.security_scheme("token", {"type": "http", "scheme": "bearer"})
    references, schemas = models_json_schema(sorted(_models(operations), key=str), ref_template=REFERENCE)
    for name, schema in schemas.get("$defs", {}).items():
        spec.components.schema(name, schema)
    for operation in operations:
        spec.path(operation.path, operations={operation.method.lower(): _described(operation, references)})
    return spec.to_dict()


def _models(operations: Sequence[Operation[Any, Any, Any]]) -> set[tuple[type[BaseModel], Mode]]:
    models: set[tuple[type[BaseModel], Mode]] = {(ProblemReply, "serialization")}
    for operation in operations:
        models.add((operation.reply, "serialization"))
        if operation.takes_body:
            models.add((operation.body, "validation"))
    return models


def _described(operation: Operation[Any, Any, Any], references: dict[Any, dict[str, Any]]) -> dict[str, Json]:
    reply = _content("application/json", references[operation.reply, "serialization"])
    problem = _content("application/problem+json", references[ProblemReply, "serialization"])
    described: dict[str, Json] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1]],
        "x-permission": operation.permission,
        "parameters": list(_parameters(operation)),
        "responses": {str(operation.status): {"description": "Done", "content": reply}}
        | {status: {"description": why, "content": problem} for status, why in _refusals(operation).items()},
    }
    if operation.takes_body:
        content = _content("application/json", references[operation.body, "validation"])
        described["requestBody"] = {"required": operation.needs_body, "content": content}
    return described


def _refusals(operation: Operation[Any, Any, Any]) -> dict[str, str]:
    found = dict(REFUSALS)
    if "{" in operation.path:
        found |= OF_ONE
    if operation.method == "POST":
        found |= OF_BODY
    return dict(sorted(found.items()))


def _content(media_type: str, schema: dict[str, Any]) -> dict[str, Json]:
    return {media_type: {"schema": schema}}


def _parameters(operation: Operation[Any, Any, Any]) -> Iterator[dict[str, Json]]:
    schema = operation.parameters.model_json_schema(ref_template=REFERENCE)
    required = schema.get("required", [])
    for name, found in schema.get("properties", {}).items():
        where = location_of(operation, name)
        described = {"name": name, "in": where, "required": where == "path" or name in required}
        if "description" in found:
            described["description"] = found.pop("description")
        yield described | {"schema": found}
