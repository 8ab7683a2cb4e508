"""Members of a Kafka group join, leave, die and fall asleep, and the broker is killed: every record is
stored once, and those of one key in their order."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator

import pytest
from aiokafka import AIOKafkaProducer

from ..services.kafka import LIGHT, VARIABLE, KafkaService
from .conftest import KILLED_KAFKA, Spawn
from .ledger import Ledger, until
from .processes import Child

pytestmark = [
    pytest.mark.chaos,
    *KILLED_KAFKA,
    pytest.mark.skipif(VARIABLE in os.environ, reason=f"the server of {VARIABLE} is not ours to break"),
]

SESSION = 1.5
"""Seconds without a sign after which the group gives a member's partitions to others."""

DISORDER = """
    with numbered as (select id, payload ->> 'key' as key, (payload ->> 'n')::int as n from hammerwork.jobs),
    pairs as (select key, n, lag(n) over (partition by key order by id) as before from numbered)
    select key, n, before from pairs where before >= n
"""
"""Jobs whose predecessor of the same key was sent after them."""


class Stream:
    """Sends numbered messages over many keys; each counts once the broker has confirmed it."""

    def __init__(self, bootstrap: str, topic: str, ledger: Ledger) -> None:
        self.topic = topic
        self._bootstrap = bootstrap
        self._ledger = ledger

    async def send(self, count: int, keys: int = 200) -> None:
        async with AIOKafkaProducer(
            bootstrap_servers=self._bootstrap,
            acks="all",
            enable_idempotence=True,
            linger_ms=5,
            max_batch_size=65_536,
        ) as producer:
            pending: list[asyncio.Future[object]] = []
            for n in range(count):
                key = f"k{n % keys}"
                body = f'{{"id": "m{n}", "key": "{key}", "n": {n}}}'.encode()
                pending.append(await producer.send(self.topic, body, key=key.encode()))
                if len(pending) == 5000 or n == count - 1:
                    await asyncio.gather(*pending)
                    pending.clear()
        self._ledger.acknowledged |= {f"m{n}" for n in range(count)}


@pytest.fixture
async def stream(kafka_service: KafkaService, ledger: Ledger) -> AsyncIterator[Stream]:
    if not kafka_service.apache:
        pytest.skip(LIGHT)
    name = f"chaos.{secrets.token_hex(6)}"
    await kafka_service.create_topic(name, partitions=6)
    yield Stream(kafka_service.bootstrap, name, ledger)
    await kafka_service.delete_topic(name)


async def stored(ledger: Ledger) -> int:
    (row,) = await ledger.fetch("select coalesce(sum(next_offset), 0) from hammerwork.bridge_offsets")
    return int(row[0])


class Group:
    """The members of one test, and how far they have come together."""

    def __init__(self, ledger: Ledger, dsn: str, service: KafkaService, topic: str, spawn: Spawn) -> None:
        self._ledger = ledger
        self._spawn = spawn
        self._arguments = {
            "CHAOS_DSN": dsn,
            "CHAOS_KAFKA": service.bootstrap,
            "CHAOS_TOPIC": topic,
            "CHAOS_SESSION": str(SESSION),
            "CHAOS_BATCH": "1000",
        }

    def join(self, failpoints: str = "") -> Child:
        return self._spawn("kafka_member", self._arguments, failpoints)

    async def past(self, count: float, within: float = 60) -> None:
        async def reached() -> bool:
            return await stored(self._ledger) >= count

        await until(reached, within, f"{count:.0f} are stored")

    async def all_taken_since(self, fences: dict[str, int]) -> None:
        """Every partition has another owner than when `fences` were looked at."""

        async def taken() -> bool:
            return all(fence > fences[name] for name, fence in (await self.fences()).items())

        await until(taken, 20, "others have taken every partition")

    async def fences(self) -> dict[str, int]:
        rows = await self._ledger.fetch("select partition, fence from hammerwork.bridge_offsets")
        return {row["partition"]: row["fence"] for row in rows}


@pytest.fixture
def group(ledger: Ledger, dsn: str, kafka_service: KafkaService, stream: Stream, spawn: Spawn) -> Group:
    return Group(ledger, dsn, kafka_service, stream.topic, spawn)


async def test_under_load_members_and_broker_fail_and_nothing_is_lost_or_stored_twice(
    ledger: Ledger, kafka_service: KafkaService, stream: Stream, group: Group
) -> None:
    total = 200_000
    first, second = group.join(), group.join()
    sending = asyncio.create_task(stream.send(total), name="send")
    await group.past(total * 0.1)
    third = group.join()
    await group.past(total * 0.2)
    await first.kill()
    await group.past(total * 0.4)
    fences = await group.fences()
    second.send(signal.SIGSTOP)
    await group.all_taken_since(fences)
    await group.past(await stored(ledger) + 5000)
    second.send(signal.SIGCONT)  # a zombie: it was put out of the group with batches in hand
    await group.past(min(total * 0.7, await stored(ledger) + 20_000))
    await asyncio.to_thread(kafka_service.restart)
    fences = await group.fences()
    fourth = group.join()
    await group.all_taken_since(fences)
    await group.past(total * 0.85)
    await third.stop()
    await sending
    await group.past(total)
    for member in (second, fourth):
        await member.stop()
    assert await stored(ledger) == total
    assert (await ledger.assert_clean()).ok == total
    assert await ledger.fetch(DISORDER) == []


async def test_a_member_that_stops_in_its_tracks_within_a_transaction_blocks_nobody_and_stores_nothing(
    ledger: Ledger, stream: Stream, group: Group
) -> None:
    await stream.send(5000)
    frozen = group.join("intake.before_commit=sleep:1@2")

    await until(ledger.is_within_transaction, 20, "it waits in its second transaction")
    frozen.send(signal.SIGSTOP)
    survivor = group.join()
    await group.past(5000, within=30)
    frozen.send(signal.SIGCONT)
    fences = await group.fences()
    await group.all_taken_since(fences)  # it is back in the group
    for member in (frozen, survivor):
        await member.stop()
    assert (await ledger.assert_clean()).ok == 5000
    assert await ledger.fetch(DISORDER) == []
