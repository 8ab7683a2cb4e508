"""From a decoded message to the job it asks for: a fixed queue, expressions over the message, or the
application's own function."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import Any, Protocol, final
from uuid import UUID

from ..cancellation import asked_to_end
from ..errors import BadMessage, Misconfigured, Unavailable
from ..expression import ExpressionSet
from ..identity import SLOTS, new_id
from ..importing import named_object
from ..job import DEFAULT_MAX_ATTEMPTS, SINK_QUEUE_PREFIX, Job, Json, Priority, check_name
from ..message import Message
from .decode import check_storable
from .draft import Draft
from .fields import (
    broker_priority,
    carried_headers,
    carried_trace,
    origin_of,
    printable,
    read_correlation_id,
    read_delay,
    read_max_attempts,
    read_priority,
    read_queue,
    read_run_at,
    read_timeout,
    slot_of_message,
)
from .plain import PlainRows

Transform = Callable[[Message, Json], object]
"""An application's own mapping: called with the message and its decoded body, it answers a Job, a Draft, a
dict (taken as the body from here on), or None (the message is not wanted).

A plain function runs on the event loop and must be quick: nothing can end it. An `async def` has a
time-out. BadMessage makes a dead letter with its own reason, Unavailable holds the message until it is
tried again, any other exception makes a dead letter with the reason `transform_failed`.
"""


class Mapper(Protocol):
    """What the intake asks for the job of a message. It keeps no state: messages may be mapped
    concurrently, and are where `waits` says that mapping one may wait for something."""

    @property
    def waits(self) -> bool: ...

    async def map(self, message: Message, body: Json, bridge: str) -> Job | None:
        """The job, or None when the message is filtered out.

        The payload is the very object `body` when nothing changed it. Raises BadMessage for what is
        wrong with the message for ever, Unavailable for what is wrong with the world.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Expressions:
    """CEL expressions, one a field of the job; core/expression.py says what they may name.

    `filter` keeps the message when it is true. `priority` gives a name or 0 to 4, `run_at` a timestamp
    or RFC 3339 text, `delay` and `timeout` a duration or seconds, `payload` any JSON value. A null
    means the field's default, except for `queue` and `payload`.
    """

    queue: str | None = None
    priority: str | None = None
    run_at: str | None = None
    delay: str | None = None
    correlation_id: str | None = None
    payload: str | None = None
    filter: str | None = None
    max_attempts: str | None = None
    timeout: str | None = None


@final
class FieldMapping:
    """The body becomes the payload; the other fields come from the message, settings or expressions.

    Without expressions: `queue`, priority normal (or, with `priority_from_broker`, the broker's 0..9
    in pairs), correlation id, headers and W3C trace context carried over, `origin` saying which message
    it was. The job's slot comes from the message's key, else from bridge and message id, so that a
    redelivery meets its own inbox row. `allowed_queues` are glob patterns that the queue must match;
    the queues of sinks are never open to messages. Raises Misconfigured for what cannot work.
    """

    waits = False

    def __init__(
        self,
        queue: str | None = None,
        *,
        expressions: Expressions | None = None,
        priority_from_broker: bool = False,
        allowed_queues: Sequence[str] = (),
        max_attempts: int = DEFAULT_MAX_ATTEMPTS,
        timeout: timedelta | None = None,
    ) -> None:
        given = expressions or Expressions()
        sources = {name: source for name, source in asdict(given).items() if source is not None}
        self._expressions = ExpressionSet(sources)
        if (queue is None) == (given.queue is None):
            raise Misconfigured("a mapping takes a queue or an expression for it, and not both")
        if given.run_at is not None and given.delay is not None:
            raise Misconfigured("a mapping takes run_at or delay, not both")
        self._allowed = tuple(allowed_queues)
        self._priority_from_broker = priority_from_broker
        self._settings: dict[str, Any] = {"max_attempts": max_attempts, "timeout": timeout}
        if queue is not None:
            check_name("queue", queue)
            if not self.allows(queue):
                raise Misconfigured(
                    f"messages may not go to the queue {queue!r}",
                    hint=f"allowed are {', '.join(self._allowed) or 'all but sink.*'}",
                )
            self._settings["queue"] = queue
        Job(**({"queue": "any"} | self._settings))  # raises Misconfigured for a number out of range

    async def map(self, message: Message, body: Json, bridge: str) -> Job | None:
        return self.fill(message, body, bridge, {})

    def plain(self, bridge: str) -> PlainRows | None:
        """What makes the rows of a bridge's messages at once; None where an expression is to be asked."""
        if self._expressions:
            return None
        return PlainRows(bridge, Job(**self._settings), priority_from_broker=self._priority_from_broker)

    def fill(self, message: Message, body: Json, bridge: str, found: Mapping[str, Any]) -> Job | None:
        """As `map`, with fields of the job that are `found` already: an expression goes before them."""
        if not self._expressions:
            return self._job(message, body, bridge, found)
        scope = self._expressions.scope(message, body, bridge)
        if "filter" in self._expressions and not self._kept(self._expressions.value("filter", scope)):
            return None
        chosen = dict(found)
        for name, read in _READERS.items():
            if name in self._expressions:
                value = self._expressions.value(name, scope)
                if value is not None or name == "queue":
                    chosen[name] = read(value)
        if "delay" in chosen:
            chosen.pop("run_at", None)
        if "queue" in chosen and not self.allows(chosen["queue"]):
            raise BadMessage("queue_not_allowed", chosen["queue"])
        if "payload" in self._expressions:
            chosen["payload"] = self._payload(self._expressions.value("payload", scope))
        return self._job(message, body, bridge, chosen)

    def allows(self, queue: str) -> bool:
        """Whether a message may go to this queue."""
        if queue.startswith(SINK_QUEUE_PREFIX):
            return False
        return not self._allowed or any(fnmatchcase(queue, pattern) for pattern in self._allowed)

    def _job(self, message: Message, body: Json, bridge: str, chosen: Mapping[str, Any]) -> Job:
        traceparent, tracestate = carried_trace(message.headers)
        values: dict[str, Any] = {
            **self._settings,
            "payload": body,
            "id": new_id(slot_of_message(message, bridge)),
            "priority": self._broker_priority(message.priority),
            "correlation_id": read_correlation_id(message.correlation_id),
            "traceparent": traceparent,
            "tracestate": tracestate,
            "headers": carried_headers(message.headers),
            "origin": origin_of(message, bridge),
        }
        if chosen:
            values |= chosen
        return Job(**values)

    def _broker_priority(self, priority: int | None) -> Priority:
        return broker_priority(priority) if self._priority_from_broker else Priority.NORMAL

    def _kept(self, value: Json) -> bool:
        if not isinstance(value, bool):
            raise self._expressions.failed("filter", f"gives a {type(value).__name__}, not true or false")
        return value

    def _payload(self, value: Json) -> Json:
        try:
            check_storable(value, "the payload")
        except BadMessage as error:
            raise self._expressions.failed("payload", str(error)) from error
        return value


class CallableMapping:
    """The application's own function decides; what it leaves open comes from `fields`.

    A dict that it answers is mapped by `fields` as though it were the body, and so is a Draft, which says
    more. A Job that it answers is taken as it is, but for its slot and origin, which come from the message,
    and must name an allowed queue. `timeout` ends an `async def`.
    """

    def __init__(
        self,
        transform: str | Transform,
        fields: FieldMapping,
        *,
        timeout: timedelta = timedelta(seconds=5),
    ) -> None:
        self._transform = load_transform(transform) if isinstance(transform, str) else transform
        self._fields = fields
        self._timeout = timeout.total_seconds()
        self.waits = inspect.iscoroutinefunction(self._transform)

    async def map(self, message: Message, body: Json, bridge: str) -> Job | None:
        match await self._call(message, body):
            case None:
                return None
            case Job() as job:
                return self._completed(job, message, bridge)
            case Draft() as draft:
                return self._filled(draft, message, bridge)
            case dict() as changed:
                check_returned(changed, "the dict")
                return await self._fields.map(message, changed, bridge)
            case other:
                raise BadMessage(
                    "transform_returned",
                    f"a {type(other).__name__}; a Job, a Draft, a dict or None is expected",
                )

    async def _call(self, message: Message, body: Json) -> object:
        try:
            answer = self._transform(message, body)
            if inspect.isawaitable(answer):
                answer = await self._within_timeout(answer)
        except (BadMessage, Unavailable, MemoryError):
            raise
        except asyncio.CancelledError as error:
            if asked_to_end():
                raise
            raise BadMessage("transform_failed", "CancelledError: a call in it was cancelled") from error
        except Exception as error:
            raise BadMessage("transform_failed", printable(f"{type(error).__name__}: {error}")) from error
        return answer

    async def _within_timeout(self, answer: Awaitable[object]) -> object:
        try:
            async with asyncio.timeout(self._timeout) as limit:
                return await answer
        except TimeoutError as error:
            if limit.expired():
                raise BadMessage("transform_timeout", f"longer than {self._timeout:g} s") from error
            raise

    def _filled(self, draft: Draft, message: Message, bridge: str) -> Job | None:
        check_returned(draft.payload, "the payload")
        if draft.headers is not None:
            message = message._replace(headers=draft.headers)
        if draft.correlation_id is not None:
            message = message._replace(correlation_id=draft.correlation_id)
        given = {name: getattr(draft, name) for name in ("priority", "run_at", "max_attempts", "timeout")}
        found = {name: _READERS[name](value) for name, value in given.items() if value is not None}
        return self._fields.fill(message, draft.payload, bridge, found)

    def _completed(self, job: Job, message: Message, bridge: str) -> Job:
        if not self._fields.allows(job.queue):
            raise BadMessage("queue_not_allowed", job.queue)
        if not isinstance(job.headers, Mapping):
            raise BadMessage("transform_returned", f"the headers are a {type(job.headers).__name__}")
        check_returned(job.payload, "the payload")
        check_returned(job.headers, "the headers")
        check_returned(job.origin, "the origin")
        check_returned([job.traceparent, job.tracestate], "the trace context")
        if job.run_at is not None:
            read_run_at(job.run_at)
        traceparent, tracestate = carried_trace(message.headers)
        if job.traceparent is not None:
            traceparent, tracestate = job.traceparent, job.tracestate
        return replace(
            job,
            id=_in_slot(job.id, slot_of_message(message, bridge)),
            priority=read_priority(job.priority),
            correlation_id=read_correlation_id(job.correlation_id),
            traceparent=traceparent,
            tracestate=tracestate,
            origin=job.origin if job.origin is not None else origin_of(message, bridge),
        )


def load_transform(path: str) -> Transform:
    """The function that `package.module:function` names; raises Misconfigured."""
    return as_transform(named_object(path), path)


def as_transform(found: object, path: str) -> Transform:
    """What was found under `path`, when it can be called as a transform; raises Misconfigured."""
    if not callable(found):
        raise Misconfigured(f"{path!r} is a {type(found).__name__}, not a function", hint="name a function")
    try:
        inspect.signature(found).bind(object(), object())
    except TypeError as error:
        raise Misconfigured(
            f"{path!r} cannot be called with a message and its body: {error}",
            hint="def transform(message: Message, body) -> Job | dict | None",
        ) from error
    except ValueError:
        pass  # a builtin tells no signature
    return found


def _in_slot(job_id: UUID, slot: int | None) -> UUID:
    return job_id if slot is None else UUID(int=job_id.int & ~(SLOTS - 1) | slot)


def check_returned(value: object, what: str) -> None:
    """Raise BadMessage("transform_returned") for what a job cannot carry."""
    try:
        check_storable(dict(value) if isinstance(value, Mapping) else value, what)
    except BadMessage as error:
        raise BadMessage("transform_returned", str(error)) from error


_READERS: dict[str, Callable[[Json], object]] = {
    "queue": read_queue,
    "priority": read_priority,
    "run_at": read_run_at,
    "delay": read_delay,
    "correlation_id": read_correlation_id,
    "max_attempts": read_max_attempts,
    "timeout": read_timeout,
}
