"""A look at topics beside the bridge that reads them: a consumer in no group, which commits nothing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from ...core.errors import Disconnected
from ...core.message import Delivery, Position, Want
from . import places
from .connection import as_ours, connect, stop
from .content import read_record
from .options import KafkaOptions
from .survey import described, require_topics


class KafkaLook:
    """Implements `core.message.Look`: up to `most` records from where each partition goes on."""

    def __init__(self, options: KafkaOptions, most: int, kept: Mapping[str, int | None]) -> None:
        start = "earliest" if options.start == "group" else options.start
        self._options = options.model_copy(update={"on_gap": "skip", "start": start})
        self._left = most
        self._kept = kept
        self._consumer: AIOKafkaConsumer | None = None

    async def open(self) -> None:
        self._consumer = consumer = await connect(self._options, group=None)
        topics = await require_topics(consumer, self._options)
        counts, _ = await described(self._options, topics)
        partitions = [TopicPartition(topic, n) for topic, count in counts.items() for n in range(count)]
        consumer.assign(partitions)
        kept = {partition: self._kept.get(places.name(partition)) for partition in partitions}
        found = await places.find(consumer, kept, self._options)
        for partition, offset in found.starts.items():
            consumer.seek(partition, offset)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if self._consumer is None:
            raise Disconnected("the look is not open")
        most = min(want.count, self._left)
        if most < 1:
            return []
        wait = round(want.wait.total_seconds() * 1000)
        try:
            found = await self._consumer.getmany(timeout_ms=wait, max_records=most)
        except Exception as error:
            raise as_ours(error) from error
        deliveries = [
            Delivery(
                read_record(record, self._options.identity),
                partition,
                Position(places.name(partition), record.offset),
            )
            for partition, records in found.items()
            for record in records
        ]
        self._left -= len(deliveries)
        return deliveries

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        return

    async def close(self) -> None:
        consumer, self._consumer = self._consumer, None
        if consumer is not None:
            await stop(consumer)
