"""The tree of commands, and `main`, where every command begins and ends."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from . import bridges, config, dead, jobs, plugins, process, queues, sinks, workers
from .failures import USAGE_ERROR, Ended, ExitCode, failure_of
from .output import note

DEBUG = "--debug"

GROUPS = {
    "worker": workers.app,
    "queue": queues.app,
    "job": jobs.app,
    "dead": dead.app,
    "bridge": bridges.app,
    "sink": sinks.app,
    "plugins": plugins.app,
    "config": config.app,
}

root = typer.Typer(
    name="hammerwork",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(asked: bool) -> None:
    if asked:
        process.version()
        raise typer.Exit


@root.callback()
def hammerwork(
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Show where an error came from; may stand behind any command.")
    ] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Messages in, Postgres jobs, signed events out.

    Settings come from HAMMERWORK_* variables and one TOML file (--config). Data goes to standard
    output, as a table on a terminal and tab-separated into a pipe; all else to standard error.

    \b
    Exit codes:
      0 done · 1 failed · 2 wrong command line · 3 not found · 5 refused by state
      7 database unreachable · 8 a check found something · 130 interrupted
    """


process.register(root)
for name, group in GROUPS.items():
    root.add_typer(group, name=name)


def main(arguments: list[str] | None = None) -> int:
    """Run one command; its exit code. Errors become a line and a hint, unless --debug asks for all."""
    given, debug = _without_debug(sys.argv[1:] if arguments is None else arguments)
    try:
        answer = root(args=given, prog_name="hammerwork", standalone_mode=False)
        return int(answer or ExitCode.OK)
    except Ended as end:
        return end.code
    except (Exception, KeyboardInterrupt) as error:
        if debug:
            raise
        return _told(error)


def _told(error: BaseException) -> int:
    if isinstance(error, USAGE_ERROR) and type(error).__name__ == "NoArgsIsHelpError":
        note(str(getattr(error, "message", error)))
        return ExitCode.USAGE
    failure = failure_of(error)
    note(f"error: {failure.message}")
    if failure.hint:
        note(f"hint: {failure.hint}")
    return failure.code


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """--debug may stand anywhere before a `--`."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    head = [argument for argument in arguments[:end] if argument != DEBUG]
    return head + arguments[end:], len(head) < end
