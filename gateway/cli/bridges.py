"""Commands about bridges."""

from __future__ import annotations

import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from .failures import Ended, ExitCode
from .options import AsJson, Config, Reason, read_duration
from .output import Columns, note, show_list

if TYPE_CHECKING:
    from ...core.job import Json
    from ..api.shapes import OffsetReply

app = typer.Typer(help="What brings messages in.", rich_markup_mode=None, no_args_is_help=True)

Name = Annotated[str, typer.Argument(metavar="NAME")]
LARGEST_OFFSET = 2**63 - 1
PATIENCE = timedelta(seconds=5)

OFFSETS: Columns[OffsetReply] = {
    "partition": lambda kept: kept.partition,
    "next offset": lambda kept: kept.next_offset,
    "moved": lambda kept: kept.moved_at,
    "fence": lambda kept: kept.fence,
}


@app.command("list")
def list_bridges(config: Config = None, as_json: AsJson = False) -> None:
    """List the bridges, configured here or opened by a gateway.

    STATE is active, paused, disabled (by its settings), unopened (no gateway has ever run it) or
    unconfigured (some other gateway's). What each guarantees needs its broker: `hammerwork check`
    connects and tells; how many messages wait there, a gateway's /metrics.

    \b
      hammerwork bridge list --json
    """
    from .bridge_list import COLUMNS, listed

    show_list(listed(config), COLUMNS, as_json)


@app.command()
def pause(name: Name, reason: Reason = "", config: Config = None) -> None:
    """Take no more messages by a bridge, in any gateway.

    Within two seconds it only stays connected; its messages wait at the broker, and an HTTP bridge
    answers 503.

    \b
      hammerwork bridge pause orders --reason "schema change until 20:00"
    """
    from ...core import operate
    from .session import talk

    talk(config, lambda session: operate.pause_bridge(session.database, name, reason))
    note(f"bridge {name} is paused")


@app.command()
def resume(name: Name, config: Config = None) -> None:
    """Take messages by a bridge again.

    Also one that paused itself because too many messages became dead letters.

    \b
      hammerwork bridge resume orders
    """
    from ...core import operate
    from .session import talk

    resumed = talk(config, lambda session: operate.resume_bridge(session.database, name))
    note(f"bridge {name} is resumed" if resumed else f"bridge {name} was not paused")


@app.command()
def offsets(name: Name, config: Config = None, as_json: AsJson = False) -> None:
    """List how far each partition of a log (Kafka) was read.

    NEXT OFFSET is the first that is not stored yet; it moves in the transaction that stores the jobs.

    \b
      hammerwork bridge offsets orders
    """
    from ...core import operate
    from ..api.shapes import OffsetReply
    from .session import talk

    kept = talk(config, lambda session: operate.bridge_offsets(session.database, name))
    show_list([OffsetReply.model_validate(offset) for offset in kept], OFFSETS, as_json)


@app.command()
def seek(
    name: Name,
    partition: Annotated[str, typer.Option(metavar="NAME", help="As `bridge offsets` lists it.")],
    offset: Annotated[int, typer.Option(metavar="N", min=0, max=LARGEST_OFFSET, help="The next to read.")],
    config: Config = None,
) -> None:
    """Let a paused bridge go on elsewhere in a log.

    Back: messages are read again, and become jobs again unless their identity is still known. On: what
    lies between is never read. Refused unless the bridge is paused; takes effect when it is resumed.

    \b
      hammerwork bridge pause orders
      hammerwork bridge seek orders --partition orders-0 --offset 1042
      hammerwork bridge resume orders
    """
    from ...core import operate
    from .session import talk

    before = talk(config, lambda session: operate.seek_bridge(session.database, name, partition, offset))
    note(f"{partition} goes on at {offset}" + ("" if before is None else f", not at {before}"))


@app.command()
def tap(
    name: Name,
    count: Annotated[int, typer.Option("--n", metavar="N", min=1, max=1000, help="At most so many.")] = 10,
    wait: Annotated[
        timedelta | None,
        typer.Option(metavar="SPAN", parser=read_duration, help="For the first to come; 5s if not given."),
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show live messages and what each would become, and give them back.

    Nothing is stored or acknowledged. A broker that hands messages out still notices: for as long as
    they are looked at, nobody else gets them; RabbitMQ then marks them as redelivered, and like SQS
    it counts one more delivery of each, which its own limits on deliveries see.

    \b
      hammerwork bridge tap orders --n 3 --json
    """
    from ..parts import ingest_of
    from ..settings import load
    from . import preview
    from .session import quiet_logs

    quiet_logs()
    ingest = ingest_of(load(config), name)
    preview.show(preview.tapped(config, ingest, count, PATIENCE if wait is None else wait), as_json)


@app.command("dry-run")
def dry_run(
    name: Name,
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="The body of a message; - reads standard input.")
    ],
    lines: Annotated[bool, typer.Option("--lines", help="Each line is a message.")] = False,
    header: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=TEXT", help="A header; NAME:=JSON for what is no text. May be repeated."),
    ] = None,
    key: Annotated[str | None, typer.Option(metavar="TEXT", help="The message's key.")] = None,
    message_id: Annotated[str | None, typer.Option("--id", metavar="TEXT", help="Its identity.")] = None,
    content_type: Annotated[str | None, typer.Option(metavar="TYPE")] = None,
    content_encoding: Annotated[str | None, typer.Option(metavar="ENCODING", help="Such as gzip.")] = None,
    priority: Annotated[int | None, typer.Option(metavar="N", min=0, max=255, help="The broker's.")] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show what a bridge would make of messages in a file.

    Decodes and maps them as the gateway would, and connects to nothing. Exits with 8 when one of them
    would become a dead letter.

    \b
      hammerwork bridge dry-run orders sample.json --header x-region=eu
      hammerwork dead show ID --body | hammerwork bridge dry-run orders -
    """
    from ...core.message import Message
    from ..parts import ingest_of
    from ..settings import load
    from . import preview
    from .session import quiet_logs

    quiet_logs()
    sample = Message(
        body=b"",
        id=message_id,
        key=key,
        headers=dict(read_header(text) for text in header or ()),
        content_type=content_type,
        content_encoding=content_encoding,
        priority=priority,
    )
    bodies = read_bodies(file, lines=lines)
    items = preview.foreseen(ingest_of(load(config), name), sample, bodies)
    preview.show(items, as_json)
    if any(item.bad is not None for item in items):
        raise Ended(ExitCode.FINDINGS)


def read_header(text: str) -> tuple[str, Json]:
    """A header from the command line: NAME=TEXT, or NAME:=JSON."""
    name, equals, value = text.partition("=")
    if not equals or not name.rstrip(":"):
        raise typer.BadParameter(f"{text!r} is no header such as x-region=eu or retries:=3")
    if not name.endswith(":"):
        return name, value
    try:
        return name[:-1], json.loads(value)
    except ValueError as error:
        raise typer.BadParameter(f"the header {name[:-1]!r} is not JSON: {error}") from None


def read_bodies(file: str, *, lines: bool) -> list[bytes]:
    """The bodies in a file, or on standard input: one, or each line that is not empty."""
    content = sys.stdin.buffer.read() if file == "-" else Path(file).read_bytes()
    return [line for line in content.splitlines() if line.strip()] if lines else [content]
