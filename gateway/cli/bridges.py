"""Commands about bridges."""

from __future__ import annotations

import typer

from .options import AsJson, Config
from .output import show_list

app = typer.Typer(help="What brings messages in.", rich_markup_mode=None, no_args_is_help=True)


@app.callback()
def _bridge() -> None:
    """What brings messages in."""


@app.command("list")
def list_bridges(config: Config = None, as_json: AsJson = False) -> None:
    """List the bridges that are configured.

    What each of them guarantees needs its broker: `hammerwork check` connects and tells.

    \b
      hammerwork bridge list --json
    """
    from ..settings import load

    bridges = [
        {
            "name": name,
            "type": bridge.type,
            "enabled": bridge.enabled,
            "required": bridge.required,
            "to_queue": bridge.to_queue or bridge.map.queue or name,
        }
        for name, bridge in load(config).bridges.items()
    ]
    columns = {
        "name": lambda bridge: bridge["name"],
        "type": lambda bridge: bridge["type"],
        "enabled": lambda bridge: bridge["enabled"],
        "to queue": lambda bridge: bridge["to_queue"],
    }
    show_list(bridges, columns, as_json)
