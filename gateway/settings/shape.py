"""What the fields of a pydantic model may hold, as far as reading them matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, SecretStr


@dataclass(frozen=True, slots=True)
class Shape:
    """What a field may hold, as far as reading it matters."""

    models: tuple[type[BaseModel], ...]
    item: Any = None
    """The type of a list's members; None where the field is no list."""
    value: Any = None
    """The type of a table's values; None where the field is no free table."""
    leaves: frozenset[Any] = frozenset()

    @property
    def secret(self) -> bool:
        return SecretStr in self.leaves or (self.item is not None and shape_of(self.item).secret)


def shape_of(annotation: Any) -> Shape:
    """The shape that a type annotation describes."""
    models, item, value, leaves = [], None, None, set()
    for leaf in leaves_of(annotation):
        origin, arguments = get_origin(leaf), get_args(leaf)
        if origin in (list, tuple, set, frozenset, Sequence):
            item = arguments[0]
        elif origin in (dict, Mapping):
            value = arguments[1]
        elif isinstance(leaf, type) and issubclass(leaf, BaseModel):
            models.append(leaf)
        else:
            leaves.add(leaf)
    return Shape(models=tuple(models), item=item, value=value, leaves=frozenset(leaves))


def leaves_of(annotation: Any) -> Iterator[Any]:
    """The members of a union, or the annotation itself; what Annotated adds is left out."""
    origin = get_origin(annotation)
    if origin is Annotated:
        yield from leaves_of(get_args(annotation)[0])
    elif origin in (Union, UnionType):
        for member in get_args(annotation):
            yield from leaves_of(member)
    else:
        yield annotation


def keys_of(model: type[BaseModel]) -> dict[str, Any]:
    """The keys that a table of this model may have, with their annotations."""
    keys = {}
    for name, found in model.model_fields.items():
        if found.init is not False:
            keys[found.alias or name] = found.annotation
    return keys
