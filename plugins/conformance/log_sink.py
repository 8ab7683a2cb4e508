"""LogSinkContract: the tests of a sink that takes batches from the event log, by hand and under a relay."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager

import pytest

from ...core.errors import Disconnected, HammerworkError, Misconfigured
from ...core.event import LoggedEvent, SinkCapabilities
from ...core.job import Dead, Done
from ...core.message import AT_LEAST_ONCE, EXACTLY_ONCE
from .choose import needs
from .contract import Contract
from .harness import SinkHarness
from .log_sink_trial import LogSinkTrial, Watched, assert_in_order, log_sink_trial
from .settings import refusal_of_an_unknown_option


class LogSinkContract(Contract):
    """The suite of a sink that takes batches. One that answers a mark when it is opened is held to it: then
    no event arrives twice."""

    section = "sinks"
    declares = SinkCapabilities

    def begun(self, harness: SinkHarness, dsn: str) -> AbstractAsyncContextManager[LogSinkTrial]:
        return log_sink_trial(self.plugin, self.kind, harness, dsn)

    # --- one send after the other ---

    async def test_it_opens_closes_and_opens_again(self, trial: LogSinkTrial) -> None:
        sink = await trial.opened()
        await sink.close()
        await sink.close()
        await sink.open()
        events = trial.events(2, 1)
        assert await trial.send(sink, events) == [Done(), Done()]
        assert len(await trial.arrived(events)) == 2

    async def test_an_event_arrives_whole(self, trial: LogSinkTrial) -> None:
        sink = await trial.opened()
        note = {"text": "naïve ✓ 語 \U0001f528", "n": 1.5, "list": [1, None, "x"], "empty": {}}
        event = trial.event(sequence=3, note=note)
        assert await trial.send(sink, [event]) == [Done()]
        (received,) = await trial.arrived([event])
        assert received.event["data"] == {"job_id": str(event.job_id), "queue": event.queue, "note": note}
        assert received.event["type"] == f"dev.hammerwork.{event.type}"
        assert received.event["sequence"] == "0000000003"

    async def test_every_event_of_a_batch_arrives_once_and_in_order(self, trial: LogSinkTrial) -> None:
        sink = await trial.opened()
        events = trial.events(20, 6)
        assert set((await trial.send_all(sink, events)).values()) == {Done()}
        arrived = await trial.arrived(events)
        assert len(arrived) == len(events)
        assert_in_order(arrived)

    @needs(lambda capabilities: capabilities.identity)
    async def test_the_identity_is_the_same_on_every_try(self, trial: LogSinkTrial) -> None:
        events = [trial.event()]
        for _ in range(2):
            sink = await trial.opened()
            assert await trial.send(sink, events) == [Done()]
            await sink.close()
        assert [got.event_id for got in await trial.arrived(events)] == [str(events[0].id)] * 2

    # --- what is not taken ---

    async def test_what_was_not_taken_is_not_done(self, trial: LogSinkTrial) -> None:
        """Outcomes stand where their events do: who is told Done has arrived."""
        sink = await trial.opened()
        events = trial.events(12, 1)
        await trial.harness.fail(5)
        outcomes = await trial.tried(sink, events)
        done = [event for event, outcome in zip(events, outcomes, strict=True) if outcome == Done()]
        assert len(done) < len(events), "all is done, though some failed"
        assert len(await trial.arrived(done)) == len(done), "an event was done that never arrived"
        assert set((await trial.send_all(sink, events)).values()) == {Done()}
        assert {got.event["id"] for got in await trial.arrived(events)} == {str(event.id) for event in events}

    async def test_a_partial_failure_tears_no_job_apart(self, trial: LogSinkTrial) -> None:
        """None of its events is taken behind one that was not, and what is tried again overtakes nothing."""
        sink = await trial.opened()
        events = trial.events(5, 8)
        await trial.harness.fail(6)
        left: list[LoggedEvent] = []
        for event, outcome in zip(events, await trial.tried(sink, events), strict=True):
            if outcome != Done():
                left.append(event)
            elif event.job_id in {earlier.job_id for earlier in left}:
                pytest.fail("an event was taken behind one that was not")
        assert set((await trial.send_all(sink, left)).values()) == {Done()}
        assert_in_order(await trial.harness.received())

    @needs(lambda capabilities: capabilities.largest is not None)
    async def test_what_is_too_large_is_dead_and_stops_no_other(self, trial: LogSinkTrial) -> None:
        """It would be tried for ever, and all that stands behind it with it."""
        sink = await trial.opened()
        large = trial.event(note="x" * (trial.capabilities.largest or 0))
        same_job = trial.event(large.job_id, 2)
        others = trial.events(3, 2)
        found = await trial.send_all(sink, [*others[:3], large, same_job, *others[3:]])
        assert isinstance(found.pop(large.id), Dead)
        assert set(found.values()) == {Done()}
        assert len(await trial.arrived([same_job, *others])) == 7
        assert not await trial.arrived([large])

    @needs(lambda capabilities: capabilities.refuses)
    async def test_what_is_refused_for_good_is_dead(self, trial: LogSinkTrial) -> None:
        sink = await trial.opened()
        await trial.harness.refuse()
        found = await trial.send_all(sink, trial.events(3, 1))
        assert all(isinstance(outcome, Dead) for outcome in found.values()), found

    # --- a destination in trouble ---

    async def test_a_destination_that_hangs_does_not_hold_us_for_ever(self, trial: LogSinkTrial) -> None:
        """The send ends by itself or when it is cancelled, with nothing done, and the sink closes."""
        sink = await trial.opened()
        await trial.harness.hang()
        within = trial.harness.answers_within
        sending = asyncio.create_task(trial.send(sink, trial.events(2, 1)), name="send")
        await asyncio.wait([sending], timeout=within)
        sending.cancel()
        done, _ = await asyncio.wait([sending], timeout=within)
        assert done, "a send goes on though it is cancelled"
        if not sending.cancelled() and sending.exception() is None:
            assert not [outcome for outcome in sending.result() if isinstance(outcome, Done | Dead)]
        closing = asyncio.create_task(sink.close(), name="close")
        await asyncio.wait([closing], timeout=within)
        ended = closing.done()
        closing.cancel()
        assert ended, f"a close takes longer than {within:g} s"

    async def test_a_destination_that_restarts_is_reached_again(self, trial: LogSinkTrial) -> None:
        """With what it had taken, and nothing behind it out of order."""
        sink = await trial.opened()
        events = trial.events(4, 6)
        await trial.send_all(sink, events[:12])
        await trial.harness.restart()
        await trial.send_all(sink, events[12:])
        arrived = await trial.arrived(events)
        assert {got.event["id"] for got in arrived} == {str(event.id) for event in events}
        assert_in_order(arrived)

    async def test_a_destination_that_is_away_is_said_to_be(self, trial: LogSinkTrial) -> None:
        """By open, or by send; without a secret."""
        sink = trial.sink(await trial.harness.unreachable())
        said = []
        for act in (sink.open, lambda: trial.send(sink, trial.events(1, 1))):
            try:
                await asyncio.wait_for(act(), trial.harness.answers_within)
            except (Disconnected, Misconfigured) as error:
                said.append(f"{error} {error!r} {getattr(error, 'hint', '')}")
                break
        await sink.close()
        assert said, "neither open nor send raises Disconnected or Misconfigured where nobody answers"
        try:
            said.append(repr(await trial.sink(await trial.harness.unreachable()).guarantee()))
        except HammerworkError as error:
            said.append(f"{error} {error!r} {getattr(error, 'hint', '')}")
        assert not trial.shown(said), "a secret is shown by an error"

    # --- under a relay ---

    async def test_every_event_arrives_in_order_though_some_fail(self, trial: LogSinkTrial) -> None:
        await trial.run_jobs(6)  # so few that all events of a job are in one batch
        await trial.harness.fail(4)
        async with trial.relaying(trial.sink()):
            told = await trial.run_jobs(24)
            await trial.all_arrived(told)
        assert_in_order(await trial.harness.received())

    async def test_a_destination_that_restarts_misses_nothing(self, trial: LogSinkTrial) -> None:
        await trial.run_jobs(20)
        async with trial.relaying(trial.sink()):
            await trial.until(trial.has_begun, "the first events arrive")
            await trial.harness.restart()
            told = await trial.run_jobs(20)
            await trial.all_arrived(told)
        assert_in_order(await trial.harness.received())

    async def test_a_gateway_that_dies_between_send_and_position_repeats_one_batch(
        self, trial: LogSinkTrial
    ) -> None:
        """And skips nothing. Where the sink keeps the position itself, nothing is repeated either."""
        told = await trial.run_jobs(30)
        dying = Watched(trial.sink(), frozen=2)
        async with trial.relaying(dying, cut=True):
            await trial.until(dying.is_hit, "the second batch is sent")
        async with trial.relaying(trial.sink()):
            await trial.all_arrived(told)
        await self._only_repeats(trial, dying)

    async def test_lost_answers_repeat_their_batches_only(self, trial: LogSinkTrial) -> None:
        told = await trial.run_jobs(30)
        watched = Watched(trial.sink(), lost=(2, 4))
        async with trial.relaying(watched):
            await trial.all_arrived(told)
        await self._only_repeats(trial, watched)

    async def test_a_stop_and_a_start_repeat_nothing(self, trial: LogSinkTrial) -> None:
        for _ in range(2):
            told = await trial.run_jobs(10)
            async with trial.relaying(trial.sink()):
                await trial.all_arrived(told)
        assert set((await trial.arrivals()).values()) == {1}, "what was taken was sent again"

    async def _only_repeats(self, trial: LogSinkTrial, watched: Watched) -> None:
        arrived = await trial.harness.received()
        assert_in_order(arrived)
        twice = {event for event, times in (await trial.arrivals()).items() if times > 1}
        assert twice <= watched.unanswered, "what was taken, and known to be, was sent again"
        if await trial.keeps_position():
            assert not twice, f"{len(twice)} events were sent again, though the sink keeps the position"

    async def test_a_position_that_a_sink_keeps_is_that_of_its_last_batch(self, trial: LogSinkTrial) -> None:
        """Stored with the events, or not at all."""
        sink = await trial.opened()
        kept = trial.mark()
        assert await trial.send(sink, trial.events(3, 1), kept) == [Done()] * 3
        await sink.close()
        sink = trial.sink()
        if (found := await sink.open()) is None:
            return
        assert found == kept
        await trial.harness.fail(2)
        events = trial.events(6, 1)
        outcomes = await trial.tried(sink, events)
        assert outcomes.count(Done()) in (0, 6), "a batch that is half done has no one position"
        arrived = await trial.arrived(events)
        await sink.close()
        assert (await sink.open() == kept) == (not arrived), "the position is not where the events are"

    # --- what it says of itself ---

    async def test_the_guarantee_is_one_of_two_levels(self, trial: LogSinkTrial) -> None:
        sink = await trial.opened()
        await trial.send_all(sink, trial.events(1, 1))
        await sink.close()
        found = await trial.sink().guarantee()
        assert found.level in (EXACTLY_ONCE, AT_LEAST_ONCE)
        assert found.because
        if found.level == EXACTLY_ONCE:
            assert await trial.keeps_position(), "exactly-once needs a position that is kept with the events"

    async def test_secrets_are_not_shown(self, trial: LogSinkTrial) -> None:
        """Not by the objects, nor by what is raised; what is logged is searched at the end of every test."""
        sink = await trial.opened()
        said = [repr(trial.options), str(trial.options), repr(sink), repr(await sink.guarantee())]
        said.append(refusal_of_an_unknown_option(trial.plugin, trial.harness.options))
        assert not trial.shown(said), "a secret is shown by a repr or an error"
