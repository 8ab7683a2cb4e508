"""Commands about queues."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from .options import AsJson, Config, Reason
from .output import Columns, note, show_list, show_one

if TYPE_CHECKING:
    from ..api.shapes import QueueReply
    from .session import Session

app = typer.Typer(help="Queues: what waits in them, pausing.", rich_markup_mode=None, no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME")]

COLUMNS: Columns[QueueReply] = {
    "queue": lambda queue: queue.queue,
    "state": lambda queue: _state(queue),
    "available": lambda queue: queue.available,
    "running": lambda queue: queue.running,
    "scheduled": lambda queue: queue.scheduled,
    "blocked": lambda queue: queue.blocked,
    "oldest": lambda queue: queue.oldest,
    "reason": lambda queue: queue.pause_reason,
}


def _state(queue: QueueReply) -> str:
    if queue.paused_at is not None:
        return "paused"
    return "busy" if queue.running else "waiting" if queue.available else "idle"


@app.command("list")
def list_queues(config: Config = None, as_json: AsJson = False) -> None:
    """List every queue that has live jobs or is paused.

    OLDEST is how long the job that is next in time has been due.

    \b
      hammerwork queue list
    """
    show_list(_queues(config), COLUMNS, as_json)


@app.command("status")
def queue_status(
    name: Annotated[str | None, typer.Argument(metavar="NAME")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one queue, or all of them.

    A queue without live jobs that is not paused is not found: queues come and go with their jobs.

    \b
      hammerwork queue status orders
    """
    queues = _queues(config)
    if name is None:
        show_list(queues, COLUMNS, as_json)
        return
    for queue in queues:
        if queue.queue == name:
            show_one(queue, as_json)
            return
    from ...core.errors import NotFound

    raise NotFound(
        f"queue {name!r} has no live jobs and is not paused{_nearest(name, [q.queue for q in queues])}"
    )


@app.command()
def pause(name: Name, reason: Reason = "", config: Config = None) -> None:
    """Let workers claim nothing more of a queue.

    What runs goes on; new jobs are still taken. Whoever looks at the queue reads the reason. A queue that
    nothing knows yet is paused, too, and said to be so: it may be misspelt.

    \b
      hammerwork queue pause orders --reason "deploy 41"
    """
    from .session import talk

    async def act(session: Session) -> set[str]:
        known = await _known(session)
        await session.queue.pause(name, reason)
        return known

    known = talk(config, act)
    note(f"queue {name} is paused")
    if name not in known:
        note(f"note: it has no live jobs, and no worker takes it{_nearest(name, known)}")


@app.command()
def resume(name: Name, config: Config = None) -> None:
    """Let workers claim of a queue again.

    Says so when the queue was not paused; that is no error.

    \b
      hammerwork queue resume orders
    """
    from .session import talk

    resumed = talk(config, lambda session: session.queue.resume(name))
    note(f"queue {name} is resumed" if resumed else f"queue {name} was not paused")


def _queues(config: Config) -> list[QueueReply]:
    from ..api.shapes import QueueReply
    from .session import talk

    stats = talk(config, lambda session: session.queue.stats())
    return [QueueReply.model_validate(queue) for queue in stats]


async def _known(session: Session) -> set[str]:
    """The queues that have live jobs, are paused, or are taken by a worker."""
    from ...core import operate

    served = {queue for worker in await operate.workers(session.database) for queue in worker.queues}
    return served | {stats.queue for stats in await session.queue.stats()}


def _nearest(name: str, known: Iterable[str]) -> str:
    from difflib import get_close_matches

    close = get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
