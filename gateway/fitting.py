"""From the tree of given values to pydantic models: unknown keys, secrets from files, durations and JSON in
variables are dealt with here, and every fault becomes one line that names its source."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from difflib import get_close_matches
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin
from urllib.parse import urlsplit, urlunsplit

from pydantic import BaseModel, ByteSize, SecretStr, ValidationError
from pydantic_core import ErrorDetails

from ..core.errors import Misconfigured
from .origins import SHORT_FORMS, Origin, Place, Tree, json_table, variable_for

M = TypeVar("M", bound=BaseModel)

MASK = "***"
TABLE_WANTED = frozenset({"model_type", "model_attributes_type", "dict_type"})
SECRET_NAME = re.compile(
    r"(?i)(^|[-_])(password|passphrase|secrets?|tokens?|credentials?|private_key|authorization|cookie|api_?key)([-_]|$)"
)
DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


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


class Fitter:
    """Turns tables of a tree into models; faults gather in the tree, so that all are told at once."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def model(self, model: type[M], table: object, place: Place) -> M | None:
        """The table as a model, or None when it has faults (which are noted)."""
        if (checked := self.table(table, place)) is None:
            return None
        before = len(self._tree.faults)
        fitted = self.fit(keys_of(model), checked, place)
        if len(self._tree.faults) > before:
            self.validated(model, fitted, place)
            return None
        return self.validated(model, fitted, place)

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
            for line in _lines(error, model, fitted, place, self._tree):
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
            return _duration(value)
        if self._tree.origin(place).kind != "variable":
            return value
        if (shape.models or shape.value is not None) and (table := json_table(value)) is not None:
            return table
        if shape.item is not None and str not in shape.leaves:
            return _list(value)
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


def _duration(text: str) -> object:
    """The span that `1h30m`, `250ms` or `30` (seconds) says, or the text itself for pydantic to judge."""
    plain = text.strip().lower()
    if re.fullmatch(r"\d+(\.\d+)?", plain):
        return timedelta(seconds=float(plain))
    parts = DURATION.findall(plain)
    if not parts or "".join(number + unit for number, unit in parts) != plain:
        return text
    return timedelta(seconds=sum(float(number) * SECONDS[unit] for number, unit in parts))


def _list(text: str) -> object:
    """A variable's list: JSON, or words between commas."""
    if text.lstrip().startswith("["):
        try:
            return json.loads(text)
        except ValueError:
            return text
    return [word.strip() for word in text.split(",") if word.strip()]


# --- faults as lines -----------------------------------------------------------------------------


def _lines(
    error: ValidationError, model: type[BaseModel], given: Mapping[str, object], place: Place, tree: Tree
) -> Iterator[str]:
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
        case "bool_parsing" | "bool_type":
            return "must be true or false"
        case _:
            return re.sub(r"^\w+ should", "must", details["msg"])


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


def shown(value: object, *, secret: bool = False) -> str:
    """A value fit for a terminal: secrets masked, passwords cut out of URLs, long text cut."""
    match value:
        case None:
            return "not set"
        case SecretStr():
            text = value.get_secret_value()
            # Of a secret URL the host helps; its path may be a credential of its own.
            return without_password(text, path=False) if "://" in text else MASK if text else "empty"
        case _ if secret:
            return MASK
        case bool():
            return str(value).lower()
        case ByteSize():
            return value.human_readable()
        case timedelta():
            return span_text(value)
        case str() if "://" in value:
            return without_password(value)
        case str():
            return repr(str(value)) if len(value) <= 80 else f"{value[:80]!r}…"
        case list() | tuple() | set() | frozenset():
            return "[" + ", ".join(shown(member) for member in value) + "]"
        case dict():
            members = (
                f"{k}: {shown(v, secret=SECRET_NAME.search(str(k)) is not None)}" for k, v in value.items()
            )
            return "{" + ", ".join(members) + "}"
        case _:
            return str(value)[:200]


def holds_secret(value: object) -> bool:
    """Whether a secret is in it, at whatever depth."""
    match value:
        case SecretStr():
            return True
        case list() | tuple():
            return any(map(holds_secret, value))
        case dict():
            return any(SECRET_NAME.search(str(k)) or holds_secret(v) for k, v in value.items())
        case BaseModel():
            return holds_secret({key: getattr(value, key) for key in type(value).model_fields})
        case _:
            return False


def without_password(url: str, *, path: bool = True) -> str:
    """The URL with *** for its password, without its query, and without its path unless that is wanted."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return MASK
    credentials, at, host = parts.netloc.rpartition("@")
    user, colon, _ = credentials.partition(":")
    netloc = f"{user}{colon and ':' + MASK}{at}{host}"
    kept = parts.path if path or parts.path in ("", "/") else "/…"
    return urlunsplit(parts._replace(netloc=netloc, path=kept, query="", fragment=""))


def span_text(span: timedelta) -> str:
    """The span in its largest whole unit, as a setting may give it."""
    seconds = span.total_seconds()
    for unit in ("w", "d", "h", "m", "s", "ms"):
        count = seconds / SECONDS[unit]
        if count >= 1 and abs(count - round(count)) < 1e-9:
            return f"{round(count)}{unit}"
    return f"{seconds:.6f}".rstrip("0").rstrip(".") + "s"
