"""Commands about jobs."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from .failures import Ended, ExitCode
from .options import (
    AsJson,
    Before,
    Config,
    JobId,
    JobIds,
    Limit,
    Reason,
    Yes,
    confirm,
    read_duration,
    read_id,
)
from .output import Columns, note, say, show_json, show_list, show_one

if TYPE_CHECKING:
    from datetime import timedelta

    from ...core.job import JobState
    from ..api.shapes import JobReply, JobRequest
    from .session import Session

app = typer.Typer(help="Jobs: enqueue, look, wait, act.", rich_markup_mode=None, no_args_is_help=True)

COLUMNS: Columns[JobReply] = {
    "id": lambda job: job.id,
    "queue": lambda job: job.queue,
    "state": lambda job: job.state,
    "priority": lambda job: job.priority,
    "attempt": lambda job: f"{job.attempt}/{job.max_attempts}",
    "run at": lambda job: job.run_at,
    "finished": lambda job: job.finished_at,
    "correlation": lambda job: job.correlation_id,
    "error": lambda job: job.error,
}


@app.command("list")
def list_jobs(
    queue: Annotated[str | None, typer.Option(metavar="NAME", help="Of this queue.")] = None,
    state: Annotated[str | None, typer.Option(metavar="STATE", help="Such as available or dead.")] = None,
    correlation_id: Annotated[str | None, typer.Option(metavar="ID", help="With this one.")] = None,
    limit: Limit = 50,
    before: Before = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """List jobs, newest first, live and finished.

    Into a pipe the id is the first column, ready for xargs.

    \b
      hammerwork job list --queue orders --state dead
    """
    from ...core.job import JobState
    from ..api.shapes import JobReply
    from .session import talk

    wanted = None if state is None else _one_of(JobState, state, "--state")
    jobs = talk(
        config,
        lambda session: session.queue.jobs(
            queue=queue, state=wanted, correlation_id=correlation_id, before=before, limit=limit
        ),
    )
    show_list([JobReply.model_validate(job) for job in jobs], COLUMNS, as_json)


@app.command()
def show(job_id: JobId, config: Config = None, as_json: AsJson = False) -> None:
    """Show one job with its payload and its unsuccessful attempts.

    With --json the tracebacks of the attempts, too.

    \b
      hammerwork job show 01994c2e-7c1d-7b3a-9f00-3c5a2f1b8e44
    """
    from ...core import operate
    from ..api.shapes import AttemptReply, JobReply
    from .session import talk

    async def look(session: Session) -> tuple[JobReply, list[AttemptReply]]:
        job = await session.queue.get(job_id)
        attempts = await operate.attempts(session.database, job_id)
        return JobReply.model_validate(job), [AttemptReply.model_validate(attempt) for attempt in attempts]

    job, attempts = talk(config, look)
    if as_json:
        show_json(job.model_dump(mode="json") | {"attempts": [a.model_dump(mode="json") for a in attempts]})
        return
    said = {f"attempt {a.attempt}": f"{a.cause}: {a.error or ''}" for a in attempts}
    show_one(job.model_dump(mode="json") | said, as_json=False)


@app.command()
def enqueue(
    queue: Annotated[str, typer.Argument(metavar="QUEUE")],
    payload: Annotated[str, typer.Argument(metavar="PAYLOAD|-|@FILE", show_default=False)] = "null",
    priority: Annotated[str, typer.Option(metavar="NAME", help="background … critical.")] = "normal",
    delay: Annotated[str | None, typer.Option(metavar="SPAN", help="Run in 30s, 5m, 2h, …")] = None,
    run_at: Annotated[str | None, typer.Option(metavar="TIME", help="Run at that time (RFC 3339).")] = None,
    correlation_id: Annotated[str | None, typer.Option(metavar="ID", help="Find it again by this.")] = None,
    max_attempts: Annotated[int, typer.Option(metavar="N", help="Give up after so many.")] = 5,
    timeout: Annotated[str | None, typer.Option(metavar="SPAN", help="For one attempt.")] = None,
    job_id: Annotated[
        UUID | None, typer.Option("--id", metavar="ID", parser=read_id, help="Enqueue it once under this id.")
    ] = None,
    config: Config = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a job and print its id.

    The payload is JSON: given as text, by `-` on standard input, or by @FILE; without one it is null.

    \b
      hammerwork job enqueue orders '{"order": 42}' --priority high --delay 5m
    """
    from ..api.shapes import EnqueuedReply
    from .session import talk

    given = {
        "queue": queue,
        "priority": priority,
        "delay": delay,
        "run_at": run_at,
        "correlation_id": correlation_id,
        "max_attempts": max_attempts,
        "timeout": timeout,
        "id": job_id,
    }
    job = _requested(given, _payload(payload)).job()
    outcomes = talk(config, lambda session: session.queue.enqueue_many([job]))
    reply = EnqueuedReply(id=job.id, outcome=outcomes[0])
    if as_json:
        show_one(reply, as_json)
        return
    say(str(job.id))
    if reply.outcome == "duplicate":
        note(f"job {job.id} existed already and was left as it is")


@app.command()
def cancel(
    job_ids: JobIds, reason: Reason = "cancelled by an operator", yes: Yes = False, config: Config = None
) -> None:
    """Cancel jobs that wait, and ask running ones to stop.

    Several at once are asked about first. A finished job is refused (exit code 5).

    \b
      hammerwork job list --queue orders --state scheduled | cut -f1 | xargs hammerwork job cancel --yes
    """
    confirm(f"cancel {len(job_ids)} jobs", len(job_ids), yes)

    async def act(session: Session, job_id: UUID) -> str:
        was = await session.queue.cancel(job_id, reason)
        return "asked to stop" if was == "running" else "cancelled"

    each(config, job_ids, act)


@app.command()
def retry(job_ids: JobIds, config: Config = None) -> None:
    """Run finished jobs again, or scheduled ones now.

    They get all their attempts anew. A job that waits or runs is refused (exit code 5).

    \b
      hammerwork job list --queue orders --state dead | cut -f1 | xargs hammerwork job retry
    """

    async def act(session: Session, job_id: UUID) -> str:
        await session.queue.retry(job_id)
        return "will run again"

    each(config, job_ids, act)


@app.command()
def result(
    job_id: JobId,
    timeout: Annotated[str, typer.Option(metavar="SPAN", help="How long to wait for it.")] = "10s",
    config: Config = None,
) -> None:
    """Wait for a job and print its result as JSON.

    Exits with 1 when the job ended without one (dead, cancelled) or is not finished in time.

    \b
      hammerwork job result 01994c2e-7c1d-7b3a-9f00-3c5a2f1b8e44 --timeout 1m
    """
    from .session import talk

    patience = _patience(timeout)
    show_json(talk(config, lambda session: session.queue.result(job_id, timeout=patience)))


@app.command()
def wait(
    job_id: JobId,
    timeout: Annotated[str, typer.Option(metavar="SPAN", help="How long at most.")] = "1h",
    config: Config = None,
) -> None:
    """Wait until a job is finished and print how it ended.

    Exits with 0 when it is completed, with 1 when it is dead, cancelled or still not finished.

    \b
      hammerwork job wait $(hammerwork job enqueue orders '{"order": 42}')
    """
    from ...core.errors import JobUnsuccessful, ResultExpired
    from .session import talk

    patience = _patience(timeout)

    async def until_finished(session: Session) -> JobUnsuccessful | None:
        try:
            await session.queue.result(job_id, timeout=patience)
        except ResultExpired:
            return None
        except JobUnsuccessful as end:
            return end
        return None

    end = talk(config, until_finished)
    say("completed" if end is None else end.state)
    if end is not None:
        raise end


def each(config: Config, ids: list[UUID], act: Callable[[Session, UUID], Awaitable[str]]) -> None:
    """Do something to each id in turn and say what came of it; one that is refused stops no other."""
    from ...core.errors import BadMessage, NotFound, StateConflict
    from .failures import failure_of
    from .session import talk

    async def acts(session: Session) -> ExitCode:
        code = ExitCode.OK
        for one in ids:
            try:
                say(f"{one}\t{await act(session, one)}")
            except (NotFound, StateConflict, BadMessage) as error:
                if len(ids) == 1:
                    raise
                failure = failure_of(error)
                note(f"error: {one}: {failure.message}")
                code = failure.code
        return code

    code = talk(config, acts)
    if code is not ExitCode.OK:
        raise Ended(code)


def _patience(text: str) -> timedelta:
    from datetime import timedelta

    # Queue.result takes a zero for no limit.
    return max(read_duration(text), timedelta(milliseconds=1))


def _one_of(kind: type[JobState], text: str, option: str) -> JobState:
    try:
        return kind(text)
    except ValueError:
        raise typer.BadParameter(f"{option} is one of {', '.join(kind)}, not {text!r}") from None


def _payload(text: str) -> object:
    """The JSON value of an argument, of standard input or of a file."""
    from ...core.errors import BadMessage
    from ...core.ingest.decode import Decoder
    from ...core.message import Message

    if text == "-":
        body, where = sys.stdin.buffer.read(), "standard input"
    elif text.startswith("@"):
        where = text[1:]
        try:
            body = Path(where).read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"{where} cannot be read: {error.strerror}") from None
    else:
        body, where = text.encode("utf-8", "surrogateescape"), "the payload"
    try:
        return Decoder().decode(Message(body=body)).value
    except BadMessage as bad:
        raise typer.BadParameter(
            f"{where} is refused ({bad}); a payload is JSON, and text in it stands in quotes: '\"text\"'"
        ) from None


def _requested(given: Mapping[str, object], payload: object) -> JobRequest:
    from pydantic import ValidationError

    from ..api.problems import invalid_parameters
    from ..api.shapes import JobRequest

    try:
        return JobRequest.model_validate(
            {k: v for k, v in given.items() if v is not None} | {"payload": payload}
        )
    except ValidationError as error:
        raise typer.BadParameter(invalid_parameters(error, JobRequest).detail) from None
