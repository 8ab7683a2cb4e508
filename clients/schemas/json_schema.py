"""JSON bodies that must fit a JSON Schema, by jsonschema; nothing is ever fetched for a `$ref`."""

from __future__ import annotations

import json

import referencing.exceptions
from jsonschema.exceptions import ValidationError
from jsonschema.validators import Draft7Validator, validator_for
from jsonschema_specifications import REGISTRY as SPECIFICATIONS  # type: ignore[import-untyped]
from referencing import Resource
from referencing.jsonschema import DRAFT7, SchemaRegistry

from ...core.errors import BadMessage
from ...core.ingest.decode import Plain
from ...core.job import Json
from .schema import Schema, unusable


class JsonSchemaCodec:
    """Checks JSON bodies; raises BadMessage(unusable_schema) for a schema that is none. Draft 7 where the
    schema names no other draft."""

    def __init__(self, schema: Schema) -> None:
        try:
            loaded = json.loads(schema.text)
            kind = validator_for(loaded, default=Draft7Validator)
            kind.check_schema(loaded)
            resources: SchemaRegistry = SPECIFICATIONS
            for name, dependency in schema.dependencies():
                resource = Resource.from_contents(json.loads(dependency.text), default_specification=DRAFT7)
                resources = resources.with_resource(name, resource)
                if (own := resource.id()) is not None:
                    resources = resources.with_resource(own, resource)
            self._validator = kind(loaded, registry=resources, format_checker=kind.FORMAT_CHECKER)
        except Exception as error:
            raise unusable(f"{type(error).__name__}: {error}") from error

    def plain(self, body: bytes) -> Plain:
        return Plain(body, self._check)

    def _check(self, value: Json) -> None:
        try:
            fault = next(self._validator.iter_errors(value), None)
        except referencing.exceptions.Unresolvable as error:
            raise unusable(f"it refers to {error.ref!r}, which is not there") from error
        except RecursionError as error:
            raise BadMessage("too_deep", "for its schema") from error
        except Exception as error:
            raise unusable(f"{type(error).__name__}: {error}") from error
        if fault is not None:
            raise BadMessage("schema_violation", _described(fault))


def _described(fault: ValidationError) -> str:
    """Where and what, without more of the message than a line of it."""
    return f"{fault.json_path}: {fault.message[:300]}"
