"""Whether options are the same by a TOML file and by variables, asked of `hammerwork config show`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from ...core.job import Json
from .process import clean_environment, command

BY_FILE, BY_VARIABLES = "by_file", "by_variables"
"""What the settings call it."""


async def same_by_file_and_variables(
    section: str, table: Mapping[str, Json], secrets: Sequence[str], folder: Path
) -> None:
    """Fails the test when they differ, when one of them is refused, or when a secret is shown."""
    file = folder / "hammerwork.toml"
    lines = (f"{key} = {toml(value)}\n" for key, value in table.items())
    file.write_text(f"[{section}.{BY_FILE}]\n{''.join(lines)}")
    prefix = f"HAMMERWORK_{section}__{BY_VARIABLES}__".upper()
    variables = {prefix + key.upper(): variable(value) for key, value in table.items()}
    code, output = await command(
        "config", "show", "--config", str(file), environment={**clean_environment(), **variables}, within=60
    )
    assert code == 0, output
    shown = [line.split("\t")[:2] for line in output.splitlines()]
    by_file, by_variables = (
        [(name.removeprefix(place), value) for name, value in shown if name.startswith(place)]
        for place in (f"{section}.{BY_FILE}.", f"{section}.{BY_VARIABLES}.")
    )
    assert by_file, "no setting is shown"
    assert by_file == by_variables
    assert not [secret for secret in secrets if secret in str(by_file)], "a secret is shown"


def refusal_of_an_unknown_option(plugin: Any, options: Mapping[str, Json]) -> str:
    """What the plugin's options say of one that there is not. Fails the test when they take it."""
    try:
        plugin.Options.model_validate({**options, "no_such_option": 1})
    except ValueError as error:
        return f"{error} {error!r}"
    pytest.fail("an unknown option is taken: set extra='forbid', as hammerwork.plugins.Options does")


def toml(value: Json) -> str:
    """A JSON value as TOML writes it."""
    match value:
        case dict():
            return "{" + ", ".join(f"{json.dumps(k)} = {toml(v)}" for k, v in value.items()) + "}"
        case list() | tuple():
            return "[" + ", ".join(map(toml, value)) + "]"
        case _:
            return json.dumps(value)


def variable(value: Json) -> str:
    """A JSON value as a variable holds it."""
    return value if isinstance(value, str) else json.dumps(value)
