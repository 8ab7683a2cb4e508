"""Jobs of Sidekiq and Active Job as jobs: a transform for a bridge that brings their JSON.

Read is what https://github.com/sidekiq/sidekiq/wiki/Job-Format describes, with Active Job's own object
inside, or that object alone (as its adapters for AMQP brokers send it).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime

from . import BadMessage, Draft, Json, Message

WRAPPERS = frozenset({"ActiveJob::QueueAdapters::SidekiqAdapter::JobWrapper", "Sidekiq::ActiveJob::Wrapper"})
KEYWORDS = "_aj_ruby2_keywords"
"""Active Job marks a last argument that held keywords with this key, which lists them."""

MILLISECONDS = 100_000_000_000
"""A time above this is in milliseconds: so Sidekiq 8 writes them."""


def to_draft(message: Message, body: Json) -> Draft:
    """The transform: `{"task", "args", "kwargs"}` is the payload, the jid the correlation id.

    `at` becomes run_at; `retry` max_attempts, where it is a number or false. What else the job says of itself
    (its `queue`, `retry_count`, `created_at`, …) is in the headers, where an expression finds it.
    Raises BadMessage, with `not_sidekiq` for what is neither.
    """
    match body:
        case {"class": str(name), "args": list(args)} if name:
            wrapped = args[0] if name in WRAPPERS and args else None
            task, own_args, kwargs = _active_job(wrapped) if isinstance(wrapped, dict) else (name, args, {})
            identity, at, retry = body.get("jid"), body.get("at"), body.get("retry")
            said = {key: value for key, value in body.items() if key not in ("class", "args")}
        case {"job_class": _}:
            task, own_args, kwargs = _active_job(body)
            identity, at, retry = body.get("job_id"), body.get("scheduled_at"), None
            said = {key: value for key, value in body.items() if key not in ("job_class", "arguments")}
        case _:
            raise BadMessage("not_sidekiq", "neither `class` and `args` nor `job_class` and `arguments`")
    return Draft(
        payload={"task": task, "args": own_args, "kwargs": kwargs},
        headers={**message.headers, **{key: value for key, value in said.items() if value is not None}},
        correlation_id=identity if isinstance(identity, str) else None,
        run_at=_moment(at),
        max_attempts=_attempts(retry),
    )


def _active_job(job: Mapping[str, Json]) -> tuple[str, list[Json], dict[str, Json]]:
    """Class, arguments and keywords; what Active Job has serialised (`_aj_globalid`, …) stays as it is."""
    name, arguments = job.get("job_class"), job.get("arguments")
    if not isinstance(name, str) or not name or not isinstance(arguments, list):
        raise BadMessage("not_sidekiq", "an Active Job needs `job_class`, a text, and `arguments`, a list")
    match arguments:
        case [*args, dict() as last] if KEYWORDS in last:
            return name, args, {key: value for key, value in last.items() if key != KEYWORDS}
        case _:
            return name, arguments, {}


def _moment(value: Json) -> datetime | None:
    match value:
        case None:
            return None
        case bool():
            pass
        case int() | float():
            seconds = value / 1000 if value > MILLISECONDS else value
            try:
                return datetime.fromtimestamp(seconds, UTC)
            except (OverflowError, OSError, ValueError) as error:
                raise BadMessage("bad_run_at", f"{value!r} is no Unix time") from error
        case str():
            with suppress(ValueError):
                return datetime.fromisoformat(value)
    raise BadMessage("bad_run_at", f"{str(value)[:80]!r} is no time")


def _attempts(retry: Json) -> int | None:
    """Sidekiq counts retries, we count attempts; `true` is its default, and leaves it to ours."""
    match retry:
        case False:
            return 1
        case True | None:
            return None
        case int() if 0 <= retry < 32_767:
            return retry + 1
        case _:
            raise BadMessage("bad_max_attempts", f"retry is {str(retry)[:80]!r}")
