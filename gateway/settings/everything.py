"""All the settings as one model, which knows where each value came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pydantic import BaseModel, Field, PrivateAttr

from ...core.event import AnySink
from ...core.message import Bridge
from .. import catalog
from ..catalog import Catalog
from .bridges import BridgeSettings
from .masking import SECRET_NAME
from .process import DatabaseSettings, HttpSettings, LogSettings, RetentionSettings, WorkerSettings
from .section import Section
from .sinks import SinkSettings
from .spelling import shown
from .tree import Origin, Tree
from .variables import Place


@dataclass(frozen=True, slots=True)
class Source:
    """One setting as `hammerwork config show` prints it; secrets are masked."""

    name: str
    value: str
    origin: Origin


class Settings(Section):
    """Everything that an operator may set. `load` reads it; `Settings()` is all defaults."""

    database: DatabaseSettings = DatabaseSettings()
    http: HttpSettings = HttpSettings()
    worker: WorkerSettings = WorkerSettings()
    retention: RetentionSettings = RetentionSettings()
    log: LogSettings = LogSettings()
    bridges: dict[str, BridgeSettings] = Field(default_factory=dict)
    sinks: dict[str, SinkSettings] = Field(default_factory=dict)

    _origins: dict[Place, Origin] = PrivateAttr(default_factory=dict)

    def came_from(self, origins: Mapping[Place, Origin]) -> None:
        """Note where the values came from; what is not among them is a default."""
        self._origins.update(origins)

    def sources(self) -> list[Source]:
        """Every setting with its value and origin, defaults too."""
        return [
            Source(
                ".".join(place),
                shown(value, secret=value is not None and SECRET_NAME.search(place[-1]) is not None),
                origin,
            )
            for place, value, origin in self.values()
        ]

    def values(self) -> Iterator[tuple[Place, object, Origin]]:
        """Every setting's place, value and origin. Nothing is masked but what masks itself."""
        tree = Tree(origins=self._origins)
        for place, value in _values(self, ()):
            yield place, value, tree.exact_origin(place)


Kinds = Catalog[Bridge] | Catalog[AnySink]

NAMED: Mapping[str, tuple[type[BridgeSettings] | type[SinkSettings], Kinds]] = {
    "bridges": (BridgeSettings, catalog.bridges),
    "sinks": (SinkSettings, catalog.sinks),
}
"""The tables whose members have names and types: what all members have, and the types there are."""

NAME = re.compile(r"[a-z](?:_?[a-z0-9])*_?")
"""Bridge and sink names: they are part of variable names, so no dots, dashes or double underscores."""

LONGEST_NAME = 63

OPTIONS = "options"
"""The field that holds a bridge's or sink's own options; in the file they stand beside the common ones."""


def _values(model: BaseModel, place: Place) -> Iterator[tuple[Place, object]]:
    for key, found in type(model).model_fields.items():
        value = getattr(model, key)
        here = place if key == OPTIONS else (*place, found.alias or key)
        match value:
            case BaseModel():
                yield from _values(value, here)
            case dict() if value and all(isinstance(v, BaseModel) for v in value.values()):
                for name, member in value.items():
                    yield from _values(member, (*here, name))
            case _:
                yield here, value
