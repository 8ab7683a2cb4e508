"""A gateway that is killed between any two steps loses no message and stores none twice."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Sequence

import pytest

from .conftest import Spawn
from .ledger import Ledger, until
from .processes import Child
from .publisher import Parcel, Publisher, parcels, with_repeats

pytestmark = pytest.mark.chaos

FAILPOINTS = ("intake.pulled", "intake.before_commit", "intake.committed", "intake.settled")
BATCH = 40


class Gateways:
    """Starts ingest processes on one queue and one database."""

    def __init__(self, spawn: Spawn, publisher: Publisher, ledger: Ledger, url: str) -> None:
        self._spawn = spawn
        self._settings = {
            "CHAOS_DSN": ledger.dsn,
            "CHAOS_RABBITMQ_URL": url,
            "CHAOS_QUEUE": publisher.queue,
            "CHAOS_BATCH": str(BATCH),
        }

    def start(self, failpoints: str = "") -> Child:
        return self._spawn("ingest_process", self._settings, failpoints)


@pytest.fixture
def gateways(spawn: Spawn, publisher: Publisher, ledger: Ledger, rabbitmq_url: str) -> Gateways:
    return Gateways(spawn, publisher, ledger, rabbitmq_url)


async def _publish(publisher: Publisher, ledger: Ledger, count: int, seed: int) -> Sequence[Parcel]:
    stream = with_repeats(parcels((f"m{n}" for n in range(count)), poison_every=10), 0.2, seed)
    await publisher.publish_all(stream)
    ledger.acknowledged = {parcel.id for parcel in stream}
    ledger.poison = {parcel.id for parcel in stream if parcel.poison}
    return stream


async def _finish(gateways: Gateways, publisher: Publisher, ledger: Ledger) -> None:
    """Run unarmed gateways until nothing is left at the broker, nor in the hands of a gateway."""

    async def all_taken() -> bool:
        return await publisher.waiting() == 0 and not await ledger.missing()

    for _ in range(5):
        gateway = gateways.start()
        await until(all_taken, 20, "every message is in Postgres")
        await gateway.stop()
        if await publisher.waiting() == 0:
            return
    pytest.fail(f"{await publisher.waiting()} messages stay in the queue")


@pytest.mark.parametrize("turn", [1, 3])
@pytest.mark.parametrize("point", FAILPOINTS)
async def test_a_gateway_killed_at_a_failpoint_loses_and_repeats_nothing(
    gateways: Gateways, publisher: Publisher, ledger: Ledger, point: str, turn: int
) -> None:
    await _publish(publisher, ledger, 250, seed=turn)

    for _ in range(2):
        gateway = gateways.start(f"{point}=kill@{turn}")
        assert await gateway.ended(20) == -signal.SIGKILL, gateway.output

    await _finish(gateways, publisher, ledger)
    account = await ledger.assert_clean()
    assert account.ok == 250


async def test_two_gateways_on_one_queue_killed_at_random_store_each_message_once(
    gateways: Gateways, publisher: Publisher, ledger: Ledger
) -> None:
    publishing = asyncio.create_task(_publish(publisher, ledger, 1500, seed=7), name="publish")

    async def live_and_die(lives: int, seed: int) -> int:
        dice, killed = random.Random(seed), 0
        for _ in range(lives):
            gateway = gateways.start(f"{dice.choice(FAILPOINTS)}=kill@{dice.randint(1, 5)}")
            try:
                killed += await gateway.ended(4) == -signal.SIGKILL
            except TimeoutError:  # the other one took what there was
                await gateway.stop()
        return killed

    killed = sum(await asyncio.gather(live_and_die(4, 1), live_and_die(4, 2)))
    await publishing
    assert killed >= 4
    await _finish(gateways, publisher, ledger)
    account = await ledger.assert_clean()
    assert account.ok == 1500


async def test_a_gateway_that_stops_in_its_tracks_within_a_transaction_blocks_nobody(
    gateways: Gateways, publisher: Publisher, ledger: Ledger
) -> None:
    """Another has copies of its messages, whose identities the transaction has locked."""
    await _publish(publisher, ledger, 250, seed=5)
    frozen = gateways.start("intake.before_commit=sleep:1@2")
    await until(ledger.is_within_transaction, 20, "it waits in its second transaction")
    frozen.send(signal.SIGSTOP)
    await _publish(publisher, ledger, 250, seed=5)
    survivor = gateways.start()

    async def all_stored() -> bool:
        return not await ledger.missing()

    async def none_waits() -> bool:
        return await publisher.waiting() == 0

    await until(all_stored, 40, "every message is in Postgres")
    frozen.send(signal.SIGCONT)
    await frozen.stop()
    await until(none_waits, 20, "the other has taken what the first gave back")
    await survivor.stop()
    account = await ledger.assert_clean()
    assert account.ok == 250
