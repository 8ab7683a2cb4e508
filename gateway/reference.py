"""What a type of bridge or sink can be told, read off the model of its options, for people and programs."""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import timedelta
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from pathlib import PurePath
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaMode, JsonSchemaValue
from pydantic_core import PydanticUndefined, core_schema

from ..core.event import SinkCapabilities
from ..core.job import Json
from ..core.message import BridgeCapabilities
from .catalog import Kind
from .fitting import leaves_of, shape_of, shown
from .origins import Place, variable_for

NAME = "NAME"
"""Stands for the name of a bridge or sink in variables and tables."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One option of a plugin. `default` is None where the option must be given."""

    name: str
    type: str
    default: str | None
    variable: str
    doc: str


def options_of(model: type[BaseModel], section: str) -> list[Option]:
    """The options of a type in `section` (`bridges`, `sinks`), those of inner tables after their table."""
    return list(_options(model, (section, NAME), ()))


def _options(model: type[BaseModel], place: Place, inside: Place) -> Iterator[Option]:
    docs = docs_of(model)
    for field, info in model.model_fields.items():
        key = info.alias or field
        path = (*inside, key)
        yield Option(
            name=".".join(path),
            type=type_words(info.annotation),
            default=_default(info),
            variable=_variable((*place, *path)),
            doc=docs.get(field, ""),
        )
        tables = shape_of(info.annotation).models
        if len(tables) == 1:
            yield from _options(tables[0], place, path)


def _variable(path: Place) -> str:
    section, name, *rest = path
    return variable_for((section, name.lower(), *rest)).replace(f"__{name}__", f"__{NAME}__")


def _default(info: FieldInfo) -> str | None:
    if info.is_required():
        return None
    value = info.get_default(call_default_factory=True, validated_data={})
    if value is PydanticUndefined or isinstance(value, BaseModel):
        return ""
    return shown(value)


def type_words(annotation: Any) -> str:
    """What an annotation admits, in the words of the house."""
    return " or ".join(
        dict.fromkeys(_words(leaf) for leaf in leaves_of(annotation) if leaf is not type(None))
    )


def _words(leaf: Any) -> str:
    origin, arguments = get_origin(leaf), get_args(leaf)
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (list, tuple, set, frozenset):
        return f"list of {type_words(arguments[0])}"
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


# --- as JSON Schema ------------------------------------------------------------------------------


class SettingsSchema(GenerateJsonSchema):
    """As settings read values: durations and sizes are text with a unit, or numbers."""

    def timedelta_schema(self, schema: core_schema.TimedeltaSchema) -> JsonSchemaValue:
        return {"type": ["string", "number"], "examples": ["250ms", "30s", "2h"]}

    def generate(
        self, schema: core_schema.CoreSchema, mode: JsonSchemaMode = "validation"
    ) -> JsonSchemaValue:
        made = super().generate(schema, mode)
        made["$schema"] = self.schema_dialect
        return made


def schema_of(model: type[BaseModel]) -> dict[str, Json]:
    """The options as JSON Schema 2020-12, documented."""
    schema = model.model_json_schema(schema_generator=SettingsSchema)
    tables = {table.__name__: table for table in _tables(model)}
    _document(schema, model)
    for name, inner in schema.get("$defs", {}).items():
        if name in tables:
            _document(inner, tables[name])
    return schema


def _tables(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    for info in model.model_fields.values():
        for table in shape_of(info.annotation).models:
            yield table
            yield from _tables(table)


def _document(schema: dict[str, Json], model: type[BaseModel]) -> None:
    docs = docs_of(model)
    for field, info in model.model_fields.items():
        member = schema.get("properties", {}).get(info.alias or field)
        if member is not None and docs.get(field):
            member["description"] = docs[field]


# --- for people ----------------------------------------------------------------------------------


def said_of(capabilities: BridgeCapabilities | SinkCapabilities | None) -> dict[str, str]:
    """What a type declares of itself, a word or two each."""
    if capabilities is None:
        return {}
    return {name.replace("_", " "): _said(value) for name, value in asdict(capabilities).items()}


def _said(value: object) -> str:
    match value:
        case bool():
            return "yes" if value else "no"
        case None:
            return "no limit"
        case frozenset():
            return ", ".join(sorted(value)) or "nothing"
        case _:
            return str(value)


def summary_of(kind: Kind[Any]) -> str:
    """The first paragraph of what the type says of itself."""
    return " ".join((inspect.getdoc(kind.factory) or "").partition("\n\n")[0].split())


def markdown_of(kind: Kind[Any], section: str, what: str) -> str:
    """A page about the type: what it is, what it can, how it is set."""
    lines = [f"# {kind.name}: a {what}", "", summary_of(kind), ""]
    lines += ["```toml", f"[{section}.{NAME.lower()}]", f'type = "{kind.name}"', "```", ""]
    if capabilities := said_of(kind.capabilities):
        lines += ["| capability | |", "|---|---|", *(f"| {k} | {v} |" for k, v in capabilities.items()), ""]
    lines += ["| option | type | default | |", "|---|---|---|---|"]
    for option in options_of(kind.options, section):
        default = "(required)" if option.default is None else option.default and f"`{option.default}`"
        cells = (f"`{option.name}`", option.type, default, option.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", f"Each may be set by a variable: `{_variable((section, NAME, 'option')).upper()}`."]
    return "\n".join(lines)
