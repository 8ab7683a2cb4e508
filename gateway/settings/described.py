"""Every setting as data, read off the models that check the settings: place, type, default and words."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from dataclasses import dataclass

from pydantic import BaseModel

from .everything import NAME, NAMED, OPTIONS, Settings
from .masking import SECRET_NAME
from .shape import shape_of
from .variables import Place, variable_for
from .words import docs_of, type_of

ANY_NAME = "NAME"
"""Stands for the name of a bridge or sink."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """One setting. `is_table`: it has no value of its own, what may stand in it follows."""

    place: Place
    type: str
    default: object
    required: bool
    secret: bool
    is_table: bool
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
    for key, model in plain_tables().items():
        yield _table(model, (key,))
    for section, (common, kinds) in NAMED.items():
        yield _table(common, (section, ANY_NAME))
        for kind in kinds.usable():
            name = kind.name if NAME.fullmatch(kind.name) else ANY_NAME
            yield _table(kind.options, (section, name), kind=kind.name)


def plain_tables() -> dict[str, type[BaseModel]]:
    """The models of the tables whose members have no names."""
    found: dict[str, type[BaseModel]] = {}
    for key, field in Settings.model_fields.items():
        if key not in NAMED:
            (found[key],) = shape_of(field.annotation).models
    return found


def described(model: type[BaseModel], place: Place) -> Iterator[Described]:
    """What may stand in a table of this model, each inner table before what may stand in it."""
    words = docs_of(model)
    for key, found in model.model_fields.items():
        if key == OPTIONS or found.init is False:
            continue
        here = (*place, found.alias or key)
        shape = shape_of(found.annotation)
        one_table = len(shape.models) == 1
        yield Described(
            place=here,
            type=type_of(found),
            default=None
            if found.is_required()
            else found.get_default(call_default_factory=True, validated_data={}),
            required=found.is_required(),
            secret=shape.secret or SECRET_NAME.search(here[-1]) is not None,
            is_table=one_table and not shape.leaves - {type(None)} and shape.item is shape.value is None,
            words=words.get(key, ""),
        )
        if one_table:
            yield from described(shape.models[0], here)


def _table(model: type[BaseModel], place: Place, kind: str | None = None) -> DescribedTable:
    said = inspect.cleandoc(model.__doc__ or "")
    first = said.split("\n\n")[0].replace("\n", " ").partition(": ")
    return DescribedTable(
        place=place, words=first[2] or first[0], settings=tuple(described(model, place)), kind=kind
    )
