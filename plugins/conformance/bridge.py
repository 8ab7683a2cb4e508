"""BridgeContract: the tests of a bridge that is driven by hand, call by call, as the framework would."""

from __future__ import annotations

import asyncio
import time
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from datetime import timedelta

from ...core.errors import Disconnected
from ...core.message import AT_LEAST_ONCE, EXACTLY_ONCE, BridgeCapabilities, Want
from .choose import needs
from .contract import Contract
from .crash import CrashTests
from .fidelity import FidelityTests
from .harness import BridgeHarness
from .ingest import IngestTests
from .trial import PROMPT, BridgeTrial, bridge_trial, numbered, receipts

SLACK = 1.0
"""Seconds that a loaded machine may add to a wait."""

acknowledged = needs(lambda capabilities: capabilities.kind == "ack")
read_by_offset = needs(lambda capabilities: capabilities.kind == "log")


class BridgeContract(IngestTests, FidelityTests, CrashTests, Contract):
    """The suite of a bridge."""

    section = "bridges"
    declares = BridgeCapabilities

    def begun(self, harness: BridgeHarness, dsn: str) -> AbstractAsyncContextManager[BridgeTrial]:
        return bridge_trial(self.plugin, self.kind, harness, dsn)

    # --- open, pull, close ---

    async def test_it_opens_closes_and_opens_again(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        await bridge.close()
        await bridge.close()
        await bridge.open()
        numbers = await trial.publish(3)
        assert sorted(numbered(await trial.take(bridge, 3))) == numbers

    async def test_a_pull_brings_no_more_than_is_wanted(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        numbers = await trial.publish(7)
        taken: list[int] = []
        while len(taken) < 7:
            deliveries = await bridge.pull(replace(PROMPT, count=3))
            assert len(deliveries) <= 3
            await bridge.settle(receipts(deliveries))
            taken += numbered(deliveries)
        assert sorted(taken) == numbers

    async def test_a_pull_brings_about_the_wanted_size(self, trial: BridgeTrial) -> None:
        """No more than the size, or than the one message that passes it."""
        bridge = await trial.opened()
        message = trial.message(0)
        bodies = [
            message._replace(id=f"{message.id}.{n}", body=b" " * 10_000 + message.body) for n in range(6)
        ]
        await trial.harness.publish(bodies)
        count = 0
        while count < 6:
            deliveries = await bridge.pull(replace(PROMPT, size=25_000))
            assert sum(len(delivery.message.body) for delivery in deliveries) <= 25_000 + 10_100
            await bridge.settle(receipts(deliveries))
            count += len(deliveries)

    async def test_a_pull_waits_as_long_as_is_wanted(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        await trial.nothing_comes(bridge)  # the first one may have to begin something
        for wait in (0.0, 0.5):
            began = time.monotonic()
            await bridge.pull(Want(wait=timedelta(seconds=wait)))
            took = time.monotonic() - began
            assert wait * 0.8 <= took <= wait + SLACK, f"a pull with wait {wait} s took {took:.2f} s"

    async def test_closing_ends_a_pull(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        pulling = asyncio.create_task(bridge.pull(Want(wait=timedelta(minutes=5))))
        await asyncio.sleep(0.1)
        await asyncio.wait_for(bridge.close(), trial.harness.patience)
        done, _ = await asyncio.wait([pulling], timeout=trial.harness.patience)
        pulling.cancel()
        assert done, "a pull goes on after the bridge was closed"
        assert isinstance(pulling.exception(), Disconnected | None)

    async def test_a_broker_that_restarts_is_noticed(self, trial: BridgeTrial) -> None:
        """By a pull that raises, or by messages that come all the same; never by silence."""
        bridge = await trial.opened()
        await trial.nothing_comes(bridge)
        await trial.harness.restart()
        await trial.publish(1)

        async def noticed() -> bool:
            try:
                return bool(await bridge.pull(PROMPT))
            except Disconnected:
                return True

        await trial.until(noticed, "the bridge notices that its broker was away")

    # --- settle and release ---

    @acknowledged
    async def test_what_is_settled_does_not_come_again(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        await trial.publish(4)
        await bridge.settle(receipts(await trial.take(bridge, 4)))
        await trial.nothing_is_left()

    @acknowledged
    async def test_what_is_not_settled_comes_again(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        numbers = await trial.publish(4)
        await trial.take(bridge, 4)
        await bridge.close()
        again = await trial.take(await trial.opened(), 4)
        assert sorted(numbered(again)) == numbers

    @acknowledged
    async def test_of_two_pulls_only_the_settled_one_is_gone(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        numbers = await trial.publish(6)
        first = await trial.take(bridge, 3, replace(PROMPT, count=3))
        second = await trial.take(bridge, 3, replace(PROMPT, count=3, wait=timedelta(milliseconds=100)))
        await bridge.settle(receipts(first))
        await bridge.close()
        again = await trial.take(await trial.opened(), 3)
        assert (
            sorted(numbered(again)) == sorted(numbered(second)) == sorted(set(numbers) - {*numbered(first)})
        )

    @acknowledged
    async def test_settling_late_is_no_error_and_settles_nothing_else(self, trial: BridgeTrial) -> None:
        """What was pulled before the bridge was opened anew: its messages may be gone by it, no other may."""
        bridge = await trial.opened()
        await trial.publish(4)
        await bridge.settle(receipts(await trial.take(bridge, 2, replace(PROMPT, count=2))))
        late = await trial.take(bridge, 2, replace(PROMPT, count=2))
        await bridge.close()
        await bridge.open()
        others = await trial.publish(2)
        await trial.take(bridge, 4)
        await bridge.settle(receipts(late))
        await bridge.close()
        seen: set[int] = set()
        bridge = await trial.opened()

        async def both() -> bool:
            seen.update(numbered(await bridge.pull(PROMPT)))
            return seen >= set(others)

        await trial.until(both, "what was never settled comes again")

    @acknowledged
    async def test_what_is_released_comes_again(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        numbers = await trial.publish(5)
        await bridge.release(await trial.take(bridge, 5))
        await bridge.close()
        again = await trial.take(await trial.opened(), 5)
        assert sorted(numbered(again)) == numbers

    @needs(lambda capabilities: capabilities.lease != "none" and capabilities.shared)
    async def test_what_is_in_hand_when_a_bridge_dies_comes_again(self, trial: BridgeTrial) -> None:
        """The first one is neither closed nor called again, as one that hangs."""
        first, second = await trial.opened(), await trial.opened()
        numbers = await trial.publish(3)
        await trial.take(first, 3)
        if trial.capabilities.lease == "renewed":
            await trial.nothing_comes(second, timedelta(seconds=3 * (trial.harness.lease or 0.0)))
            await first.close()
        again = await trial.take(second, 3)
        assert sorted(numbered(again)) == numbers

    # --- logs ---

    @read_by_offset
    async def test_deliveries_of_a_log_have_rising_positions(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        await trial.publish(12, keys=3)
        reached: dict[str, int] = {}
        for delivery in await trial.take(bridge, 12, replace(PROMPT, count=4)):
            position = delivery.position
            assert position is not None, "a delivery of a log has no position"
            before = reached.get(position.partition, -1)
            assert position.offset > before, f"{position} does not rise above {before}"
            reached[position.partition] = position.offset

    @read_by_offset
    async def test_a_log_is_read_again_from_what_was_released(self, trial: BridgeTrial) -> None:
        """Without being opened anew, and with what lay behind it."""
        bridge = await trial.opened()
        numbers = await trial.publish(6)
        await bridge.release(await trial.take(bridge, 6))
        assert sorted(numbered(await trial.take(bridge, 6))) == numbers

    # --- rest and lag ---

    async def test_resting_loses_nothing(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        numbers = await trial.publish(6)
        first = await trial.take(bridge, 2, replace(PROMPT, count=2))
        await bridge.settle(receipts(first))
        for _ in range(3):
            await asyncio.wait_for(bridge.rest(), SLACK)
            await asyncio.sleep(0.05)
        rest = await trial.take(bridge, 4)
        assert sorted(numbered(first) + numbered(rest)) == numbers

    @needs(lambda capabilities: capabilities.kind == "ack" and capabilities.shared)
    async def test_others_have_what_a_resting_bridge_received_ahead(self, trial: BridgeTrial) -> None:
        resting, other = await trial.opened(), await trial.opened()
        await other.rest()
        numbers = await trial.publish(6)
        first = await trial.take(resting, 2, replace(PROMPT, count=2))
        await resting.settle(receipts(first))
        await resting.rest()
        rest = await trial.take(other, 4)
        assert sorted(numbered(first) + numbered(rest)) == numbers

    async def test_lag_counts_and_takes_nothing(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        numbers = await trial.publish(5)

        async def counted() -> bool:
            return await bridge.lag() in (5, None)

        await trial.until(counted, "the lag is 5, or unknown")
        assert sorted(numbered(await trial.take(bridge, 5))) == numbers

    # --- identity, count, order ---

    @needs(lambda capabilities: capabilities.stable_ids)
    async def test_the_identity_is_the_same_on_every_delivery(self, trial: BridgeTrial) -> None:
        bridge = await trial.opened()
        await trial.publish(3)
        first = {d.message.body: d.message.id for d in await trial.take(bridge, 3)}
        await bridge.close()
        again = {d.message.body: d.message.id for d in await trial.take(await trial.opened(), 3)}
        assert None not in first.values()
        assert len(set(first.values())) == 3
        assert again == first

    @needs(lambda capabilities: capabilities.counts_deliveries)
    async def test_attempts_rise_with_every_delivery(self, trial: BridgeTrial) -> None:
        await trial.publish(1)
        attempts = []
        for _ in range(3):
            bridge = await trial.opened()
            (delivery,) = await trial.take(bridge, 1)
            attempts.append(delivery.message.attempt)
            await bridge.close()
        assert attempts == [1, 2, 3]

    @needs(lambda capabilities: capabilities.order != "none")
    async def test_deliveries_come_in_order_and_come_again_in_order(self, trial: BridgeTrial) -> None:
        """Of all messages, or of those of each key; a partition keeps its keys together. They are so few that
        a broker that lends out a key's messages in one piece (a FIFO queue of SQS) gives all of them."""
        total = trial.capabilities.order == "total"
        bridge = await trial.opened()
        numbers = await trial.publish(9, keys=3)
        taken = await trial.take(bridge, 9)
        await bridge.close()
        again = await trial.take(await trial.opened(), 9)
        for came in (numbered(taken), numbered(again)):
            if total:
                assert came == numbers
            for key in range(3):
                assert [n for n in came if n % 3 == key] == [n for n in numbers if n % 3 == key]

    # --- what it says of itself ---

    async def test_the_guarantee_is_one_of_two_levels(self, trial: BridgeTrial) -> None:
        found = await trial.bridge().guarantee()
        assert found.level in (EXACTLY_ONCE, AT_LEAST_ONCE)
        assert found.because
        if found.level == EXACTLY_ONCE:
            assert trial.capabilities.stable_ids or trial.capabilities.kind == "log"
