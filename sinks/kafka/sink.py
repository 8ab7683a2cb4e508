"""KafkaSink: batches of events to Kafka, by an idempotent producer or in transactions with the position."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple
from uuid import UUID

import structlog
from aiokafka import AIOKafkaProducer
from aiokafka import errors as kafka
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.producer.message_accumulator import BatchBuilder

from ...clients.kafka.client import why_unreachable
from ...clients.kafka.login import login_arguments
from ...core.errors import BadMessage, Disconnected, Misconfigured
from ...core.event import LoggedEvent, SinkCapabilities
from ...core.failpoints import reach
from ...core.job import Dead, Done, Outcome, Retry, Snooze
from ...core.message import Guarantee
from ..formats import Format, Header
from .addressing import Addressing, murmur2, partition_of
from .form import format_of
from .options import KafkaSinkOptions
from .position import Position
from .producer import as_ours, connect, discard
from .waves import Part, Waves

log = structlog.get_logger(__name__)

WAITING = Snooze(timedelta(0))
METADATA_WITHIN = 2.0
"""Seconds in which a broker says where a topic is; it is asked again and again when it knows none."""
KNOWN_FOR = 60.0
"""Seconds for which the partitions of a topic are taken as known."""
ROOM = 100
"""Bytes of a record and its batch beside key, value and headers, amply."""


class _Headers(NamedTuple):
    """What a format gives, all that a record gets, and their bytes; kept as long as the format gives the
    same."""

    given: Sequence[Header]
    all: Sequence[Header]
    size: int


class KafkaSink:
    """Implements `core.event.SharedLogSink`.

    One batch of a partition is under way at a time, so where it is not taken nothing behind it is. After a
    fault the producer is thrown away: its numbering has a gap that no broker forgives. Raises Misconfigured
    for options that cannot be used.
    """

    Options = KafkaSinkOptions
    capabilities = SinkCapabilities(batches=True, order="key", refuses=True, largest=1024 * 1024)

    def __init__(self, name: str, options: KafkaSinkOptions, *, format: Format | None = None) -> None:
        self.name = name
        self._options = options
        self._format = format or format_of(options)
        self._addressing = Addressing(options)
        self._headers = [(key, value.encode()) for key, value in options.headers.items()]
        self._last_headers = _Headers((), (), 0)
        self._identity = options.transactional_id or f"hammerwork.{name}"
        self._transactional = options.delivery == "transactional"
        self._scatters = not self._transactional and (options.fixed_topic is None or options.key is not None)
        """Whether events of a job may lie in several partitions, and be seen there one without the other."""
        self._producer: AIOKafkaProducer | None = None
        self._spoiled = False
        self._partitions: dict[str, tuple[float, Sequence[int]]] = {}
        self._most: dict[str, int] = {}
        """Bytes of a batch, for topics that refused one for its size: half of that one."""
        self._refused: dict[int, str] = {}
        """Events, by their place in the log, that the broker refused within a transaction, and why."""

    def belong_to(self, deployment: str) -> None:
        if self._options.transactional_id is None:
            self._identity = f"hammerwork.{self.name}.{deployment}"

    async def open(self) -> str | None:
        await self._format.open()
        await self._renew()
        assert self._producer is not None
        if (topic := self._options.fixed_topic) is not None:
            await self._known(topic)
        if not self._transactional:
            return None
        await self._known(self._position.topic)
        return await self._position.read(self._producer)

    async def close(self) -> None:
        producer, self._producer = self._producer, None
        if producer is not None:
            await discard(producer)

    async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        if self._producer is None or self._spoiled:
            await self._renew()
        outcomes: list[Outcome] = [WAITING] * len(events)
        waves = await self._plan(events, outcomes)
        if not self._transactional:
            await self._send_in_waves(waves, outcomes)
        elif not any(isinstance(outcome, Dead | Retry) for outcome in outcomes):
            parts = [part for wave in waves for part in wave]
            await self._send_in_transaction(parts, events, outcomes, mark)
        return outcomes

    async def guarantee(self) -> Guarantee:
        await self._format.look()
        login = await login_arguments(self._options)
        admin = AIOKafkaAdminClient(
            bootstrap_servers=list(self._options.bootstrap), client_id="hammerwork", **login
        )
        try:
            await admin.start()
            warnings = await self._warnings(admin)
        except kafka.KafkaConnectionError as error:
            raise await why_unreachable(self._options, login) from error
        except kafka.KafkaError as error:
            raise as_ours(error) from error
        finally:
            await admin.close()
        if self._transactional:
            return Guarantee(
                "exactly-once in effect",
                "events and the place up to which they were sent are one transaction of Kafka, for consumers"
                " with isolation.level=read_committed; after a failover of Postgres a batch may come again,"
                " which they see by the event's id",
                tuple(warnings),
            )
        return Guarantee(
            "at-least-once",
            "an idempotent producer waits for all in-sync replicas; after a crash of ours a batch may come"
            " again, which consumers see by the event's id",
            tuple(warnings),
        )

    async def _warnings(self, admin: AIOKafkaAdminClient) -> list[str]:
        topic = self._options.fixed_topic
        if topic is None:
            return ["topics by queue or type are not looked at before the first event"]
        (found,) = await admin.describe_topics([topic])
        if found["error_code"]:
            raise _no_topic(topic, kafka.for_code(found["error_code"]).__name__)
        copies = min(len(partition["replicas"]) for partition in found["partitions"])
        return [] if copies > 1 else [f"topic {topic} has one replica: its events are lost with that broker"]

    # --- what goes where ---

    async def _plan(self, events: Sequence[LoggedEvent], outcomes: list[Outcome]) -> Waves:
        """The batches of each partition. What cannot be a record is dead, and holds nobody up. What has no
        topic waits, and with it what comes behind it of its job; all else goes on."""
        topics = await self._topics_of(events)
        keys = self._addressing.keys(events)
        # What is no key, or too large for a record, goes to no partition.
        most = self._options.max_record_bytes
        hashes = murmur2([b"" if isinstance(key, BadMessage) or len(key) > most else key for key in keys])
        waves, held = Waves(), set[UUID]()
        for place, (event, key) in enumerate(zip(events, keys, strict=True)):
            if event.job_id in held:
                continue
            try:
                topic = self._addressing.topic(event)
                if isinstance(key, BadMessage):
                    raise key
                value, headers = self._format.value(event), self._all_headers(event)
                self._refuse(event, len(key) + len(value) + headers.size)
            except BadMessage as bad:
                outcomes[place] = Dead(str(bad))
                continue
            if isinstance(partitions := topics[topic], str):
                outcomes[place] = Retry(partitions)
                if event.job_id is not None:
                    held.add(event.job_id)
                continue
            partition = partition_of(hashes[place], partitions)
            part = waves.part((topic, partition), event.job_id if self._scatters else None)
            if part is None:
                break
            self._append(part, place, int(event.at.timestamp() * 1000), key, value, headers.all)
        return waves

    def _all_headers(self, event: LoggedEvent) -> _Headers:
        given = self._format.headers(event)
        if given is not self._last_headers.given:
            every = [*self._headers, *given]
            self._last_headers = _Headers(given, every, sum(len(n) + len(v) + 8 for n, v in every))
        return self._last_headers

    def _refuse(self, event: LoggedEvent, size: int) -> None:
        """Raises BadMessage for a record that no broker takes."""
        if size + ROOM > self._options.max_record_bytes:
            raise BadMessage(
                "too_large", f"{size} bytes, more than max_record_bytes = {self._options.max_record_bytes:d}"
            )
        if self._refused and (why := self._refused.pop(event.log_id, None)) is not None:
            raise BadMessage("too_large", why)

    def _append(
        self,
        part: Part,
        place: int,
        at: int,
        key: bytes,
        value: bytes,
        headers: Sequence[Header],
    ) -> None:
        assert self._producer is not None
        if part.batches:
            builder, places = part.batches[-1]
            most = self._most.get(part.topic)
            if (most is None or builder.size() + len(value) < most) and builder.append(
                timestamp=at, key=key, value=value, headers=headers
            ) is not None:
                places.append(place)
                return
        # The first record of a batch always fits in.
        builder = self._producer.create_batch()
        builder.append(timestamp=at, key=key, value=value, headers=headers)
        part.batches.append((builder, [place]))

    async def _topics_of(self, events: Sequence[LoggedEvent]) -> dict[str, Sequence[int] | str]:
        """What is known of each topic of these events. They are looked up together: each that is missing
        takes its time, and one after another many of them would take that of the whole send."""
        names = list(self._addressing.topics(events))
        found = await asyncio.gather(*map(self._partitions_of, names), return_exceptions=True)
        topics = dict[str, Sequence[int] | str]()
        for name, answer in zip(names, found, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            topics[name] = answer
        return topics

    async def _partitions_of(self, topic: str) -> Sequence[int] | str:
        """The topic's partitions, or why there are none."""
        known_at, partitions = self._partitions.get(topic, (0.0, ()))
        if time.monotonic() < known_at + KNOWN_FOR:
            return partitions
        try:
            return await self._known(topic)
        except Misconfigured as error:
            if self._options.fixed_topic is not None:
                raise
            return f"{error}; {error.hint}"

    async def _known(self, topic: str) -> Sequence[int]:
        assert self._producer is not None
        try:
            async with asyncio.timeout(METADATA_WITHIN):
                found = sorted(await self._producer.partitions_for(topic))
        except (TimeoutError, kafka.UnknownTopicOrPartitionError) as error:
            raise _no_topic(topic, "it is unknown to the broker") from error
        except kafka.KafkaError as error:
            raise as_ours(error) from error
        self._partitions[topic] = (time.monotonic(), found)
        return found

    # --- sending ---

    async def _send_in_waves(self, waves: Waves, outcomes: list[Outcome]) -> None:
        for wave in waves:
            _raise_first(
                await asyncio.gather(*(self._fill(part, outcomes) for part in wave), return_exceptions=True)
            )
            if self._spoiled:
                return  # what is left may belong behind what was not taken

    async def _fill(self, part: Part, outcomes: list[Outcome]) -> None:
        """Send the batches of one partition, each when the one before was taken."""
        for builder, places in part.batches:
            try:
                await self._deliver(part, builder)
            except kafka.KafkaError as error:
                self._spoiled = True
                outcome = self._not_taken(part, builder, len(places), error)
                for place in places:
                    outcomes[place] = outcome
                return
            for place in places:
                outcomes[place] = Done()

    def _not_taken(self, part: Part, builder: BatchBuilder, events: int, error: kafka.KafkaError) -> Outcome:
        """What becomes of the events of a batch. Raises Misconfigured."""
        if isinstance(error, kafka.MessageSizeTooLargeError):
            self._most[part.topic] = builder.size() // 2
            return Dead("too_large: the broker refused it") if events == 1 else WAITING
        ours = as_ours(error)
        if isinstance(ours, Misconfigured):
            raise ours from error
        return Retry(f"{part.topic}/{part.partition}: {ours}")

    async def _deliver(self, part: Part, builder: BatchBuilder) -> None:
        assert self._producer is not None
        builder.close()
        await (await self._producer.send_batch(builder, part.topic, partition=part.partition))

    async def _send_in_transaction(
        self, parts: Sequence[Part], events: Sequence[LoggedEvent], outcomes: list[Outcome], mark: str
    ) -> None:
        """All of it and the mark, or nothing. After a fault only a new producer knows what became of it."""
        producer, position = self._producer, self._position
        assert producer is not None
        try:
            await producer.begin_transaction()
            _raise_first(
                await asyncio.gather(
                    *(self._fill_whole(part, events) for part in parts), return_exceptions=True
                )
            )
            await reach("kafka_sink.sent")
            await position.store(producer, mark)
            await reach("kafka_sink.before_commit")
            await producer.commit_transaction()
            await reach("kafka_sink.committed")
        except Exception as error:
            self._spoiled = True
            raise as_ours(error) from error
        outcomes[:] = [Done()] * len(events)

    async def _fill_whole(self, part: Part, events: Sequence[LoggedEvent]) -> None:
        for builder, places in part.batches:
            try:
                await self._deliver(part, builder)
            except kafka.MessageSizeTooLargeError as error:
                self._most[part.topic] = builder.size() // 2
                if len(places) == 1:
                    self._refused[events[places[0]].log_id] = "the broker refused it"
                raise Disconnected(f"{part.topic} takes no batch of this size") from error

    @property
    def _position(self) -> Position:
        topic = self._options.position_topic or self._options.fixed_topic
        assert topic is not None  # the options see to it
        return Position(topic, self._identity)

    async def _renew(self) -> None:
        await self.close()
        self._spoiled = False
        self._partitions.clear()
        self._producer = await connect(
            self._options, transactional_id=self._identity if self._transactional else None
        )


def _raise_first(answers: Sequence[BaseException | None]) -> None:
    """The first fault, when all others are over, too."""
    for fault in answers:
        if fault is not None:
            raise fault


def _no_topic(topic: str, why: str) -> Misconfigured:
    return Misconfigured(f"the topic {topic!r} cannot be used: {why}", hint="create it, or correct topic")
