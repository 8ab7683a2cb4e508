"""Commands about workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, Config, read_duration
from .output import Columns, show_list

if TYPE_CHECKING:
    from ..api.shapes import WorkerReply
    from ..settings.process import WorkerSettings

app = typer.Typer(help="Workers: run them, see them.", rich_markup_mode=None, no_args_is_help=True)

COLUMNS: Columns[WorkerReply] = {
    "id": lambda worker: worker.id,
    "host": lambda worker: worker.host,
    "pid": lambda worker: worker.pid,
    "state": lambda worker: "lost" if worker.lost else worker.state,
    "slots": lambda worker: worker.concurrency,
    "heartbeat": lambda worker: worker.silent,
    "since": lambda worker: worker.started_at,
    "queues": lambda worker: worker.queues,
}


@app.command("list")
def list_workers(config: Config = None, as_json: AsJson = False) -> None:
    """List every worker that is known to the database.

    HEARTBEAT is how long ago it was last heard of; `lost` means that its jobs are given to others.

    \b
      hammerwork worker list
    """
    from ...core import operate
    from ..api.shapes import WorkerReply
    from .session import talk

    workers = talk(config, lambda session: operate.workers(session.database))
    show_list([WorkerReply.model_validate(worker) for worker in workers], COLUMNS, as_json)


@app.command()
def run(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP")],
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", "-q", metavar="NAME", help="Only this one; may be repeated."),
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", "-c", metavar="N", min=1, help="Jobs at once.")
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option("--processes", metavar="N", min=0, help="Processes; 0: one a core, 1: no supervisor."),
    ] = None,
    lease: Annotated[
        str | None, typer.Option(metavar="SPAN", help="After this silence its jobs go to others.")
    ] = None,
    drain: Annotated[
        str | None, typer.Option(metavar="SPAN", help="What running jobs get to end at a stop.")
    ] = None,
    poll: Annotated[
        str | None, typer.Option(metavar="SPAN", help="How often it looks without a hint.")
    ] = None,
    config: Config = None,
) -> None:
    """Run the jobs of an application's queues.

    MODULE:APP is a Handlers, a mapping of queue to function, a Worker or a WorkerPool; the current folder
    is searched, too. SIGTERM or Ctrl-C hands back what has not started and lets the rest end; a second
    one cancels it. What is not given here comes from [worker] of the settings.

    With several processes each has these limits for itself; a supervisor passes the signals on and
    replaces a process that dies.

    \b
      hammerwork worker run shop.jobs:handlers --queue orders --concurrency 50 --processes 4
    """
    from ..garbage import collect_seldom

    collect_seldom()
    from ..settings import load
    from ..settings.process import WorkerSettings
    from .working import work

    settings = load(config)
    given: dict[str, object] = {
        "queues": tuple(queue) if queue else None,
        "concurrency": concurrency,
        "lease": lease and read_duration(lease),
        "drain": drain and read_duration(drain),
        "poll": poll and read_duration(poll),
    }
    given = {name: value for name, value in given.items() if value is not None}
    number = {} if processes is None else {"processes": processes}
    wanted = _fitted(WorkerSettings, {**settings.worker.model_dump(), **given, **number})
    raise typer.Exit(work(settings, target, wanted, sorted(given)))


def _fitted(model: type[WorkerSettings], values: dict[str, object]) -> WorkerSettings:
    from pydantic import ValidationError

    try:
        return model.model_validate(values)
    except ValidationError as error:
        from ..api.problems import invalid_parameters

        raise typer.BadParameter("--" + invalid_parameters(error, model).detail) from None
