"""Commands about what can be plugged in: types of bridges and sinks, transforms and handlers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import AsJson
from .output import escaped, say, show_json, show_list

if TYPE_CHECKING:
    from ..catalog import Catalog, Kind, Plugins

app = typer.Typer(
    help="What settings can name: types of bridges and sinks, transforms, handlers.",
    rich_markup_mode=None,
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(metavar="NAME")]
Sort = Annotated[
    str | None,
    typer.Option(
        "--sort", metavar="SORT", help="bridge, sink, transform or handlers, where several have the name."
    ),
]
AsSchema = Annotated[bool, typer.Option("--schema", help="The options as JSON Schema.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="A page in Markdown.")]

SECTIONS = {"bridge": "bridges", "sink": "sinks"}


def _sorts() -> dict[str, Catalog[Any] | Plugins]:
    from .. import catalog

    return {
        "bridge": catalog.bridges,
        "sink": catalog.sinks,
        "transform": catalog.transforms,
        "handlers": catalog.handlers,
    }


@app.command("list")
def list_plugins(as_json: AsJson = False) -> None:
    """List what is built in and what installed packages offer.

    STATE says what is missing where something cannot be used.

    \b
      hammerwork plugins list
    """
    columns = {
        "sort": lambda plugin: plugin["sort"],
        "name": lambda plugin: plugin["name"],
        "from": lambda plugin: plugin["package"],
        "place": lambda plugin: plugin["place"],
        "state": lambda plugin: plugin["state"],
    }
    show_list(list(_listed()), columns, as_json)


def _listed() -> Iterator[dict[str, str]]:
    from ...core.errors import Misconfigured, MissingExtra
    from ..extras import not_installed

    for sort, known in _sorts().items():
        for name in known.names():
            found = {"sort": sort, "name": name, "package": "", "place": "", "state": "usable"}
            try:
                source = known.source(name)
                found |= {"package": source.package, "place": source.place}
                known.find(name)
                if source.extra is not None and not_installed(source.distribution, source.extra):
                    raise MissingExtra(f"the {sort} {name!r}", source.extra, package=source.distribution)
            except Misconfigured as error:
                found["state"] = f"{error}; {error.hint}"
            yield found


@app.command("show")
def show_plugin(
    name: Name,
    sort: Sort = None,
    as_json: AsJson = False,
    as_schema: AsSchema = False,
    as_markdown: AsMarkdown = False,
) -> None:
    """Show what a plugin is, what it can, and every option.

    NAME may also be a place, package.module:name, of something that is not installed as a plugin.

    \b
      hammerwork plugins show rabbitmq
      hammerwork plugins show rabbitmq --schema > rabbitmq.schema.json
    """
    sort, found = _found(name, sort)
    if sort not in SECTIONS:
        if as_schema or as_markdown:
            raise typer.BadParameter(f"a {sort} has no options")
        _show_object(sort, name, found, as_json)
    elif as_schema:
        from ..settings.json_schema import options_schema

        show_json(options_schema(found.options))
    elif as_markdown:
        from .plugin_page import markdown_of

        say(escaped(markdown_of(found, SECTIONS[sort], f"type of {sort}"), keep="\n"))
    else:
        _show_kind(sort, found, as_json)


def _found(name: str, sort: str | None) -> tuple[str, Any]:
    """The plugin, and of which sort it is."""
    from ...core.errors import Misconfigured, NotFound

    sorts = _sorts()
    if sort is not None:
        if sort not in sorts:
            raise typer.BadParameter(f"{sort!r} is none of {', '.join(sorts)}")
        return sort, sorts[sort].find(name)
    if ":" in name:
        return _of_whatever_sort(name)
    having = [sort for sort, known in sorts.items() if name in known.names()]
    match having:
        case [only]:
            return only, sorts[only].find(name)
        case []:
            raise NotFound(f"no plugin is named {name!r}: `hammerwork plugins list` shows what there is")
        case _:
            raise Misconfigured(
                f"{name!r} is a {' and a '.join(having)}", hint=f"add --sort {' or --sort '.join(having)}"
            )


def _of_whatever_sort(place: str) -> tuple[str, Any]:
    """What stands at this place, by what it declares."""
    from ...core.event import SinkCapabilities
    from ...core.execute.handlers import Handlers
    from .. import catalog

    found = catalog.handlers.find(place)
    if isinstance(found, Handlers):
        return "handlers", found
    if not hasattr(found, "Options"):
        return "transform", found
    if isinstance(getattr(found, "capabilities", None), SinkCapabilities) or hasattr(found, "deliver"):
        return "sink", catalog.sinks.find(place)
    return "bridge", catalog.bridges.find(place)


def _show_object(sort: str, name: str, found: object, as_json: bool) -> None:
    import inspect

    source = _sorts()[sort].source(name)
    doc = inspect.getdoc(found) or ""
    said = {"sort": sort, "name": name, "from": source.package, "place": source.place, "doc": doc}
    if as_json:
        show_json(said)
    else:
        say(*(f"{key}\t{escaped(value)}" for key, value in said.items()))


def _show_kind(sort: str, kind: Kind[Any], as_json: bool) -> None:
    from dataclasses import asdict

    from .plugin_page import capabilities_of, options_of, summary_of

    source = _sorts()[sort].source(kind.name)
    options = options_of(kind.options, SECTIONS[sort])
    about = {
        "sort": sort,
        "name": kind.name,
        "from": source.package,
        "place": source.place,
        "about": summary_of(kind),
    }
    capabilities = capabilities_of(kind)
    if as_json:
        show_json({**about, "capabilities": capabilities, "options": [asdict(option) for option in options]})
        return
    say(*(f"{key}\t{escaped(value)}" for key, value in about.items() if value), "")
    if capabilities:
        say("capabilities", *(f"  {key}\t{escaped(value)}" for key, value in capabilities.items()), "")
    say("options")
    for option in options:
        default = "required" if option.default is None else option.default and f"default {option.default}"
        say(escaped(f"  {option.name}  {option.type}" + (f"  {default}" if default else "")))
        say(escaped(f"      {option.variable}"), *([escaped(f"      {option.doc}")] if option.doc else []))
