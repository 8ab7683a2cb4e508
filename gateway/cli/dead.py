"""Commands about dead letters."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from .jobs import each
from .options import AsJson, Before, Config, LetterId, LetterIds, Limit, Yes, confirm
from .output import Columns, escaped, say, show_list, show_one

if TYPE_CHECKING:
    from ..api.shapes import DeadLetterReply
    from .session import Session

app = typer.Typer(
    help="Dead letters: messages and jobs that were given up.", rich_markup_mode=None, no_args_is_help=True
)

COLUMNS: Columns[DeadLetterReply] = {
    "id": lambda letter: letter.id,
    "from": lambda letter: letter.bridge or letter.queue,
    "reason": lambda letter: letter.reason,
    "bytes": lambda letter: letter.body_size,
    "at": lambda letter: letter.created_at,
    "message": lambda letter: letter.message_id or letter.job_id,
    "fate": lambda letter: _fate(letter),
    "detail": lambda letter: letter.detail,
}


def _fate(letter: DeadLetterReply) -> str:
    if letter.replayed_at is not None:
        return "replayed"
    return "discarded" if letter.discarded_at is not None else "open"


@app.command("list")
def list_letters(
    bridge: Annotated[str | None, typer.Option(metavar="NAME", help="Messages of this bridge.")] = None,
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Jobs of this queue.")] = None,
    reason: Annotated[str | None, typer.Option(metavar="CODE", help="Such as not_json.")] = None,
    closed: Annotated[bool, typer.Option("--all", help="Also replayed and discarded ones.")] = False,
    limit: Limit = 50,
    before: Before = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List dead letters, newest first.

    Those that were replayed or discarded are left out; --all lists them, too.

    \b
      hammerwork dead list --bridge rabbitmq --reason not_json
    """
    from ...core import operate
    from ..api.shapes import DeadLetterReply
    from .session import talk

    letters = talk(
        config,
        lambda session: operate.dead_letters(
            session.database,
            bridge=bridge,
            queue=queue,
            reason=reason,
            before=before,
            limit=limit,
            closed=closed,
        ),
    )
    show_list([DeadLetterReply.model_validate(letter) for letter in letters], COLUMNS, as_json)


@app.command()
def show(
    letter_id: LetterId,
    body: Annotated[bool, typer.Option("--body", help="The original bytes alone.")] = False,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Show one dead letter: reason, headers, where it was, and its bytes.

    With --body the bytes as they came, for a file or a pipe.

    \b
      hammerwork dead show 01994c2e-7c1d-7b3a-9f00-3c5a2f1b8e44 --body > message.bin
    """
    from ...core import operate
    from ..api.shapes import DeadLetterDetail
    from .session import talk

    letter = talk(config, lambda session: operate.dead_letter(session.database, letter_id))
    if not body:
        show_one(DeadLetterDetail.of(letter), as_json)
    elif sys.stdout.isatty():
        say(escaped(letter.body.decode("utf-8", "backslashreplace"), keep="\n"))
    else:
        sys.stdout.buffer.write(letter.body)


@app.command()
def replay(letter_ids: LetterIds, config: Config = None) -> None:
    """Try dead letters again.

    A job gets new attempts; a message goes through its bridge's decoding and mapping, as configured now; an
    event goes to its sink again.

    \b
      hammerwork dead list --reason not_json | cut -f1 | xargs hammerwork dead replay
    """
    from ...core import operate
    from ..parts import Replayers

    async def act(session: Session, letter_id: UUID) -> str:
        known = Replayers(session.settings)
        job_id = await operate.replay(session.database, letter_id, known)
        if job_id is not None:
            return str(job_id)
        replayed = await operate.dead_letter(session.database, letter_id)
        return "goes to its sink again" if replayed.letter.bridge is None else "filtered out by the mapping"

    each(config, letter_ids, act)


@app.command()
def discard(letter_ids: LetterIds, yes: Yes = False, config: Config = None) -> None:
    """Close dead letters without a replay.

    Several at once are asked about first. They stay readable for the retention time (`dead list --all`).

    \b
      hammerwork dead list --reason not_json | cut -f1 | xargs hammerwork dead discard --yes
    """
    from ...core import operate

    confirm(f"discard {len(letter_ids)} dead letters", len(letter_ids), yes)

    async def act(session: Session, letter_id: UUID) -> str:
        await operate.discard(session.database, letter_id)
        return "discarded"

    each(config, letter_ids, act)
