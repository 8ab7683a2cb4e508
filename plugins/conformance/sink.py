"""SinkContract: the tests of a sink, driven by hand, and of its deliveries as the jobs that they are."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

from ...core.event import SinkCapabilities
from ...core.job import Dead, Done
from ...core.message import AT_LEAST_ONCE, EXACTLY_ONCE
from .choose import needs
from .contract import Contract
from .harness import SinkHarness
from .settings import refusal_of_an_unknown_option
from .sink_trial import SinkTrial, sink_trial


class SinkContract(Contract):
    """The suite of a sink that takes events one by one."""

    section = "sinks"
    declares = SinkCapabilities

    def begun(self, harness: SinkHarness, dsn: str) -> AbstractAsyncContextManager[SinkTrial]:
        return sink_trial(self.plugin, self.kind, harness, dsn)

    # --- one delivery after the other ---

    async def test_it_opens_closes_and_opens_again(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        await sink.close()
        await sink.close()
        await sink.open()
        event = trial.event()
        assert await trial.outcome(sink, event) == Done()
        assert len(await trial.received_of(event)) == 1

    async def test_an_event_arrives_whole(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        event = trial.event({"note": "naïve ✓ 語 \U0001f528", "n": 1.5, "list": [1, None, "x"], "empty": {}})
        assert await trial.outcome(sink, event) == Done()
        (received,) = await trial.received_of(event)
        assert received.event.get("data") == event["data"]
        assert received.event.get("type") == event["type"]

    @needs(lambda capabilities: capabilities.identity)
    async def test_the_identity_is_the_same_on_every_try(self, trial: SinkTrial) -> None:
        event = trial.event()
        for attempt in (1, 2):
            sink = await trial.opened()
            assert await trial.outcome(sink, event, attempt=attempt) == Done()
            await sink.close()
        assert [received.event_id for received in await trial.received_of(event)] == [event["id"]] * 2

    async def test_what_was_not_taken_is_not_done(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        event = trial.event()
        await trial.harness.fail(2)
        for attempt in (1, 2):
            assert not isinstance(await trial.outcome(sink, event, attempt=attempt), Done | Dead)
        assert await trial.outcome(sink, event, attempt=3) == Done()
        assert await trial.received_of(event)

    @needs(lambda capabilities: capabilities.refuses)
    async def test_what_is_refused_for_good_is_dead(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        await trial.harness.refuse()
        assert isinstance(await trial.outcome(sink, trial.event()), Dead)

    @needs(lambda capabilities: capabilities.largest is not None)
    async def test_what_is_too_large_is_dead(self, trial: SinkTrial) -> None:
        """It would be tried for days, and never taken."""
        sink = await trial.opened()
        assert isinstance(
            await trial.outcome(sink, trial.event("x" * (trial.capabilities.largest or 0))), Dead
        )
        assert await trial.outcome(sink, trial.event()) == Done()

    async def test_each_of_many_at_once_has_its_own_outcome(self, trial: SinkTrial) -> None:
        """Who is told Done has arrived; of those that fail, as many as failed."""
        sink = await trial.opened()
        await trial.harness.fail(5)
        events = [trial.event({"n": n}) for n in range(20)]
        outcomes = await asyncio.gather(*(trial.outcome(sink, event) for event in events))
        done = [event for event, outcome in zip(events, outcomes, strict=True) if outcome == Done()]
        assert len(done) == 15
        for event in done:
            assert await trial.received_of(event), "an event was done that never arrived"

    async def test_a_destination_that_hangs_does_not_hold_us_for_ever(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        await trial.harness.hang()
        delivering = asyncio.create_task(trial.outcome(sink, trial.event()), name="deliver")
        done, _ = await asyncio.wait([delivering], timeout=trial.harness.answers_within)
        delivering.cancel()
        assert done, f"a delivery takes longer than {trial.harness.answers_within:g} s"
        assert not isinstance(delivering.result(), Done | Dead)

    async def test_closing_ends_a_delivery(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        await trial.harness.hang()
        delivering = asyncio.create_task(trial.outcome(sink, trial.event()), name="deliver")
        await asyncio.sleep(0.1)
        await asyncio.wait_for(sink.close(), trial.harness.answers_within)
        done, _ = await asyncio.wait([delivering], timeout=trial.harness.answers_within)
        delivering.cancel()
        assert done, "a delivery goes on after the sink was closed"

    async def test_a_destination_that_restarts_is_reached_again(self, trial: SinkTrial) -> None:
        sink = await trial.opened()
        assert await trial.outcome(sink, trial.event()) == Done()
        await trial.harness.restart()
        event = trial.event()

        async def taken() -> bool:
            return await trial.outcome(sink, event) == Done()

        await trial.until(taken, "deliveries are taken again")
        assert await trial.received_of(event)

    # --- as durable jobs ---

    async def test_every_event_arrives_though_some_fail(self, trial: SinkTrial) -> None:
        await trial.harness.fail(7)
        async with trial.delivering():
            jobs = await trial.enqueue(30)
            await trial.all_arrived(jobs)
        assert set((await trial.arrivals()).values()) == {1}, "what was taken was sent again"

    async def test_a_gateway_that_dies_loses_no_event(self, trial: SinkTrial) -> None:
        jobs = await trial.enqueue(60)
        async with trial.delivering(cut=True):

            async def begun() -> bool:
                return len(await trial.arrivals()) >= 10

            await trial.until(begun, "the first events arrive")
        async with trial.delivering():
            await trial.all_arrived(jobs)

    # --- what it says of itself ---

    async def test_the_guarantee_is_one_of_two_levels(self, trial: SinkTrial) -> None:
        found = await trial.sink().guarantee()
        assert found.level in (EXACTLY_ONCE, AT_LEAST_ONCE)
        assert found.because

    async def test_secrets_are_not_shown(self, trial: SinkTrial) -> None:
        """Not by the objects, nor by what is raised; what is logged is searched at the end of every test."""
        sink = await trial.opened()
        said = [repr(trial.options), str(trial.options), repr(sink), repr(await sink.guarantee())]
        said.append(refusal_of_an_unknown_option(trial.plugin, trial.harness.options))
        assert not trial.shown(said), "a secret is shown by a repr or an error"

    async def test_secrets_are_not_shown_by_a_destination_that_is_away(self, trial: SinkTrial) -> None:
        sink = trial.sink(await trial.harness.unreachable())
        said = [repr(await trial.report(sink, trial.event()))]
        await sink.close()
        assert not trial.shown(said), "a secret is shown by an outcome or an error"
