"""Options and arguments that many commands share."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from ..spans import read_span


def read_id(text: str) -> UUID:
    """An id from the command line."""
    try:
        return UUID(text)
    except ValueError:
        raise typer.BadParameter(
            f"{text!r} is not an id such as 01994c2e-7c1d-7b3a-9f00-3c5a2f1b8e44"
        ) from None


def read_duration(text: str) -> timedelta:
    """A span from the command line."""
    try:
        return read_span(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} {error}") from None


def read_moment(text: str) -> datetime:
    """A time, or a span that counts back from now."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        try:
            return datetime.now(UTC) - read_span(text)
        except ValueError:
            raise typer.BadParameter(
                f"{text!r} is neither a time such as 2026-11-23T18:00:00Z nor a span back such as 2h"
            ) from None
    if moment.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no time zone; append Z for UTC")
    return moment


Config = Annotated[
    Path | None,
    typer.Option(
        "--config", metavar="FILE", help="Settings in TOML; HAMMERWORK_* variables go before it.",
        show_default=False,
    ),
]  # fmt: skip
AsJson = Annotated[bool, typer.Option("--json", help="JSON instead of a table.")]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
Reason = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; operators read it later.")]
Limit = Annotated[int, typer.Option("--limit", metavar="N", min=1, max=10_000, help="At most so many.")]

JobId = Annotated[UUID, typer.Argument(metavar="JOB_ID", parser=read_id)]
JobIds = Annotated[list[UUID], typer.Argument(metavar="JOB_ID", parser=read_id)]
LetterId = Annotated[UUID, typer.Argument(metavar="ID", parser=read_id)]
LetterIds = Annotated[list[UUID], typer.Argument(metavar="ID", parser=read_id)]
Before = Annotated[
    UUID | None,
    typer.Option("--before", metavar="ID", parser=read_id, help="The page that follows this id."),
]
Span = Annotated[timedelta | None, typer.Option(metavar="SPAN", parser=read_duration)]


def confirm(act: str, count: int, yes: bool) -> None:
    """Ask before something is done to several things at once; without a terminal, insist on --yes."""
    if yes or count == 1:
        return
    import sys

    if not sys.stdin.isatty():
        raise typer.BadParameter(f"this would {act}, and nobody is there to ask: add --yes")
    typer.confirm(f"{act}?", abort=True, err=True)
