"""Tests of a bridge under a real intake and a real Postgres: each message one job, whatever happens."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ...core import operate
from ...core.errors import Disconnected, Unavailable
from ...core.ingest.mapping import FieldMapping
from ...core.job import Job, Json
from ...core.message import Bridge, Delivery, Guarantee, LogBridge, Message, Receipt, Want
from .choose import needs
from .trial import LOOK_EVERY, BridgeTrial


class Interrupted:
    """A bridge whose first settles are lost, as though the broker had gone between COMMIT and settle."""

    def __init__(self, bridge: Bridge, times: int) -> None:
        self.name = bridge.name
        self.left = times
        self._bridge = bridge
        if isinstance(bridge, LogBridge):
            self.keep = bridge.keep

    async def open(self) -> None:
        await self._bridge.open()

    async def pull(self, want: Want) -> Sequence[Delivery]:
        return await self._bridge.pull(want)

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        if self.left:
            self.left -= 1
            raise Disconnected("the conformance kit has cut the connection")
        await self._bridge.settle(receipts)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self._bridge.release(deliveries)

    async def rest(self) -> None:
        await self._bridge.rest()

    async def lag(self) -> int | None:
        return await self._bridge.lag()

    async def close(self) -> None:
        await self._bridge.close()

    async def guarantee(self) -> Guarantee:
        return await self._bridge.guarantee()


class Frozen:
    """A mapper that, after so many messages, waits until it is thawed: in the middle of things."""

    waits = True

    def __init__(self, queue: str, *, after: int = 0) -> None:
        self.thawed = asyncio.Event()
        self._left = after
        self._fields = FieldMapping(queue)

    async def is_reached(self) -> bool:
        """Whether something waits."""
        return self._left < 0

    async def map(self, message: Message, body: Json, bridge: str) -> Job | None:
        self._left -= 1
        if self._left < 0:
            await self.thawed.wait()
        return await self._fields.map(message, body, bridge)


class Away:
    """A mapper whose world is away at first: its intake hands back what it pulled."""

    waits = False

    def __init__(self, queue: str, times: int) -> None:
        self.left = times
        self._fields = FieldMapping(queue)

    async def map(self, message: Message, body: Json, bridge: str) -> Job | None:
        if self.left:
            self.left -= 1
            raise Unavailable("the conformance kit has taken the world away")
        return await self._fields.map(message, body, bridge)


class IngestTests:
    """Part of BridgeContract."""

    async def test_every_message_becomes_a_job_and_nothing_is_left(self, trial: BridgeTrial) -> None:
        async with trial.running(trial.intake()):
            numbers = await trial.publish(40)
            await trial.all_stored(numbers)
        await trial.nothing_is_left()

    async def test_nothing_is_settled_before_commit(self, trial: BridgeTrial) -> None:
        numbers = await trial.publish(12)
        bridge = trial.bridge()
        frozen = Frozen(trial.name)
        intake = trial.intake(bridge, mapper=frozen)
        task = asyncio.create_task(intake.run(), name="intake")
        await trial.until(frozen.is_reached, "messages are pulled")
        async with trial.held_commits():
            frozen.thawed.set()
            await asyncio.sleep(
                0.3
            )  # the COMMIT cannot come; whoever does not wait for it has settled by now
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await bridge.close()
            await trial.all_left(12)
        async with trial.running(trial.intake()):
            await trial.all_stored(numbers)
        await trial.nothing_is_left()

    async def test_what_comes_again_after_its_commit_makes_no_second_job(self, trial: BridgeTrial) -> None:
        numbers = await trial.publish(15)
        bridge = Interrupted(trial.bridge(), times=2)
        async with trial.running(trial.intake(bridge)):

            async def settled() -> bool:
                return not bridge.left

            await trial.until(settled, "what was not settled comes again")
            await trial.all_stored(numbers)
        async with trial.running(trial.intake()):
            await trial.all_stored([*numbers, *await trial.publish(3)])
        await trial.nothing_is_left()

    async def test_poison_becomes_a_dead_letter_and_blocks_nothing(self, trial: BridgeTrial) -> None:
        """It stands between two good messages of the same key."""
        poison = b'{"n": '
        good = [trial.message(n, key="key 0") for n in range(4)]
        bad = [good[0]._replace(id=f"{trial.name}-bad-{n}", body=poison) for n in range(2)]
        async with trial.running(trial.intake()):
            await trial.harness.publish([good[0], bad[0], good[1], good[2], bad[1], good[3]])
            await trial.all_stored(range(4))

            async def buried() -> bool:
                return len(await trial.dead_letters()) == 2

            await trial.until(buried, "two dead letters")
        assert [letter["body"] for letter in await trial.dead_letters()] == [poison, poison]
        await trial.nothing_is_left()

    async def test_saturation_passes_without_loss(self, trial: BridgeTrial) -> None:
        """While nothing commits, many more messages come than two batches hold."""
        intake = trial.intake(count=5)
        async with trial.running(intake):
            first = await trial.publish(1)
            await trial.all_stored(first)
            async with trial.held_commits():
                more = await trial.publish(60)
                await asyncio.sleep(0.3)  # what comes of it is looked at when it is over
            await trial.all_stored([*first, *more])
        await trial.nothing_is_left()

    async def test_a_pause_in_the_middle_loses_nothing(self, trial: BridgeTrial) -> None:
        """An operator pauses the bridge while messages are in hand, and more were received ahead."""
        numbers = await trial.publish(60)
        middle = Frozen(trial.name, after=12)
        intake = trial.intake(mapper=middle, count=5)
        async with trial.running(intake):
            await trial.until(middle.is_reached, "messages are pulled")
            await operate.pause_bridge(trial.database, trial.name)
            await asyncio.sleep(LOOK_EVERY.total_seconds())  # its next look is a real one
            middle.thawed.set()

            async def rests() -> bool:
                return intake.status.state == "paused"

            await trial.until(rests, "the bridge rests")
            await operate.resume_bridge(trial.database, trial.name)
            await trial.all_stored(numbers)
        await trial.nothing_is_left()

    async def test_a_stop_in_the_middle_loses_nothing(self, trial: BridgeTrial) -> None:
        numbers = await trial.publish(60)
        middle = Frozen(trial.name, after=12)
        intake = trial.intake(mapper=middle, count=5)
        async with trial.running(intake):
            await trial.until(middle.is_reached, "messages are pulled")
            intake.stop()
            middle.thawed.set()
        async with trial.running(trial.intake()):
            await trial.all_stored(numbers)
        await trial.nothing_is_left()

    async def test_a_cancellation_in_the_middle_loses_nothing(self, trial: BridgeTrial) -> None:
        numbers = await trial.publish(60)
        bridge, middle = trial.bridge(), Frozen(trial.name, after=12)
        task = asyncio.create_task(trial.intake(bridge, mapper=middle, count=5).run(), name="intake")
        await trial.until(middle.is_reached, "messages are pulled")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await bridge.close()
        async with trial.running(trial.intake()):
            await trial.all_stored(numbers)
        await trial.nothing_is_left()

    async def test_what_is_handed_back_comes_again(self, trial: BridgeTrial) -> None:
        """As it is when Postgres, or something that a transform needs, is away for a while."""
        numbers = await trial.publish(15)
        away = Away(trial.name, times=2)
        async with trial.running(trial.intake(mapper=away, count=5)):
            await trial.all_stored(numbers)
        assert away.left == 0
        await trial.nothing_is_left()

    async def test_a_broker_that_restarts_loses_nothing(self, trial: BridgeTrial) -> None:
        await self._in_the_middle(trial, trial.harness.restart)

    async def test_cut_connections_lose_nothing(self, trial: BridgeTrial) -> None:
        await self._in_the_middle(trial, trial.harness.cut)

    async def _in_the_middle(self, trial: BridgeTrial, act: Callable[[], Awaitable[None]]) -> None:
        """Messages flow, some are in hand, `act` happens, and more messages come."""
        middle = Frozen(trial.name, after=12)
        async with trial.running(trial.intake(mapper=middle, count=5)):
            numbers = await trial.publish(30)
            await trial.until(middle.is_reached, "messages are pulled")
            try:
                await act()
            finally:
                middle.thawed.set()
            numbers += await trial.publish(30)
            await trial.all_stored(numbers)
        await trial.nothing_is_left()

    @needs(lambda capabilities: capabilities.shared)
    async def test_a_zombie_stores_nothing_twice(self, trial: BridgeTrial) -> None:
        """One gateway stands still with messages in hand, long enough for another to have them; then it goes
        on as though nothing had been."""
        numbers = await trial.publish(10)
        frozen = Frozen(trial.name)
        zombie = trial.bridge()
        async with trial.running(trial.intake(zombie, mapper=frozen)):
            await trial.until(frozen.is_reached, "messages are pulled")
            async with trial.running(trial.intake()):
                if trial.capabilities.lease != "expires":
                    await trial.harness.sever(zombie)
                await trial.all_stored(numbers)
                frozen.thawed.set()
                numbers += await trial.publish(10)
                await trial.all_stored(numbers)
        await trial.nothing_is_left()

    @needs(lambda capabilities: capabilities.shared)
    async def test_two_gateways_share_the_messages(self, trial: BridgeTrial) -> None:
        intakes = trial.intake(count=5), trial.intake(count=5)
        async with trial.running(intakes[0]), trial.running(intakes[1]):

            async def both_run() -> bool:
                return all(intake.status.state == "running" for intake in intakes)

            await trial.until(both_run, "both intakes run")
            numbers = await trial.publish(60)
            await trial.all_stored(numbers)
        await trial.nothing_is_left()
