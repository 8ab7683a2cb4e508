"""What a type of bridge or sink is, what it can and how it is set, as data and as a page in Markdown."""

from __future__ import annotations

import inspect
from dataclasses import asdict, dataclass
from typing import Any

from pydantic import BaseModel

from ..catalog import Kind
from ..settings.described import ANY_NAME, Described, described
from ..settings.spelling import shown
from ..settings.variables import variable_for


def summary_of(kind: Kind[Any]) -> str:
    """The first paragraph of what the type says of itself."""
    return " ".join((inspect.getdoc(kind.factory) or "").partition("\n\n")[0].split())


def capabilities_of(kind: Kind[Any]) -> dict[str, str]:
    """What the type declares that it can, a word or two each."""
    if kind.capabilities is None:
        return {}
    return {name.replace("_", " "): _said(value) for name, value in asdict(kind.capabilities).items()}


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
    place = (section, ANY_NAME)
    return [
        Option(
            name=".".join(option.place[len(place) :]),
            type=option.type,
            default=_default(option),
            variable=option.variable,
            doc=option.words,
        )
        for option in described(model, place)
    ]


def _default(option: Described) -> str | None:
    if option.required:
        return None
    return "" if isinstance(option.default, BaseModel) else shown(option.default)


def markdown_of(kind: Kind[Any], section: str, what: str) -> str:
    """A page about the type."""
    lines = [f"# {kind.name}: a {what}", "", summary_of(kind), ""]
    lines += ["```toml", f"[{section}.{ANY_NAME.lower()}]", f'type = "{kind.name}"', "```", ""]
    if capabilities := capabilities_of(kind):
        lines += ["| capability | |", "|---|---|", *(f"| {k} | {v} |" for k, v in capabilities.items()), ""]
    lines += ["| option | type | default | |", "|---|---|---|---|"]
    for option in options_of(kind.options, section):
        default = "(required)" if option.default is None else option.default and f"`{option.default}`"
        cells = (f"`{option.name}`", option.type, default, option.doc)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    lines += ["", f"Each may be set by a variable: `{variable_for((section, ANY_NAME, 'option'))}`."]
    return "\n".join(lines)
