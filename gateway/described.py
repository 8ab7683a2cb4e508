"""Every setting as data, read off the models that check the settings: variable, type, default and words."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ByteSize, SecretStr
from pydantic.fields import FieldInfo

from ..core.errors import MissingExtra
from . import catalog
from .fitting import MASK, SECRET_NAME, shape_of, span_text
from .origins import Place, variable_for
from .reference import docs_of, type_words
from .settings import NAME, OPTIONS, BridgeSettings, Kinds, Settings, SinkSettings

ANY_NAME = "NAME"
KINDS: Mapping[str, tuple[type[BaseModel], Kinds]] = {
    "bridges": (BridgeSettings, catalog.bridges),
    "sinks": (SinkSettings, catalog.sinks),
}
"""The tables whose members are of types, each with what all of a sort have, and the types."""

BOUNDS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One setting. `default` as a variable would be written; empty: none, or a secret."""

    place: Place
    type: str
    default: str
    required: bool
    secret: bool
    words: str

    @property
    def variable(self) -> str:
        return variable_for(self.place)


@dataclass(frozen=True, slots=True, kw_only=True)
class DescribedTable:
    """A table of the settings with all that may stand in it and beneath it. `kind`: the type of bridge or
    sink that has these options."""

    place: Place
    words: str
    settings: tuple[Described, ...]
    kind: str | None = None


def tables() -> Iterator[DescribedTable]:
    """Every table, with the options of every type that is installed; those of a type stand under its name."""
    for key, model in plain_sections().items():
        yield _table(model, (key,))
    for section, (common, kinds) in KINDS.items():
        yield _table(common, (section, ANY_NAME))
        for name, options in installed(kinds).items():
            yield _table(options, (section, name if NAME.fullmatch(name) else ANY_NAME), kind=name)


def plain_sections() -> dict[str, type[BaseModel]]:
    """The tables that are of one model."""
    sections: dict[str, type[BaseModel]] = {}
    for key, found in Settings.model_fields.items():
        if key not in KINDS:
            (sections[key],) = shape_of(found.annotation).models
    return sections


def installed(kinds: Kinds) -> dict[str, type[BaseModel]]:
    """The types that can be used here, with their options: not those whose extra is missing."""
    found: dict[str, type[BaseModel]] = {}
    for name in kinds.names():
        with suppress(MissingExtra):
            found[name] = kinds.find(name).options
    return found


def as_variable(value: object) -> str:
    """A value as a variable would be written; secrets are masked."""
    match value:
        case None:
            return ""
        case SecretStr():
            return MASK if value.get_secret_value() else ""
        case bool():
            return str(value).lower()
        case timedelta():
            return span_text(value)
        case ByteSize():
            return _size(value)
        case Enum():
            return str(value.value)
        case list() | tuple() | frozenset() | set():
            members = [as_variable(member) for member in value]
            if any(isinstance(member, BaseModel) for member in value) or any("," in m for m in members):
                return json.dumps([as_json(member) for member in value])
            return ",".join(members)
        case dict() | BaseModel():
            return json.dumps(as_json(value))
        case _:
            return str(value)


def _size(size: int) -> str:
    """The size in its largest whole unit."""
    for unit, count in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size and size % count == 0:
            return f"{size // count}{unit}"
    return str(int(size))


def as_json(value: object) -> Any:
    """A value as a file or a JSON variable would give it; secrets are masked."""
    match value:
        case BaseModel():
            return {
                found.alias or key: as_json(getattr(value, key))
                for key, found in type(value).model_fields.items()
                if getattr(value, key) is not None
            }
        case dict():
            return {key: as_json(member) for key, member in value.items()}
        case list() | tuple():
            return [as_json(member) for member in value]
        case str() | bool() | int() | float() if not isinstance(value, ByteSize | Enum):
            return value
        case _:
            return as_variable(value)


def _table(model: type[BaseModel], place: Place, kind: str | None = None) -> DescribedTable:
    said = inspect.cleandoc(model.__doc__ or "")
    first = said.split("\n\n")[0].replace("\n", " ").partition(": ")
    return DescribedTable(
        place=place, words=first[2] or first[0], settings=tuple(_settings(model, place)), kind=kind
    )


def _settings(model: type[BaseModel], place: Place) -> Iterator[Described]:
    words = docs_of(model)
    for key, found in model.model_fields.items():
        if key == OPTIONS or found.init is False:
            continue
        here = (*place, found.alias or key)
        shape = shape_of(found.annotation)
        if len(shape.models) == 1 and not shape.leaves - {type(None)} and shape.item is shape.value is None:
            yield from _settings(shape.models[0], here)
            continue
        secret = shape.secret or SECRET_NAME.search(here[-1]) is not None
        yield Described(
            place=here,
            type=_type(found),
            default="" if found.is_required() else as_variable(found.get_default(call_default_factory=True)),
            required=found.is_required(),
            secret=secret,
            words=words.get(key, ""),
        )


def _type(found: FieldInfo) -> str:
    bounds = [f"{BOUNDS[name]} {as_variable(limit)}" for name, limit in _bounds(found)]
    return ", ".join([type_words(found.annotation), *bounds])


def _bounds(found: FieldInfo) -> Iterator[tuple[str, object]]:
    inner = (leaf for leaf in get_args(found.annotation) if get_origin(leaf) is Annotated)
    hidden = [
        meta for leaf in inner for given in get_args(leaf)[1:] for meta in getattr(given, "metadata", ())
    ]
    for meta in (*found.metadata, *hidden):
        for name in BOUNDS:
            if (limit := getattr(meta, name, None)) is not None:
                yield name, limit
