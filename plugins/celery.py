"""Celery's task messages as jobs: a transform for a bridge on the queues of a Celery application.

Read are protocol 2 (Celery 4 and newer) and 1, as https://docs.celeryq.dev/en/stable/internals/protocol.html
and `celery.app.amqp` have them, and the envelope in which kombu wraps either for brokers that are not AMQP
(`kombu.transport.virtual`; SQS encodes it once more). JSON only: what would have to be unpickled is refused.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from . import BadMessage, Decoder, Draft, Json, Message

JSON = "application/json"
LONGEST = timedelta(days=3653).total_seconds()
BODY_PLACE = ("args", "kwargs", "embed")
FOLLOW_UPS = ("callbacks", "errbacks", "chain", "chord")
IN_PAYLOAD = frozenset({"args", "kwargs", "argsrepr", "kwargsrepr", *FOLLOW_UPS})
"""What is no header of the job: it is in the payload, or repeats it."""

INNER = Decoder(max_bytes=2**31)
"""Reads what is wrapped in a body; the bridge's own decoder has measured the whole already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CeleryTask:
    """What a task message says. `headers` are protocol 2's, made of the body's fields for protocol 1.

    `follow_ups`: what Celery does after the task, callbacks, errbacks, chain, chord; as far as there are any.
    """

    name: str
    id: str | None
    args: list[Json]
    kwargs: dict[str, Json]
    eta: datetime | None
    expires: datetime | None
    timeout: timedelta | None
    follow_ups: Mapping[str, Json]
    headers: Mapping[str, Json]


def to_draft(message: Message, body: Json) -> Draft | None:
    """The transform: `{"task", "args", "kwargs"}` is the payload, the task's id the correlation id.

    The ETA becomes run_at, the time limit the timeout. A task that has expired is left out, as a Celery
    worker does. One that others are to follow (a chain, a chord, callbacks) becomes the dead letter
    `celery_workflow`: run as a job it would end without them, and nobody would know.
    """
    task = read_task(message, body)
    if task.expires is not None and task.expires <= datetime.now(UTC):
        return None
    if task.follow_ups:
        raise BadMessage("celery_workflow", f"{task.name} has {', '.join(task.follow_ups)} to follow it")
    return Draft(
        payload={"task": task.name, "args": task.args, "kwargs": task.kwargs},
        headers=task.headers,
        correlation_id=task.id,
        run_at=task.eta,
        timeout=task.timeout,
    )


def read_task(message: Message, body: Json) -> CeleryTask:
    """The task of a message. Raises BadMessage, with `not_celery` for what is none."""
    if isinstance(body, str):
        body = _inner(body)
    if isinstance(body, dict) and {"body", "headers", "properties"} <= body.keys():
        message, body = _unwrapped(message, body)
    match body:
        case {"task": _}:
            return _task({**message.headers, **body}, body.get("args"), body.get("kwargs"), body)
        case [args, kwargs, embed] if "task" in message.headers:
            return _task(message.headers, args, kwargs, embed)
        case _:
            why = "neither a body with a task (protocol 1) nor three parts with a header task (protocol 2)"
            raise BadMessage("not_celery", why)


def _task(fields: Mapping[str, Json], args: Json, kwargs: Json, embed: Json) -> CeleryTask:
    name, task_id = fields["task"], fields.get("id")
    args = [] if args is None else args
    kwargs = {} if kwargs is None else kwargs
    embed = {} if embed is None else embed
    if not isinstance(name, str) or not name:
        raise BadMessage("not_celery", "the name of the task is not text")
    for part, value, kind in zip(BODY_PLACE, (args, kwargs, embed), (list, dict, dict), strict=True):
        if not isinstance(value, kind):
            raise BadMessage("not_celery", f"{part} of {name} is a {type(value).__name__}")
    return CeleryTask(
        name=name,
        id=task_id if isinstance(task_id, str) else None,
        args=args,
        kwargs=kwargs,
        eta=_moment("eta", fields),
        expires=_moment("expires", fields),
        timeout=_time_limit(fields.get("timelimit")),
        follow_ups={what: embed[what] for what in FOLLOW_UPS if embed.get(what)},
        headers={key: value for key, value in fields.items() if key not in IN_PAYLOAD and value is not None},
    )


def _moment(name: str, fields: Mapping[str, Json]) -> datetime | None:
    """An ISO 8601 time; one without a zone is UTC, unless the message says that it is not."""
    value = fields.get(name)
    if value is None:
        return None
    try:
        at = datetime.fromisoformat(value)
    except (TypeError, ValueError) as error:
        raise BadMessage("bad_run_at", f"{name} is no time: {error}") from error
    if at.tzinfo is None:
        if fields.get("utc") is False:
            raise BadMessage("bad_run_at", f"{name} has no time zone, and is not UTC as the message says")
        return at.replace(tzinfo=UTC)
    return at


def _time_limit(limits: Json) -> timedelta | None:
    """The hard limit, else the soft one. Celery sends them so, its page on the protocol is wrong."""
    match limits:
        case [int() | float() as limit, _] | [None, int() | float() as limit] if 0 < limit < LONGEST:
            return timedelta(seconds=limit)
        case _:
            return None


def _unwrapped(message: Message, envelope: Mapping[str, Json]) -> tuple[Message, Json]:
    """The message inside a kombu envelope."""
    headers, properties, body = envelope["headers"], envelope["properties"], envelope["body"]
    content_type = envelope.get("content-type")
    if not (isinstance(headers, dict) and isinstance(properties, dict) and isinstance(body, str)):
        raise BadMessage("not_celery", "the envelope is not kombu's")
    if content_type != JSON:
        raise BadMessage("unsupported_content_type", f"{str(content_type)[:80]!r} is not JSON")
    if properties.get("body_encoding") == "base64":
        body = _from_base64(body).decode("utf-8", "replace")
    return message._replace(headers=headers), INNER.decode(Message(body=body.encode())).value


def _inner(text: str) -> Json:
    """What the text of an SQS message holds: JSON, or JSON in base64."""
    raw = text.encode() if text.lstrip().startswith(("{", "[")) else _from_base64(text)
    return INNER.decode(Message(body=raw)).value


def _from_base64(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise BadMessage("not_celery", f"the body is not base64: {error}") from error
