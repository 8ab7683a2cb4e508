"""From the tree of given values to pydantic models: unknown keys, secrets from files, durations and JSON in
variables are dealt with here, and every fault becomes one line that names its source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ...core.errors import Misconfigured
from ..spans import span_of
from .faults import fault_lines
from .shape import Shape, keys_of, shape_of
from .spelling import json_table, read_list
from .tree import Origin, Tree
from .variables import SHORT_FORMS, Place, variable_for

M = TypeVar("M", bound=BaseModel)


class Fitter:
    """Turns tables of a tree into models; faults gather in the tree, so that all are told at once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def model(self, model: type[M], table: object, place: Place) -> M | None:
        """The table as a model. Faults are noted in the tree, and then what comes back does not count."""
        if (checked := self.table(table, place)) is None:
            return None
        return self.validated(model, self.fit(keys_of(model), checked, place), place)

    def table(self, value: object, place: Place) -> dict[str, object] | None:
        """The value when it is a table, or a variable's JSON object; else a fault."""
        match value:
            case dict():
                return value
            case str() if (table := json_table(value)) is not None:
                return table
            case _:
                self.fault(place, "must be a table")
                return None

    def validated(self, model: type[M], fitted: Mapping[str, object], place: Place) -> M | None:
        """The model of values that `fit` answered, or None and its faults."""
        try:
            return model.model_validate(dict(fitted))
        except ValidationError as error:
            known = len(self._tree.faults)
            for line in fault_lines(error, model, fitted, place, self._tree):
                if line not in self._tree.faults[:known]:
                    self._tree.faults.append(line)
        except Misconfigured as error:
            self.fault(place, f"{error}" + (f" ({error.hint})" if error.hint else ""))
        return None

    def fault(self, place: Place, what: str) -> None:
        """Note that the value at `place` is wrong."""
        self._tree.faults.append(f"{'.'.join(place)} {what} ({self._tree.origin(place)})")

    def fit(self, known: Mapping[str, Any], table: Mapping[str, object], place: Place) -> dict[str, object]:
        """The values of a table as pydantic takes them. `known` are its keys and their annotations;
        others become faults with the nearest match."""
        fitted: dict[str, object] = {}
        overruled = self._overruled(known, table, place)
        for key, value in table.items():
            if key in overruled:
                continue
            if key in known:
                fitted[key] = self._value(known[key], value, (*place, key))
            elif _names_secret_file(key, known):
                self._read_secret(key, value, known, fitted, place)
            else:
                self._tree.faults.append(self._unknown((*place, key), known))
        return fitted

    def _value(self, annotation: Any, value: object, place: Place) -> object:
        shape = shape_of(annotation)
        if isinstance(value, str):
            value = self._text(shape, value, place)
        match value:
            case dict() if shape.models:
                return self.fit(keys_of(_likeliest(shape.models, value)), value, place)
            case dict() if shape.value is not None:
                return {key: self._value(shape.value, v, (*place, key)) for key, v in value.items()}
            case list() if shape.item is not None:
                return [self._value(shape.item, v, (*place, str(i))) for i, v in enumerate(value)]
            case _:
                return value

    def _text(self, shape: Shape, value: str, place: Place) -> object:
        if timedelta in shape.leaves:
            return value if (span := span_of(value)) is None else span
        if self._tree.origin(place).kind != "variable":
            return value
        if (shape.models or shape.value is not None) and (table := json_table(value)) is not None:
            return table
        if shape.item is not None and str not in shape.leaves:
            return read_list(value)
        return value

    def _overruled(
        self, known: Mapping[str, Any], table: Mapping[str, object], place: Place
    ) -> frozenset[str]:
        """Of a secret and its file, the one that the config file gives where a variable gives the other."""
        overruled = set()
        for key in table:
            target = key.removesuffix("_file")
            if target in table and _names_secret_file(key, known):
                kinds = {name: self._tree.origin((*place, name)).kind for name in (key, target)}
                if kinds[key] != kinds[target]:
                    overruled |= {name for name, kind in kinds.items() if kind != "variable"}
        return frozenset(overruled)

    def _read_secret(
        self, key: str, value: object, known: Mapping[str, Any], fitted: dict[str, object], place: Place
    ) -> None:
        target = key.removesuffix("_file")
        here, there = (*place, key), (*place, target)
        if there in self._tree.origins and self._tree.origin(here).kind == self._tree.origin(there).kind:
            self.fault(here, f"and {target} are both set: keep one")
            return
        try:
            content = Path(str(value)).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
            self.fault(here, f"names {str(value)!r}, which cannot be read: {reason}")
            return
        self._tree.origins[there] = Origin("file", str(value))
        is_list = shape_of(known[target]).item is not None
        fitted[target] = content.split() if is_list else content.rstrip("\r\n")

    def _unknown(self, place: Place, known: Mapping[str, Any]) -> str:
        files = [f"{key}_file" for key, annotation in known.items() if shape_of(annotation).secret]
        close = get_close_matches(place[-1], [*known, *files], n=1, cutoff=0.6)
        inner, origin = self._tree.first_given(place)
        if origin.kind == "variable":
            line = f"unknown variable {origin.name}"
            near = [variable_for((*place[:-1], name, *inner)) for name in close]
            if len(place) == 1:
                near = near or get_close_matches(origin.name, list(SHORT_FORMS), n=1, cutoff=0.8)
        else:
            line = f"unknown key `{place[-1]}`" + (f" of [{'.'.join(place[:-1])}]" if place[:-1] else "")
            line += f" in {origin}"
            near = close
        return line + (f": did you mean `{near[0]}`?" if near else f": known are {', '.join(sorted(known))}")


def _names_secret_file(key: str, known: Mapping[str, Any]) -> bool:
    target = key.removesuffix("_file")
    return key.endswith("_file") and target in known and shape_of(known[target]).secret


def _likeliest(models: Sequence[type[BaseModel]], table: Mapping[str, object]) -> type[BaseModel]:
    return max(models, key=lambda model: len(keys_of(model).keys() & table.keys()))
