"""What variables of the environment and one TOML file give: one tree that remembers every value's origin."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from ...core.errors import Misconfigured
from .spelling import json_table
from .variables import CONFIG, DELIMITER, SHORT_FORMS, Place, is_setting, place_of


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from; `name` is the variable or the file."""

    kind: Literal["variable", "file", "default"]
    name: str = ""

    def __str__(self) -> str:
        return self.name or self.kind


DEFAULT = Origin("default")


@dataclass(slots=True)
class Tree:
    """All the values that were given, variables before the file, each with its origin."""

    values: dict[str, object] = field(default_factory=dict)
    origins: dict[Place, Origin] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)

    def origin(self, path: Place) -> Origin:
        """The origin of the value at `path`, or of the nearest table above it that was given whole."""
        for length in range(len(path), 0, -1):
            if (found := self.origins.get(path[:length])) is not None:
                return found
        return DEFAULT

    def exact_origin(self, path: Place) -> Origin:
        """The origin of the value itself. A table of the file does not count for what it leaves out; a
        variable that holds a whole table does."""
        if path in self.origins:
            return self.origins[path]
        above = self.origin(path)
        return above if above.kind == "variable" else DEFAULT

    def first_given(self, place: Place) -> tuple[Place, Origin]:
        """The first value at or beneath `place`: its own place from there, and its origin."""
        for known, origin in self.origins.items():
            if known[: len(place)] == place:
                return known[len(place) :], origin
        return (), self.origin(place)

    def read_file(self, path: Path) -> None:
        """Take every value of a TOML file. Raises Misconfigured when it cannot be read at all."""
        try:
            given = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError as error:
            raise Misconfigured(f"the config file {path} does not exist", hint=f"see {CONFIG}") from error
        except (OSError, UnicodeDecodeError) as error:
            raise Misconfigured(f"the config file {path} cannot be read: {error}") from error
        except tomllib.TOMLDecodeError as error:
            raise Misconfigured(f"{path} is not TOML: {error}", hint="text values need quotes") from error
        self._merge(self.values, given, (), Origin("file", str(path)))

    def read_variables(self, environment: Mapping[str, str]) -> None:
        """Take HAMMERWORK_* over what is there, whole tables before what stands in them."""
        for name in sorted(environment, key=lambda name: (name.count(DELIMITER), name)):
            if is_setting(name, environment[name]):
                self._set(place_of(name), environment[name], Origin("variable", name))
        self._name_quick_start_types()

    def _merge(self, into: dict[str, object], given: Mapping[str, object], at: Place, origin: Origin) -> None:
        for key, value in given.items():
            if isinstance(value, dict):
                table: dict[str, object] = {}
                into[key] = table
                self._merge(table, value, (*at, key), origin)
            else:
                into[key] = value
            self.origins[(*at, key)] = origin

    def _set(self, path: Place, value: str, origin: Origin) -> None:
        node = self.values
        for depth, key in enumerate(path[:-1], start=1):
            below = node.get(key)
            if below is None:
                below = node[key] = {}
            elif isinstance(below, str) and (table := json_table(below)) is not None:
                below = node[key] = table
            if not isinstance(below, dict):
                outer = self.origin(path[:depth])
                self.faults.append(
                    f"{'.'.join(path[:depth])} is no table in {outer}, so {origin} has no place"
                )
                return
            node = below
        node[path[-1]] = value
        self._forget(path)
        self.origins[path] = origin

    def _forget(self, path: Place) -> None:
        """A value that is replaced takes the origins of its parts along."""
        for known in [known for known in self.origins if known[: len(path)] == path]:
            del self.origins[known]

    def _name_quick_start_types(self) -> None:
        for section, kind in sorted({path[:2] for path in SHORT_FORMS.values() if len(path) == 3}):
            origins = [
                origin
                for name, path in SHORT_FORMS.items()
                if path[:2] == (section, kind) and (origin := self.origins.get(path)) and origin.name == name
            ]
            table = self.values.get(section)
            made = table.get(kind) if isinstance(table, dict) else None
            if origins and isinstance(made, dict) and "type" not in made:
                made["type"] = kind
                self.origins[section, kind, "type"] = origins[0]
