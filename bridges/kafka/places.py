"""Places in a log: what a partition is called in Postgres, where each goes on, and what is missing there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import Any, assert_never

from aiokafka import AIOKafkaConsumer, TopicPartition

from ...core.errors import Misconfigured
from .connection import as_ours
from .options import KafkaOptions


@dataclass(frozen=True, slots=True)
class Gap:
    """Offsets that were not read and are gone."""

    partition: TopicPartition
    kept: int
    start: int
    end: int

    def __str__(self) -> str:
        place = name(self.partition)
        if self.kept > self.end:
            return (
                f"{place} was read up to offset {self.kept}, but ends at {self.end}: the topic was made anew,"
                f" or has lost its end; it holds {self.start} to {self.end}"
            )
        return (
            f"{place} was read up to offset {self.kept}, but begins at {self.start}:"
            f" {self.start - self.kept} offsets are missing, {self.kept} to {self.start - 1}"
        )


@dataclass(slots=True)
class Places:
    """Where partitions are read from: `starts` all of them, `anew` those that Postgres does not know so yet,
    `gaps` what is passed over."""

    starts: dict[TopicPartition, int] = field(default_factory=dict)
    anew: dict[TopicPartition, int] = field(default_factory=dict)
    gaps: list[Gap] = field(default_factory=list)


@lru_cache(maxsize=4096)
def name(partition: TopicPartition) -> str:
    """A topic's name holds no slash, so this is as unique as the partition is."""
    return f"{partition.topic}/{partition.partition}"


@lru_cache(maxsize=4096)
def _partition(topic: str, number: int) -> TopicPartition:
    return TopicPartition(topic, number)


def of(record: Any) -> TopicPartition:
    """The partition of a record; one object for all of its records."""
    return _partition(record.topic, record.partition)


async def find(
    consumer: AIOKafkaConsumer, kept: Mapping[TopicPartition, int | None], options: KafkaOptions
) -> Places:
    """Where partitions go on that were read up to the `kept` offsets, or never. Raises Misconfigured for a
    gap that is to hold the bridge, and Disconnected."""
    partitions = list(kept)
    try:
        begins = await consumer.beginning_offsets(partitions)
        ends = await consumer.end_offsets(partitions)
        fresh = [partition for partition, offset in kept.items() if offset is None]
        first = await _first(consumer, fresh, begins, ends, options)
    except Exception as error:
        raise as_ours(error) from error
    found = Places()
    for partition, offset in kept.items():
        begin, end = begins[partition], ends[partition]
        if offset is None:
            found.anew[partition] = first[partition]
        elif not begin <= offset <= end:
            found.gaps.append(Gap(partition, offset, begin, end))
            found.anew[partition] = begin
        else:
            found.starts[partition] = offset
    if found.gaps and options.on_gap == "hold":
        raise Misconfigured(
            "records are missing: " + "; ".join(map(str, found.gaps)),
            hint="this topic has them no more; set on_gap = 'skip' to go on with what is there",
        )
    found.starts |= found.anew
    return found


async def _first(
    consumer: AIOKafkaConsumer,
    fresh: list[TopicPartition],
    begins: Mapping[TopicPartition, int],
    ends: Mapping[TopicPartition, int],
    options: KafkaOptions,
) -> Mapping[TopicPartition, int]:
    """Where partitions begin that nobody has read."""
    match options.start:
        case "earliest":
            return begins
        case "latest":
            return ends
        case "group":
            committed = {partition: await consumer.committed(partition) for partition in fresh}
            return {p: begins[p] if offset is None else offset for p, offset in committed.items()}
        case datetime() as moment:
            milliseconds = round(moment.timestamp() * 1000)
            times = await consumer.offsets_for_times(dict.fromkeys(fresh, milliseconds))
            return {p: ends[p] if (at := times.get(p)) is None else at.offset for p in fresh}
        case other:
            assert_never(other)
