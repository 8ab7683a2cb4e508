"""The kit on the Kafka sink, idempotent and transactional, on Apache Kafka."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass

import pytest

from hammerwork.plugins import Json
from hammerwork.plugins.conformance import LogSinkContract, Received, SinkHarness
from hammerwork.sinks.kafka import KafkaSink

from ..services.kafka import KafkaService
from ..sinks.kafka_reader import read_topic
from .kafka_place import KafkaPlace, kafka_place

AS_BEFORE = {
    "test_a_destination_that_hangs_does_not_hold_us_for_ever",
    "test_a_destination_that_is_away_is_said_to_be",
    "test_options_may_be_set_by_a_file_or_by_variables",
    "test_secrets_are_not_shown",
    "test_what_is_refused_for_good_is_dead",
}
"""Tests in which transactions make no difference."""

ONE_RECORD = 1000
"""Bytes of a batch into which one of the kit's events goes, and two of them do not."""
NO_RECORD = 100


@dataclass(kw_only=True)
class Topic(SinkHarness):
    """A topic of the test's own. It fails by taking smaller batches than the sink sends, which the sink finds
    out by trying; and refuses for good by taking none."""

    place: KafkaPlace
    stopped: bool = False

    async def received(self) -> Sequence[Received]:
        records = await read_topic(self.place.service.bootstrap, self.place.topic)
        events = [json.loads(record.value) for record in records]
        return [Received(event_id=event["id"], event=event) for event in events]

    async def fail(self, times: int) -> None:
        await self.place.take_at_most(ONE_RECORD)

    async def refuse(self) -> None:
        await self.place.take_at_most(NO_RECORD)

    async def hang(self) -> None:
        self.place.service.suspend()
        self.stopped = True

    async def restart(self) -> None:
        await self.place.restart()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, **self.place.nowhere()}


class TestKafkaSink(LogSinkContract):
    plugin = KafkaSink
    kind = "kafka"
    delivery = "idempotent"

    @pytest.fixture
    async def harness(self, kafka_service: KafkaService) -> AsyncIterator[SinkHarness]:
        async with kafka_place(kafka_service) as place:
            harness = Topic(
                options={
                    **place.options,
                    "topic": place.topic,
                    "delivery": self.delivery,
                    "request_timeout": 2,
                },
                secrets=place.secrets,
                answers_within=6.0,
                place=place,
            )
            yield harness
            if harness.stopped:
                await asyncio.to_thread(kafka_service.resume)


class TestTransactionalKafkaSink(TestKafkaSink):
    """The sink keeps its position."""

    delivery = "transactional"


for name in AS_BEFORE:
    setattr(TestTransactionalKafkaSink, name, None)
