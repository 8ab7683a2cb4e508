"""The settings as a file of variables: all that there are, with what they mean, or those that are set."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator
from importlib.metadata import version

from .described import Described, DescribedTable, tables
from .everything import Settings
from .masking import MASK, SECRET_NAME, holds_secret
from .spelling import as_variable
from .variables import CONFIG, variable_for

WIDTH = 110


def example() -> Iterator[str]:
    """Lines of an .env.example: every variable commented out, with its default."""
    yield from _comment(
        f"Every setting of Hammerwork {version('hammerwork')} as a variable. Lines are NAME=value without"
        " quotes; an empty value counts as not set. Each secret may be given as NAME_FILE=path instead."
    )
    yield f"#{CONFIG}="
    for table in tables():
        yield ""
        yield from _comment(_heading(table))
        if table.kind is not None:
            yield f"#{variable_for((*table.place, 'type'))}={table.kind}"
        for setting in table.settings:
            if not setting.is_table:
                yield from _comment(_meaning(setting))
                yield f"#{setting.variable}={as_variable(setting.default)}"


def what_is_set(settings: Settings) -> Iterator[str]:
    """Lines of an .env file that sets what is set now, wherever it comes from; secrets are left to be filled
    in."""
    for place, value, origin in settings.values():
        if origin.kind == "default":
            continue
        variable = variable_for(place)
        if value is not None and (SECRET_NAME.search(place[-1]) or holds_secret(value)):
            yield f"#{variable}={MASK}"
        else:
            yield f"{variable}={as_variable(value)}"


def _heading(table: DescribedTable) -> str:
    of_kind = "" if table.kind is None else f' with type = "{table.kind}"'
    return f"--- [{'.'.join(table.place)}]{of_kind}: {table.words}"


def _meaning(setting: Described) -> str:
    needed = "required, " if setting.required else ""
    return f"{needed}{setting.type}{'. ' if setting.words else ''}{setting.words}"


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in textwrap.wrap(text, WIDTH - 2, break_long_words=False))
