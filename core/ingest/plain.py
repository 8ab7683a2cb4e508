"""Plain rows: what a message becomes where its body is the payload and settings say the rest."""

from __future__ import annotations

from ..identity import new_id
from ..job import Job
from ..message import Message
from ..postgres import store
from .fields import (
    broker_priority,
    carried_headers,
    carried_trace,
    read_correlation_id,
    slot_of_message,
    storable_coordinates,
)


class PlainRows:
    """Rows of one bridge's messages, each the row of the job that FieldMapping would make, without the job:
    what is the same in all of them is computed once, from `settings`."""

    def __init__(self, bridge: str, settings: Job, *, priority_from_broker: bool) -> None:
        self._bridge = bridge
        self._queue = settings.queue
        self._max_attempts, self._timeout = settings.max_attempts, settings.timeout
        self._result_ttl = settings.result_ttl
        self._priority = settings.priority
        self._priority_from_broker = priority_from_broker
        self._origin_start = store.encode({"bridge": bridge}, "the bridge").rstrip("}")

    def row(self, message: Message, payload: str) -> tuple[object, ...]:
        """A row of enqueue.sql; `payload` is its JSON text. Raises BadMessage."""
        headers, context = message.headers, None
        slot = slot_of_message(message, self._bridge)
        correlation_id = message.correlation_id
        if correlation_id is not None:
            correlation_id = read_correlation_id(correlation_id)
        if headers:
            context = store.context(*carried_trace(headers), carried_headers(headers))
        return (
            new_id(slot),
            self._queue,
            payload,
            broker_priority(message.priority) if self._priority_from_broker else self._priority,
            self._max_attempts,
            self._timeout,
            None,
            self._result_ttl,
            correlation_id,
            context,
            self._origin(message),
            None,
            None,
        )

    def _origin(self, message: Message) -> str:
        coordinates = store.encode(storable_coordinates(message), "the coordinates")
        message_id = "null" if message.id is None else store.encode(message.id, "the message id")
        return f'{self._origin_start},"message_id":{message_id},"coordinates":{coordinates}}}'
