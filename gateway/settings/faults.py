"""What pydantic refuses, one line a fault: what was given, what is allowed, and where it came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from .masking import SECRET_NAME
from .shape import keys_of, shape_of
from .spelling import shown
from .tree import Tree
from .variables import Place, variable_for

TABLE_WANTED = frozenset({"model_type", "model_attributes_type", "dict_type"})
"""What pydantic calls the fault where something else stands in place of a table."""


def fault_lines(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, object], place: Place, tree: Tree
) -> Iterator[str]:
    """What is wrong with the table at `place`, of which `given` was to become the model."""
    by_place: dict[Place, list[ErrorDetails]] = {}
    for details in error.errors(include_url=False):
        by_place.setdefault(_inside(given, details), []).append(details)
    for inner, found in by_place.items():
        where = (*place, *inner)
        if found[0]["type"] == "missing":
            table = ".".join(where[:-1])
            yield f"{table}.{where[-1]} is missing: set {variable_for(where)}, or `{where[-1]}` in [{table}]"
            continue
        # A union that also takes tables says so for every member: the plain ones are what was meant.
        plain = [details for details in found if details["type"] not in TABLE_WANTED] or found[:1]
        allowed = " or ".join(dict.fromkeys(wanted(details) for details in plain))
        value = found[0].get("input")
        said = f" is {shown(value, secret=_is_secret(model, inner))}:" if _is_plain(value) else ":"
        yield f"{'.'.join(where)}{said} {allowed} ({tree.origin(where)})"


def wanted(details: ErrorDetails) -> str:
    """What pydantic would have taken, in the words of the house."""
    context = details.get("ctx") or {}
    match details["type"]:
        case "literal_error" | "enum":
            return f"must be {context['expected']}"
        case "value_error" | "assertion_error":
            return str(context["error"])
        case "time_delta_parsing" | "time_delta_type":
            return "must be a duration such as 250ms, 30s, 5m, 2h or 7d"
        case "byte_size":
            return "must be a size such as 64KiB or 8MiB"
        case "int_parsing" | "int_type" | "int_from_float":
            return "must be a whole number"
        case "string_type":
            return "must be text"
        case "uuid_parsing" | "uuid_type":
            return "must be an id such as 01994c2e-7c1d-7b3a-9f00-3c5a2f1b8e44"
        case "datetime_parsing" | "datetime_from_date_parsing" | "datetime_type":
            return "must be a time such as 2026-11-23T18:00:00Z"
        case kind if kind in TABLE_WANTED:
            return "must be a table"
        case "list_type" | "tuple_type" | "set_type" | "frozen_set_type":
            return "must be a list"
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case _:
            return re.sub(r"^\w+ should", "must", details["msg"])


def _inside(given: object, details: ErrorDetails) -> Place:
    """The place of a fault in what was given: pydantic's own, without the tags of union members."""
    place: list[str] = []
    last = len(details["loc"]) - 1
    for index, part in enumerate(details["loc"]):
        match given:
            case dict() if part in given:
                given = given[part]
            case list() if isinstance(part, int):
                given = given[part]
            case _ if not (index == last and details["type"] == "missing"):
                continue
        place.append(str(part))
    return tuple(place)


def _is_plain(value: object) -> bool:
    return isinstance(value, str | int | float | bool | timedelta | SecretStr)


def _is_secret(model: type[BaseModel], place: Place) -> bool:
    annotation: Any = model
    for part in place:
        if SECRET_NAME.search(part):
            return True
        shape = shape_of(annotation)
        if shape.secret:
            return True
        if shape.item is not None and part.isdigit():
            annotation = shape.item
        elif shape.value is not None:
            annotation = shape.value
        else:
            members = [keys_of(m)[part] for m in shape.models if part in keys_of(m)]
            if not members:
                return False
            annotation = members[0]
    return shape_of(annotation).secret
