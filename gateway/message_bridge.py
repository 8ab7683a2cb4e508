"""MessageBridge: a bridge put together in code, for an application that embeds the intake."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

from ..core.errors import Misconfigured
from ..core.ingest.decode import Decoder
from ..core.ingest.intake import Intake, IntakeLimits
from ..core.ingest.mapping import CallableMapping, Expressions, FieldMapping, Mapper, Transform
from ..core.message import Bridge
from ..core.queue import Queue
from .catalog import bridges


@dataclass(frozen=True, slots=True)
class MessageBridge:
    """From a broker to a queue:

        bridge = (
            MessageBridge()
            .from_rabbitmq("amqp://localhost", queue="orders")
            .to_queue("external_jobs", transform=to_job)
        )
        await bridge.run(queue)

    Every step answers a new MessageBridge. What the bridge does with messages, identities and dead
    letters is what a gateway with the same settings would do.
    """

    source: Bridge | None = None
    mapper: Mapper | None = None
    decoder: Decoder = field(default_factory=Decoder)
    limits: IntakeLimits = field(default_factory=IntakeLimits)

    def from_rabbitmq(self, url: str, *, queue: str, name: str = "rabbitmq", **options: Any) -> Self:
        """Read a RabbitMQ queue; `options` are those of `[bridges.NAME]` with type rabbitmq."""
        return self.from_bridge(bridges.make("rabbitmq", name, {"url": url, "queue": queue, **options}))

    def from_kafka(
        self, bootstrap: str | Sequence[str], *topics: str, name: str = "kafka", **options: Any
    ) -> Self:
        """Read topics of Kafka, or those of a `pattern`; `options` are those of `[bridges.NAME]` with type
        kafka."""
        given = {"bootstrap": bootstrap, "topics": topics, **options}
        return self.from_bridge(bridges.make("kafka", name, given))

    def from_sqs(self, queue: str, *, name: str = "sqs", **options: Any) -> Self:
        """Read an SQS queue, given by URL or name; `options` are those of `[bridges.NAME]` with type sqs."""
        return self.from_bridge(bridges.make("sqs", name, {"queue": queue, **options}))

    def from_bridge(self, bridge: Bridge) -> Self:
        """Read any bridge, one of your own for instance."""
        return replace(self, source=bridge)

    def to_queue(
        self,
        queue: str | None = None,
        *,
        transform: Transform | None = None,
        map: Expressions | None = None,
        max_attempts: int = 5,
    ) -> Self:
        """Make each message a job of `queue`.

        `map` holds CEL expressions, one a field of the job (`map.queue` in place of `queue`);
        `transform` is called with the message and its decoded body, and answers a Job, a payload, or
        None to leave the message out.
        """
        fields = FieldMapping(queue, expressions=map, max_attempts=max_attempts)
        return replace(self, mapper=fields if transform is None else CallableMapping(transform, fields))

    def decoded_by(self, decoder: Decoder) -> Self:
        """Read bodies with other limits or another format than strict JSON."""
        return replace(self, decoder=decoder)

    def within(self, limits: IntakeLimits) -> Self:
        """Gather other batches, remember identities for another time."""
        return replace(self, limits=limits)

    def intake(self, queue: Queue) -> Intake:
        """The intake, to be run and stopped by the caller. Raises Misconfigured when a part is missing."""
        if self.source is None or self.mapper is None:
            raise Misconfigured(
                "a MessageBridge needs a source and a queue",
                hint="call from_rabbitmq() or the like, and to_queue()",
            )
        return Intake(queue.database, self.source, self.decoder, self.mapper, self.limits)

    async def run(self, queue: Queue) -> None:
        """Ingest until the task is cancelled; what is in hand is then stored and settled, or comes again."""
        await self.intake(queue).run()
