"""From the file and the variables to the settings, or to one error that lists every fault."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...core.errors import Misconfigured
from .bridges import BridgeSettings
from .everything import LONGEST_NAME, NAME, NAMED, OPTIONS, Kinds, Settings
from .fitting import Fitter
from .section import Section
from .shape import keys_of
from .sinks import SinkSettings
from .tree import Tree
from .variables import CONFIG, Place

Named = BridgeSettings | SinkSettings


def load(config: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """Read the file (`config`, else the one that HAMMERWORK_CONFIG names) and the variables.

    Raises Misconfigured that lists every fault, each with what was given, what is allowed and where.
    """
    environment = os.environ if env is None else env
    tree = Tree()
    if config is None and (named := environment.get(CONFIG)):
        config = Path(named)
    if config is not None:
        tree.read_file(config)
    tree.read_variables(environment)
    settings = _fitted(tree)
    if tree.faults or settings is None:
        raise _refusal(tree.faults)
    settings.came_from(tree.origins)
    return settings


def _refusal(faults: list[str]) -> Misconfigured:
    hint = "docs/settings.md lists every setting"
    if len(faults) == 1:
        return Misconfigured(faults[0], hint=hint)
    return Misconfigured(f"{len(faults)} settings are wrong:\n  " + "\n  ".join(faults), hint=hint)


def _fitted(tree: Tree) -> Settings | None:
    fitter = Fitter(tree)
    known = keys_of(Settings)
    unknown = {key: value for key, value in tree.values.items() if key not in known}
    fitter.fit(known, unknown, ())
    sections: dict[str, Any] = {}
    for key, value in tree.values.items():
        if key in NAMED:
            sections[key] = _named(fitter, *NAMED[key], value, (key,))
        elif key in known:
            sections[key] = fitter.model(known[key], value, (key,))
    if tree.faults:
        return None
    return Settings(**sections)


def _named(fitter: Fitter, model: type[Named], kinds: Kinds, given: object, place: Place) -> dict[str, Named]:
    """The bridges or sinks: each is the common part and the options of its type."""
    found: dict[str, Named] = {}
    for name, value in (fitter.table(given, place) or {}).items():
        here = (*place, name)
        if (table := fitter.table(value, here)) is None:
            continue
        if NAME.fullmatch(name) is None or len(name) > LONGEST_NAME:
            fitter.fault(here, "is no name for it: use a-z 0-9 _, begin with a letter")
            continue
        if (one := _member(fitter, model, kinds, table, here)) is not None:
            found[name] = one
    return found


def _member(
    fitter: Fitter, model: type[Named], kinds: Kinds, table: dict[str, object], place: Place
) -> Named | None:
    try:
        options_model = kinds.find(str(table["type"])).options
    except KeyError:
        fitter.fault(place, f"has no type: there are {', '.join(kinds.names())}")
        return None
    except Misconfigured as error:
        fitter.fault((*place, "type"), f"is wrong: {error}; {error.hint}")
        return None
    common = {key: annotation for key, annotation in keys_of(model).items() if key != OPTIONS}
    own = keys_of(options_model)
    fitted = fitter.fit({**own, **common}, table, place)
    options = fitter.validated(options_model, {k: v for k, v in fitted.items() if k not in common}, place)
    shared = {k: v for k, v in fitted.items() if k in common}
    return fitter.validated(model, {**shared, OPTIONS: options or Section()}, place)
