"""RabbitMQ is killed, or throws everybody out, under load: every confirmed message is stored once."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from functools import partial

import pytest

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database

from ..services.rabbitmq import VARIABLE, RabbitmqService
from .ledger import Ledger, until
from .publisher import Parcel, Publisher, parcels, with_repeats
from .running import running

pytestmark = [
    pytest.mark.chaos,
    pytest.mark.skipif(VARIABLE in os.environ, reason=f"the server of {VARIABLE} is not ours to break"),
]


@pytest.fixture(params=["classic", "quorum"])
async def durable(rabbitmq_url: str, request: pytest.FixtureRequest) -> AsyncIterator[Publisher]:
    """A producer on a fresh queue of either type."""
    publisher = Publisher(rabbitmq_url, f"chaos.{request.param}.{os.urandom(4).hex()}")
    arguments = {"x-queue-type": request.param}
    await (await publisher.channel()).queue_declare(publisher.queue, durable=True, arguments=arguments)
    yield publisher
    await publisher.close()
    cleaner = Publisher(rabbitmq_url, publisher.queue)
    await (await cleaner.channel()).queue_delete(cleaner.queue)
    await cleaner.close()


class Load:
    """Publishes a stream from several connections, each message until the broker has confirmed it."""

    def __init__(self, publisher: Publisher, stream: Sequence[Parcel], ledger: Ledger, url: str) -> None:
        self._publishers = [Publisher(url, publisher.queue) for _ in range(4)]
        self._stream = iter(stream)
        self._ledger = ledger

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number, publisher in enumerate(self._publishers):
                tasks.create_task(self._publish(publisher), name=f"load {number}")

    async def _publish(self, publisher: Publisher) -> None:
        for parcel in self._stream:
            await publisher.insist(parcel)
            self._ledger.acknowledged.add(parcel.id)
            if parcel.poison:
                self._ledger.poison.add(parcel.id)
            await asyncio.sleep(0.002)
        await publisher.close()


def _intake(database: Database, publisher: Publisher, url: str) -> Intake:
    options = RabbitmqOptions.model_validate({"url": url, "queue": publisher.queue, "prefetch": 200})
    return Intake(
        database,
        RabbitmqBridge("orders", options),
        Decoder(),
        FieldMapping(queue="work"),
        IntakeLimits(count=50),
        kind="rabbitmq",
    )


async def _acknowledged(ledger: Ledger, more_than: int) -> bool:
    return len(ledger.acknowledged) > more_than


async def _all_stored(ledger: Ledger, intake: Intake, publisher: Publisher) -> bool:
    if intake.status.state != "running" or await ledger.missing():
        return False
    return await publisher.waiting() == 0


async def test_a_broker_that_is_restarted_under_load_loses_and_repeats_nothing(
    database: Database,
    ledger: Ledger,
    durable: Publisher,
    rabbitmq_service: RabbitmqService,
    rabbitmq_url: str,
) -> None:
    """Killed with a classic queue. With a quorum queue it is shut down: RabbitMQ writes the name of a new one
    to disk minutes later only, and one that is killed before has lost the queue and all that it confirmed."""
    killed = "classic" in durable.queue
    stream = with_repeats(parcels([f"m{n}" for n in range(1500)], poison_every=10), 0.1, seed=11)
    intake, load = _intake(database, durable, rabbitmq_url), Load(durable, stream, ledger, rabbitmq_url)
    async with running(intake):
        loading = asyncio.create_task(load.run(), name="load")
        await until(lambda: _acknowledged(ledger, 300), 20, "messages flow")
        await durable.close()
        await asyncio.to_thread(rabbitmq_service.stop, immediate=killed)
        await asyncio.to_thread(rabbitmq_service.start)
        stored = intake.counts.stored
        resumed = await until(partial(_stores_more, intake, stored), 30, "messages flow again")
        await asyncio.wait_for(loading, 40)
        await until(lambda: _all_stored(ledger, intake, durable), 20, "every message is stored")
    assert await durable.waiting() == 0
    account = await ledger.assert_clean()
    assert account.ok == 1500
    assert intake.counts.reconnects >= 1
    assert resumed <= 30


async def test_connections_closed_by_the_broker_under_load_lose_and_repeat_nothing(
    database: Database,
    ledger: Ledger,
    durable: Publisher,
    rabbitmq_service: RabbitmqService,
    rabbitmq_url: str,
) -> None:
    # Enough to outlast three calls of rabbitmqctl on a slow machine: each cut must find messages under way.
    stream = with_repeats(parcels([f"m{n}" for n in range(6000)], poison_every=10), 0.1, seed=12)
    intake, load = _intake(database, durable, rabbitmq_url), Load(durable, stream, ledger, rabbitmq_url)
    async with running(intake):
        loading = asyncio.create_task(load.run(), name="load")
        for landed in range(1, 4):
            stored = intake.counts.stored
            await until(partial(_stores_more, intake, stored + 50), 20, "messages flow")
            await durable.close()
            await asyncio.to_thread(rabbitmq_service.close_all_connections)
            await until(partial(_reconnected, intake, landed), 10, "the bridge was cut")
        await asyncio.wait_for(loading, 60)
        await until(lambda: _all_stored(ledger, intake, durable), 20, "every message is stored")
    assert await durable.waiting() == 0
    account = await ledger.assert_clean()
    assert account.ok == 6000


async def _stores_more(intake: Intake, than: int) -> bool:
    return intake.counts.stored > than


async def _reconnected(intake: Intake, times: int) -> bool:
    return intake.counts.reconnects >= times
