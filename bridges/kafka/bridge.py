"""KafkaBridge: topics of Kafka, read as a member of a consumer group, as a source of messages."""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import structlog

from ...core.errors import Disconnected, Misconfigured, MissingExtra
from ...core.message import (
    BridgeCapabilities,
    Delivery,
    Guarantee,
    Look,
    Offsets,
    Position,
    Receipt,
    Want,
)
from .content import read_record
from .options import KafkaOptions

if TYPE_CHECKING:
    from aiokafka import AIOKafkaConsumer, TopicPartition

    from .session import Session

log = structlog.get_logger(__name__)


class KafkaBridge:
    """Implements `core.message.LogBridge` for topics of one cluster.

    The group decides which partitions are ours, Postgres where each of them goes on: the group's commits are
    for the tools that show its lag. Raises MissingExtra where the client is not installed.
    """

    Options = KafkaOptions
    capabilities = BridgeCapabilities(
        kind="log",
        order="partition",
        carries=frozenset({"key", "headers", "content_type", "timestamp", "tombstone"}),
    )

    def __init__(self, name: str, options: KafkaOptions) -> None:
        self.name = name
        self._options = options
        self._group = options.group or f"hammerwork.{name}"
        self._offsets: Offsets | None = None
        self._consumer: AIOKafkaConsumer | None = None
        self._session: Session | None = None
        self._idle = False
        try:
            from . import connection, places, session, survey, tap
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] == "aiokafka":
                raise MissingExtra("the Kafka bridge", "kafka") from error
            raise
        self._connection, self._places, self._survey = connection, places, survey
        self._session_type, self._look_type = session.Session, tap.KafkaLook

    def keep(self, offsets: Offsets) -> None:
        self._offsets = offsets

    async def open(self) -> None:
        await self.close()
        self._kept()
        options = self._options
        consumer = await self._connection.connect(options, group=self._group)
        self._consumer = consumer
        await self._survey.require_topics(consumer, options)
        self._session = self._session_type(
            consumer,
            bridge=self.name,
            room=int(options.fetch_size),
            poll_within=options.max_poll_interval,
            silence=options.session_timeout,
            left=self._leave,
        )
        self._session.subscribe(options.topics, options.matcher())
        log.info("kafka.opened", bridge=self.name, bootstrap=options.bootstrap, group=self._group)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        session = self._alive()
        session.work()
        until = time.monotonic() + want.wait.total_seconds()
        while True:
            if session.unplaced:
                await self._place(session)
            await session.wait(1, 1, until)
            if not session.unplaced or time.monotonic() >= until:
                break
        if session.buffer:
            await session.wait(want.count, want.size, time.monotonic() + want.linger.total_seconds())
        elif session.failure is not None:
            raise session.failure
        deliveries = self._deliveries(session.take(want.count, want.size))
        if not deliveries and self._idle:
            await self._pass_empty_stretches(session)
        self._idle = not deliveries
        return deliveries

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        if self._session is not None:
            stored = [(r.delivery.handle, r.delivery.position) for r in receipts]
            self._session.settled({partition: place.offset + 1 for partition, place in stored if place})

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        first: dict[TopicPartition, int] = {}
        for delivery in deliveries:
            if delivery.position is not None:
                offset = delivery.position.offset
                first[delivery.handle] = min(offset, first.get(delivery.handle, offset))
        if self._session is not None:
            self._session.go_back(first)

    async def rest(self) -> None:
        session = self._alive()
        if session.failure is not None:
            raise session.failure
        session.rest()

    async def lag(self) -> int | None:
        """Of the partitions that this process reads; another process tells it of its own."""
        session = self._alive()
        try:
            return await session.lag()
        except Exception as error:
            raise self._connection.as_ours(error) from error

    async def close(self) -> None:
        session, self._session = self._session, None
        consumer, self._consumer = self._consumer, None
        self._idle = False
        if session is not None:
            await session.close()
        elif consumer is not None:
            await self._connection.stop(consumer)

    def tap(self, most: int, kept: Mapping[str, int | None]) -> Look:
        """A reader in no group, from where the bridge goes on."""
        return self._look_type(self._options, most, kept)

    async def guarantee(self) -> Guarantee:
        consumer = await self._connection.connect(self._options, group=None)
        try:
            return await self._survey.guarantee(consumer, self._options, self._group)
        finally:
            await self._connection.stop(consumer)

    # --- where partitions go on ---

    async def _place(self, session: Session) -> None:
        """Own the partitions that the group has assigned, and go to where each goes on. What the group does
        meanwhile makes it void."""
        offsets, consumer = self._kept(), self._consumer
        assert consumer is not None
        generation = session.generation
        names = {self._places.name(partition): partition for partition in session.unplaced}
        kept = await offsets.take(sorted(names))
        found = await self._places.find(
            consumer, {names[name]: offset for name, offset in kept.items()}, self._options
        )
        if session.generation == generation and found.anew:
            await offsets.begin({self._places.name(p): offset for p, offset in found.anew.items()})
        if session.generation != generation:
            self._leave(names.values())
            return
        for gap in found.gaps:
            log.error("kafka.records_missing", bridge=self.name, missing=str(gap), on_gap="skip")
        session.go(found.starts)

    async def _pass_empty_stretches(self, session: Session) -> None:
        """With nothing in hand: what holds no record for us counts as read, or retention that passes it would
        look like a loss."""
        generation = session.generation
        ends = await session.empty_stretches()
        if ends and session.generation == generation:
            await self._kept().begin({self._places.name(p): end for p, end in ends.items()})
            session.skip(ends)

    def _leave(self, partitions: Collection[TopicPartition]) -> None:
        self._kept().leave([self._places.name(partition) for partition in partitions])

    def _kept(self) -> Offsets:
        if self._offsets is None:
            raise Misconfigured("the Kafka bridge keeps its offsets in Postgres", hint="run it in an Intake")
        return self._offsets

    # --- small things ---

    def _alive(self) -> Session:
        if self._session is None:
            raise Disconnected("the bridge is not open")
        return self._session

    def _deliveries(self, records: Sequence[Any]) -> list[Delivery]:
        """Records of one partition mostly come one after the other; its name is looked up once for them."""
        identity, places = self._options.identity, self._places
        deliveries = []
        topic, number, partition, name = None, None, None, ""
        for record in records:
            if record.partition != number or record.topic != topic:
                topic, number, partition = record.topic, record.partition, places.of(record)
                name = places.name(partition)
            place = Position(name, record.offset)
            deliveries.append(Delivery(read_record(record, identity), partition, place))
        return deliveries
