"""Commands about settings."""

from __future__ import annotations

from typing import Annotated

import typer

from .options import AsJson, Config
from .output import escaped, say, show_json, show_list

app = typer.Typer(
    help="The settings: what they are, where each comes from, what there is.",
    rich_markup_mode=None,
    no_args_is_help=True,
)


@app.callback()
def _config() -> None:
    """The settings: what they are, where each comes from, what there is."""


@app.command("show")
def show_config(config: Config = None, as_json: AsJson = False) -> None:
    """Show every setting with its value and its source.

    Defaults too; secrets are masked. The names are those of the TOML file.

    \b
      hammerwork config show | grep ^database
    """
    from ..settings import load

    settings = [
        {"name": source.name, "value": source.value, "source": str(source.origin)}
        for source in load(config).sources()
    ]
    columns = {
        "name": lambda setting: setting["name"],
        "value": lambda setting: setting["value"],
        "source": lambda setting: setting["source"],
    }
    show_list(settings, columns, as_json)


@app.command("env")
def env(
    only_set: Annotated[bool, typer.Option("--set", help="Only what is set now, with its value.")] = False,
    config: Config = None,
) -> None:
    """Print every setting as a variable, as an .env.example.

    With type, default and meaning, those of installed plugins too. With --set what is set now, from
    the file or by variables: secrets are commented out and masked, to be filled in.

    \b
      hammerwork config env > .env.example
      hammerwork config env --set --config hammerwork.toml
    """
    from ..settings import load
    from ..settings.env_file import example, what_is_set

    say(*map(escaped, what_is_set(load(config)) if only_set else example()))


@app.command("schema")
def schema() -> None:
    """Print the JSON Schema of the settings file.

    With the options of every type of bridge and sink that is installed. Editors complete and check
    TOML by it.

    \b
      hammerwork config schema > hammerwork.schema.json
    """
    from ..settings.json_schema import file_schema

    show_json(file_schema())
