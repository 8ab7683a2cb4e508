"""What a setting is, in words: its type with its bounds, and what stands behind it in its model."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from datetime import timedelta
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePath
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo

from .shape import leaves_of
from .spelling import as_variable

WORDS: Mapping[type, str] = {
    str: "text",
    SecretStr: "secret",
    bool: "true or false",
    int: "whole number",
    float: "number",
    timedelta: "duration",
    ByteSize: "size",
    IPv4Network: "network",
    IPv6Network: "network",
}

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


def type_of(found: FieldInfo) -> str:
    """What a field admits: `whole number, at least 1`."""
    bounds = [f"{BOUNDS[name]} {as_variable(limit)}" for name, limit in _bounds(found)]
    return ", ".join([_type_words(found.annotation), *bounds])


def _bounds(found: FieldInfo) -> Iterator[tuple[str, object]]:
    inner = (leaf for leaf in get_args(found.annotation) if get_origin(leaf) is Annotated)
    hidden = [
        meta for leaf in inner for given in get_args(leaf)[1:] for meta in getattr(given, "metadata", ())
    ]
    for meta in (*found.metadata, *hidden):
        for name in BOUNDS:
            if (limit := getattr(meta, name, None)) is not None:
                yield name, limit


def _type_words(annotation: Any) -> str:
    return " or ".join(
        dict.fromkeys(_words(leaf) for leaf in leaves_of(annotation) if leaf is not type(None))
    )


def _words(leaf: Any) -> str:
    origin, arguments = get_origin(leaf), get_args(leaf)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple, set, frozenset):
        return f"list of {_type_words(arguments[0])}"
    if not isinstance(leaf, type):
        return "table" if origin is dict else "any value"
    if issubclass(leaf, Enum):
        return " or ".join(f"`{member.value}`" for member in leaf)
    if issubclass(leaf, BaseModel | dict):
        return "table"
    if issubclass(leaf, PurePath):
        return "path"
    return next((words for kind, words in WORDS.items() if leaf is kind), leaf.__name__)


def docs_of(model: type[BaseModel]) -> dict[str, str]:
    """What stands behind each field of the model, and of those that it inherits from: its description, or the
    docstring after it."""
    docs: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            docs |= _docstrings(base)
    said = {name: info.description for name, info in model.model_fields.items() if info.description}
    return {**docs, **said}


def _docstrings(model: type[BaseModel]) -> dict[str, str]:
    try:
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(model))).body
    except (OSError, SyntaxError, ValueError):
        return {}  # its source is not there
    assert isinstance(tree, ast.ClassDef)
    docs = {}
    for field, text in zip(tree.body, tree.body[1:], strict=False):
        match field, text:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str() as said)):
                docs[name] = " ".join(inspect.cleandoc(said).split())
    return docs
