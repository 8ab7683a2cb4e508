"""Session: one membership in a consumer group, and the records that arrive while it lasts."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from typing import Any

import structlog
from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition

from ...core.errors import Disconnected, HammerworkError
from .connection import as_ours, stop

log = structlog.get_logger(__name__)

POLL = 1000
"""Milliseconds that one look at what was fetched waits."""
MOST_AT_ONCE = 2000
"""Records that one look takes: they are unpacked in one go, and the event loop has others to serve."""
COMMIT_EVERY = 1.0
COMMIT_PATIENCE = 5.0


class Session(ConsumerRebalanceListener):  # type: ignore[misc]
    """Owns a consumer that was started, and a task that reads from it.

    A partition goes through three hands: the group assigns it (`unplaced`: nothing of it is read), the bridge
    finds out where it goes on and says `go`, and from then on its records are accepted into `buffer`, in
    order and without what lies before. Whatever the consumer brings of other partitions is dropped, so a
    mistake in between costs a fetch and never a record. `generation` rises whenever the group takes or gives;
    `failure` is why nothing more arrives in the buffer.
    """

    def __init__(
        self,
        consumer: AIOKafkaConsumer,
        *,
        bridge: str,
        room: int,
        poll_within: timedelta,
        silence: timedelta,
        left: Callable[[Collection[TopicPartition]], None],
    ) -> None:
        self.unplaced: set[TopicPartition] = set()
        self.buffer: deque[Any] = deque()
        self.generation = 0
        self.failure: HammerworkError | None = None
        self._consumer = consumer
        self._bridge = bridge
        self._room = room
        self._poll_within = poll_within.total_seconds() / 3
        self._silence = silence.total_seconds()
        self._left = left
        self._size = 0
        self._ahead: dict[TopicPartition, int] = {}
        """The next offset that is accepted of each partition that is read."""
        self._settled: dict[TopicPartition, int] = {}
        """The offset after the last one that is settled, of the same partitions."""
        self._committed: dict[TopicPartition, int] = {}
        self._asked_about: TopicPartition | None = None
        self._dealt = False
        """Whether the group has said which partitions are ours, be it none."""
        self._resting = False
        self._stirred = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._tasks: list[asyncio.Task[None]] = []

    def subscribe(self, topics: Sequence[str], pattern: Any) -> None:
        """Join the group; partitions are assigned some time later."""
        if pattern is None:
            self._consumer.subscribe(topics=list(topics), listener=self)
        else:
            self._consumer.subscribe(pattern=pattern, listener=self)
        for run, what in ((self._read, "read"), (self._commit, "commit"), (self._listen, "listen")):
            self._tasks.append(asyncio.create_task(run(), name=f"kafka {what} {self._bridge}"))

    # --- the group's side: called by the client, in the event loop, between two steps of ours ---

    def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        self.generation += 1
        self._dealt = False
        self._left(revoked)
        self._forget()

    def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        # First of all, or the client begins to read where the group's commits say. With a position, any, it
        # does not even look for those.
        self._consumer.pause(*assigned)
        for partition in assigned:
            self._consumer.seek(partition, 0)
        self.generation += 1
        self._dealt = True
        self._forget()
        self.unplaced = set(assigned)
        self._stirred.set()
        log.info("kafka.assigned", bridge=self._bridge, partitions=len(assigned))

    def _forget(self) -> None:
        self.unplaced = set()
        self._ahead.clear()
        self._settled.clear()
        self.buffer.clear()
        self._sized(-self._size)

    # --- the bridge's side ---

    @property
    def assigned(self) -> set[TopicPartition]:
        """What the group has given us."""
        return {*self._ahead, *self.unplaced}

    def go(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions from there."""
        for partition, offset in starts.items():
            self._consumer.seek(partition, offset)
            self._ahead[partition] = self._settled[partition] = offset
            self._asked_about = partition
        self.unplaced -= starts.keys()
        if starts and not self._resting:
            self._consumer.resume(*starts)

    def go_back(self, starts: Mapping[TopicPartition, int]) -> None:
        """Read these partitions again from there, as far as they are still read."""
        back = {partition: offset for partition, offset in starts.items() if partition in self._ahead}
        kept = [record for record in self.buffer if _place(record) not in back]
        self.buffer = deque(kept)
        self._sized(sum(map(_size, kept)) - self._size)
        for partition, offset in back.items():
            self._consumer.seek(partition, offset)
            self._ahead[partition] = offset

    def rest(self) -> None:
        """Receive nothing more until `work`, and forget what was received ahead; stay in the group."""
        self._resting = True
        if self._ahead:
            self._consumer.pause(*self._ahead)
        first: dict[TopicPartition, int] = {}
        for record in self.buffer:
            first.setdefault(_place(record), record.offset)
        self.go_back(first)

    def work(self) -> None:
        """After `rest`: receive again."""
        if self._resting:
            self._resting = False
            if self._ahead:
                self._consumer.resume(*self._ahead)

    async def wait(self, count: int, size: int, until: float) -> None:
        """Until the buffer holds `count` records or `size` bytes, partitions were assigned, the session has
        failed, or the (monotonic) time has come."""
        while not (self.failure or self.unplaced or len(self.buffer) >= count or self._size >= size):
            self._stirred.clear()
            try:
                async with asyncio.timeout(until - time.monotonic()):
                    await self._stirred.wait()
            except TimeoutError:
                return

    def take(self, count: int, size: int) -> list[Any]:
        """At most `count` records and, but for the first, `size` bytes."""
        taken: list[Any] = []
        buffer, left = self.buffer, size
        for _ in range(min(count, len(buffer))):
            length = _size(buffer[0])
            if taken and length > left:
                break
            left -= length
            taken.append(buffer.popleft())
        self._sized(left - size)
        return taken

    def settled(self, ends: Mapping[TopicPartition, int]) -> None:
        """Everything below these offsets is stored."""
        for partition, end in ends.items():
            if partition in self._settled:
                self._settled[partition] = max(end, self._settled[partition])

    async def empty_stretches(self) -> dict[TopicPartition, int]:
        """Partitions of which everything is settled, and where they go on beyond records that nobody sees:
        the marks of transactions, and what these have taken back."""
        found = {}
        for partition, settled in list(self._settled.items()):
            if self._ahead.get(partition) == settled:
                position = await self._consumer.position(partition)
                if position > settled and self._ahead.get(partition) == settled and not self._resting:
                    found[partition] = position
        return found

    def skip(self, ends: Mapping[TopicPartition, int]) -> None:
        """Nothing is to be read below these offsets."""
        for partition, end in ends.items():
            if self._ahead.get(partition, end) < end:
                self._ahead[partition] = self._settled[partition] = end

    async def lag(self) -> int | None:
        """How many offsets lie between what is settled and the ends of the partitions that are read; None
        until it is known which those are, and where each goes on."""
        if self.unplaced or not self._dealt:
            return None
        empty = await self.empty_stretches()
        ends = await self._consumer.end_offsets(list(self._settled))
        reached = {**self._settled, **empty}
        left: int = sum(max(0, end - reached.get(partition, end)) for partition, end in ends.items())
        return left

    async def close(self) -> None:
        """Stop reading and leave the group, within a few seconds. A pull that is under way raises."""
        self.failure = self.failure or Disconnected("the session is closed")
        self._stirred.set()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(1):
                await self._commit_now()
        await stop(self._consumer)
        self._left(self.assigned)
        self._forget()

    # --- its tasks ---

    async def _read(self) -> None:
        """Move what the client has fetched into the buffer, as long as there is room in it."""
        try:
            while True:
                await self._until_room()
                found = await self._consumer.getmany(timeout_ms=POLL, max_records=MOST_AT_ONCE)
                for partition, records in found.items():
                    self._accept(partition, records)
        except HammerworkError as error:
            self._fail(error)
        except asyncio.CancelledError:
            raise
        except Exception as error:
            self._fail(as_ours(error))

    async def _until_room(self) -> None:
        """A member that takes nothing for long would be put out of the group, so it looks with its partitions
        paused; not at once, for the client then throws away what it has fetched."""
        while not self._has_room.is_set():
            try:
                async with asyncio.timeout(self._poll_within):
                    await self._has_room.wait()
            except TimeoutError:
                paused = list(self._ahead)
                self._consumer.pause(*paused)
                await self._consumer.getmany(timeout_ms=0)
                if not self._resting:
                    self._consumer.resume(*(partition for partition in paused if partition in self._ahead))

    def _accept(self, partition: TopicPartition, records: Sequence[Any]) -> None:
        ahead = self._ahead.get(partition)
        if ahead is None or not records:
            return
        if records[0].offset < ahead:
            records = [record for record in records if record.offset >= ahead]
        if records:
            self._ahead[partition] = records[-1].offset + 1
            self.buffer.extend(records)
            self._sized(sum(map(_size, records)))
            self._stirred.set()

    async def _commit(self) -> None:
        """Tell the group how far we are, for the tools that look at its lag. Nothing of ours reads it."""
        while True:
            await asyncio.sleep(COMMIT_EVERY)
            try:
                async with asyncio.timeout(COMMIT_PATIENCE):
                    await self._commit_now()
            except Exception as error:
                log.debug("kafka.not_committed", bridge=self._bridge, error=str(error))

    async def _commit_now(self) -> None:
        known = dict(self._settled)
        if known and known != self._committed:
            await self._consumer.commit(known)
            self._committed = known

    async def _listen(self) -> None:
        """The client looks for its brokers, and for topics that were deleted, without end and without a word.
        So one question is asked now and then, about a partition that was ours."""
        while True:
            await asyncio.sleep(self._silence)
            if self._asked_about is None:
                continue
            try:
                async with asyncio.timeout(self._silence):
                    await self._consumer.end_offsets([self._asked_about])
            except TimeoutError:
                self._fail(Disconnected(f"no broker has answered for {self._silence:g} s"))
            except Exception as error:
                self._fail(as_ours(error))

    def _fail(self, error: HammerworkError) -> None:
        self.failure = error
        self._stirred.set()

    def _sized(self, difference: int) -> None:
        self._size += difference
        if self._size < self._room:
            self._has_room.set()
        else:
            self._has_room.clear()


def _place(record: Any) -> TopicPartition:
    return TopicPartition(record.topic, record.partition)


def _size(record: Any) -> int:
    """Bytes, as the client counts them, where −1 is nothing; at least one."""
    size: int = record.serialized_value_size + record.serialized_key_size + 3
    return size
