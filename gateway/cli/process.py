"""Commands about the process and its schema: run, check, migrate, verify, version."""

from __future__ import annotations

import typer

from .failures import Ended, ExitCode
from .options import AsJson, Config
from .output import escaped, note, say, show_json


def register(root: typer.Typer) -> None:
    """Hang the commands that stand at the top."""
    for command in (run, check, migrate, verify, version):
        root.command()(command)


def run(config: Config = None) -> None:
    """Run the gateway: bridges, relays, webhooks, API, metrics.

    SIGTERM or Ctrl-C stops it in good order, a second one in a hurry. Without a database it starts an
    embedded Postgres (extra `embedded`).

    \b
      hammerwork run --config hammerwork.toml
    """
    from ..garbage import collect_seldom

    collect_seldom()
    from ..app import main
    from ..settings import load

    raise typer.Exit(main(load(config)))


def check(config: Config = None, as_json: AsJson = False) -> None:
    """Say what is guaranteed, connecting to everything.

    Prints for each bridge and sink what holds and why, and whether it is paused; exits with 8 if
    something is wrong. It changes nothing, takes no message and sends no event.

    \b
      hammerwork check --config hammerwork.toml
    """
    import asyncio

    from ..check import check as look
    from ..settings import load
    from .session import quiet_logs

    quiet_logs()
    report = asyncio.run(look(load(config)))
    if as_json:
        show_json(report.json())
    else:
        say(escaped(report.text(), keep="\n"))
    if report.exit_code:
        raise Ended(ExitCode.FINDINGS)


def migrate(config: Config = None) -> None:
    """Create or upgrade the schema.

    Safe to run from many places at once, and to be killed; prints each migration that it applied.

    \b
      hammerwork migrate && hammerwork verify
    """
    from ...core.postgres import schema
    from .session import talk

    applied = talk(config, lambda session: schema.migrate(session.database))
    for migration in applied:
        say(f"{migration.version:04}\t{migration.name}")
    if not applied:
        note("the schema is current")


def verify(config: Config = None, as_json: AsJson = False) -> None:
    """Say what is wrong with the schema and the server.

    Prints one line a fault and exits with 8; prints nothing when all is well.

    \b
      hammerwork verify || hammerwork migrate
    """
    from ...core.postgres import schema
    from .session import talk

    faults = talk(config, lambda session: schema.verify(session.database))
    if as_json:
        show_json({"ok": not faults, "faults": faults})
    else:
        for fault in faults:
            say(escaped(fault))
    if faults:
        raise Ended(ExitCode.FINDINGS)


def version() -> None:
    """Print the version.

    The version of the package; a running gateway tells its own at /api/v1/version.

    \b
      hammerwork version
    """
    from importlib.metadata import version as installed

    say(installed("hammerwork"))
