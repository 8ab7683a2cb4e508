"""Commands about sinks and their deliveries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from .jobs import each
from .options import AsJson, Config, JobIds, Limit, Reason, read_moment
from .output import Columns, note, say, show_list

if TYPE_CHECKING:
    from ..api.shapes import DeliveryReply, SinkReply
    from .session import Session

app = typer.Typer(help="Where events go, and what came of it.", rich_markup_mode=None, no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME")]
EVENTS_COUNTED = 10_000

SINKS: Columns[SinkReply] = {
    "name": lambda sink: sink.name,
    "kind": lambda sink: sink.kind,
    "state": lambda sink: sink.state,
    "behind": lambda sink: f"{EVENTS_COUNTED}+" if sink.behind > EVENTS_COUNTED else sink.behind,
    "lag": lambda sink: sink.lag,
    "failing since": lambda sink: sink.failing_since,
    "events": lambda sink: sink.types,
    "reason": lambda sink: sink.reason,
}

DELIVERIES: Columns[DeliveryReply] = {
    "job": lambda delivery: delivery.job_id,
    "at": lambda delivery: delivery.at,
    "attempt": lambda delivery: delivery.attempt,
    "outcome": lambda delivery: delivery.outcome,
    "status": lambda delivery: delivery.status,
    "took": lambda delivery: delivery.ran,
    "event": lambda delivery: delivery.event_id,
    "error": lambda delivery: delivery.error,
}


@app.command("list")
def list_sinks(config: Config = None, as_json: AsJson = False) -> None:
    """List the sinks that gateways have registered.

    BEHIND is how many events a sink has not been given yet, LAG how old the oldest of them is.

    \b
      hammerwork sink list
    """
    from ...core import operate
    from ..api.shapes import SinkReply
    from .session import talk

    sinks = talk(config, lambda session: operate.sinks(session.database))
    show_list([SinkReply.model_validate(sink) for sink in sinks], SINKS, as_json)


@app.command()
def pause(name: Name, reason: Reason = "", config: Config = None) -> None:
    """Hold a sink's events and deliveries.

    Nothing is lost: they wait until the sink is resumed.

    \b
      hammerwork sink pause webhook --reason "their maintenance until 20:00"
    """
    from ...core import operate
    from .session import talk

    talk(config, lambda session: operate.pause_sink(session.database, name, reason))
    note(f"sink {name} is paused")


@app.command()
def resume(name: Name, config: Config = None) -> None:
    """Go on where a sink stopped.

    Also for a sink that was disabled because its destination was gone.

    \b
      hammerwork sink resume webhook
    """
    from ...core import operate
    from .session import talk

    talk(config, lambda session: operate.resume_sink(session.database, name))
    note(f"sink {name} is active")


@app.command()
def remove(name: Name, config: Config = None) -> None:
    """Forget a sink that is not in the settings any more.

    Its position goes, so events are not kept for it; deliveries that wait stay in the queue
    `sink.NAME`. Refused while a gateway relays to it.

    \b
      hammerwork sink remove webhook
    """
    from ...core import operate
    from .session import talk

    talk(config, lambda session: operate.remove_sink(session.database, name))
    note(f"sink {name} is forgotten")


@app.command()
def replay(
    name: Name,
    since: Annotated[str, typer.Option(metavar="TIME", help="A time (RFC 3339), or a span back such as 2h.")],
    config: Config = None,
) -> None:
    """Deliver all kept events from a time on again, and print how many.

    They keep their first ids, so a receiver that remembers ids takes none of them twice.

    \b
      hammerwork sink replay webhook --since 2026-11-23T18:00:00Z
    """
    from ...core import operate
    from ...core.errors import NotFound
    from ..parts import build_parts
    from .session import talk

    moment = read_moment(since)

    async def act(session: Session) -> int:
        outlet = build_parts(session.settings).outlets.get(name)
        if outlet is None:
            raise NotFound(f"no sink {name!r} is configured and enabled; its settings say what it wants")
        return await operate.replay_sink_since(session.database, outlet.subscription, moment)

    say(str(talk(config, act)))


@app.command()
def deliveries(
    name: Name,
    failed: Annotated[bool, typer.Option("--failed", help="Only those that were not taken.")] = False,
    limit: Limit = 50,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List a sink's tries to deliver, newest first.

    JOB is what `sink send-again` takes.

    \b
      hammerwork sink deliveries webhook --failed
    """
    from ...core import operate
    from ...core.errors import NotFound
    from ...core.operate import DeliveryRecord
    from ..api.shapes import DeliveryReply
    from .session import talk

    async def look(session: Session) -> list[DeliveryRecord]:
        if name not in {sink.name for sink in await operate.sinks(session.database)}:
            raise NotFound(f"no sink {name!r}")
        return await operate.deliveries(session.database, name, failed=failed, limit=limit)

    tries = talk(config, look)
    show_list([DeliveryReply.model_validate(delivery) for delivery in tries], DELIVERIES, as_json)


@app.command("send-again")
def send_again(job_ids: JobIds, config: Config = None) -> None:
    """Deliver events again, under their first ids.

    JOB_ID is a delivery's job, the first column of `sink deliveries`.

    \b
      hammerwork sink deliveries webhook --failed | cut -f1 | sort -u | xargs hammerwork sink send-again
    """
    from ...core import operate

    async def act(session: Session, job_id: UUID) -> str:
        await operate.replay_delivery(session.database, job_id)
        return "will be sent again"

    each(config, job_ids, act)
