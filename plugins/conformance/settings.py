"""Whether options are the same by a TOML file and by variables, asked of `hammerwork config show`."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from ...core.job import Json
from .process import clean_environment, command

NAME = "trial"


async def same_by_file_and_variables(
    section: str, table: Mapping[str, Json], secrets: Sequence[str], folder: Path
) -> None:
    """Fails the test when they differ, when one of them is refused, or when a secret is shown."""
    file = folder / "hammerwork.toml"
    lines = (f"{key} = {toml(value)}\n" for key, value in table.items())
    file.write_text(f"[{section}.{NAME}]\n{''.join(lines)}")
    prefix = f"HAMMERWORK_{section}__{NAME}__".upper()
    variables = {prefix + key.upper(): variable(value) for key, value in table.items()}
    by_file, by_variables = await asyncio.gather(
        _shown("--config", str(file), variables={}), _shown(variables=variables)
    )
    assert by_file == by_variables
    assert not [secret for secret in secrets if secret in str(by_file)], "a secret is shown"


async def _shown(*arguments: str, variables: Mapping[str, str]) -> list[list[str]]:
    environment = {**clean_environment(), **variables}
    code, output = await command("config", "show", *arguments, environment=environment, within=30)
    assert code == 0, output
    lines = [line.split("\t")[:2] for line in output.splitlines()]
    return [line for line in lines if f".{NAME}." in line[0]]


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
