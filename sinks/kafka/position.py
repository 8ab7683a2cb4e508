"""The relay's position inside Kafka: the metadata of a consumer group's offset, moved in transactions."""

from __future__ import annotations

import asyncio
from typing import Any

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka import errors as kafka
from aiokafka.client import ConnectionGroup, CoordinationType
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    Boolean,
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)
from aiokafka.structs import OffsetAndMetadata

from ...core.errors import Disconnected, Misconfigured

AGAIN_AFTER = 0.05
UNSTABLE = 88
"""UNSTABLE_OFFSET_COMMIT: a transaction that wrote the offset is not ended yet."""
COORDINATOR_MOVES = {14, 15, 16}
GROUP_FORBIDDEN = 30


class Position:
    """Kept as the offset 0 of one partition, in a group that nobody is in; the mark is its metadata."""

    def __init__(self, topic: str, group: str) -> None:
        self.topic = topic
        self._place = TopicPartition(topic, 0)
        self._group = group

    async def store(self, producer: AIOKafkaProducer, mark: str) -> None:
        """Store the mark in the producer's transaction."""
        await producer.send_offsets_to_transaction({self._place: OffsetAndMetadata(0, mark)}, self._group)

    async def read(self, producer: AIOKafkaProducer) -> str | None:
        """The mark of the last transaction that was committed; None when there was none.

        Call it when the producer has its transactional id, so that no transaction of an owner before can
        still end. One that has ended and is still being written out is waited for (KIP-447), which the
        client's own request for offsets cannot do.
        """
        while True:
            code, mark = await self._ask(producer)
            if not code:
                return mark or None
            if code == GROUP_FORBIDDEN:
                raise Misconfigured(
                    f"the broker forbids to read the group {self._group!r}", hint="the user needs Read on it"
                )
            if code != UNSTABLE and code not in COORDINATOR_MOVES:
                raise Disconnected(f"the position cannot be read: {kafka.for_code(code).__name__}")
            await asyncio.sleep(AGAIN_AFTER)

    async def _ask(self, producer: AIOKafkaProducer) -> tuple[int, str]:
        try:
            node = await producer.client.coordinator_lookup(CoordinationType.GROUP, self._group)
            request = _StableOffsets(self._group, self._place)
            answer = await producer.client.send(node, request, group=ConnectionGroup.COORDINATION)
        except (NotImplementedError, kafka.IncompatibleBrokerVersion) as error:
            raise Misconfigured(
                "this broker is too old for delivery = 'transactional'",
                hint="take Kafka 2.5 or newer, or delivery = 'idempotent'",
            ) from error
        except kafka.BrokerResponseError as error:
            return error.errno, ""
        if answer.error_code:
            return answer.error_code, ""
        ((_, ((_, _, _, mark, code, _),), _),) = answer.topics
        return code, mark or ""


class _OffsetFetchResponse(Response):  # type: ignore[misc]
    API_KEY = 9
    API_VERSION = 7
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                (
                    "partitions",
                    CompactArray(
                        ("partition", Int32),
                        ("offset", Int64),
                        ("leader_epoch", Int32),
                        ("metadata", CompactString("utf-8")),
                        ("error_code", Int16),
                        ("tags", TaggedFields),
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("error_code", Int16),
        ("tags", TaggedFields),
    )


class _OffsetFetchRequest(RequestStruct):  # type: ignore[misc]
    FLEXIBLE_VERSION = True
    API_KEY = 9
    API_VERSION = 7
    RESPONSE_TYPE = _OffsetFetchResponse
    SCHEMA = Schema(
        ("group_id", CompactString("utf-8")),
        (
            "topics",
            CompactArray(
                ("topic", CompactString("utf-8")),
                ("partitions", CompactArray(Int32)),
                ("tags", TaggedFields),
            ),
        ),
        ("require_stable", Boolean),
        ("tags", TaggedFields),
    )


class _StableOffsets(Request[_OffsetFetchRequest]):  # type: ignore[misc]
    """OffsetFetch, version 7: waits for transactions that are being ended."""

    API_KEY = 9

    def __init__(self, group: str, place: TopicPartition) -> None:
        self._group = group
        self._place = place

    def build(self, request_struct_class: type[_OffsetFetchRequest]) -> _OffsetFetchRequest:
        topics: list[Any] = [(self._place.topic, [self._place.partition], {})]
        return request_struct_class(self._group, topics, True, {})
