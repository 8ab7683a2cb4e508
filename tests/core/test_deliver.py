"""Deliveries: each event to its destination, tried again, logged, and a sink that is gone put aside."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import NotFound
from hammerwork.core.event import DeliveryAttempt, DeliveryReport, EventType
from hammerwork.core.execute.worker import Worker
from hammerwork.core.job import Dead, Done, Job, JobState, Retry, Snooze
from hammerwork.core.message import Guarantee
from hammerwork.core.publish.deliver import STANDARD_SCHEDULE, DeliveryPolicy, delivery_handlers
from hammerwork.core.publish.delivery_log import DeliveryLog
from hammerwork.core.publish.relay import Relay, Subscription
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Fixed

from .running import both_servers, running, until, worker_of

Answer = Callable[[DeliveryAttempt], DeliveryReport]

AT_ONCE = DeliveryPolicy(retry=Fixed(timedelta(0)), max_attempts=5)
TAKEN = DeliveryReport(outcome=Done(), status=204)


class Destination:
    """A sink that keeps what it is given and answers as it is told."""

    def __init__(self, name: str = "billing", answer: Answer = lambda attempt: TAKEN) -> None:
        self.name = name
        self.answer = answer
        self.taken: list[DeliveryAttempt] = []
        self.opened = asyncio.Event()
        self.opened.set()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def guarantee(self) -> Guarantee:
        return Guarantee("at-least-once", "it is a test")

    async def deliver(self, attempt: DeliveryAttempt) -> DeliveryReport:
        self.taken.append(attempt)
        await self.opened.wait()
        return self.answer(attempt)

    @property
    def ids(self) -> list[str]:
        return [attempt.event_id for attempt in self.taken]

    async def was_given(self, count: int) -> None:
        async def given() -> bool:
            return len(self.taken) >= count

        await until(given)


class Outlet:
    """A destination with its relay and its worker, on the events of new jobs."""

    def __init__(self, queue: Queue, sink: Destination, policy: DeliveryPolicy = AT_ONCE) -> None:
        self.subscription = Subscription(
            name=sink.name, types=frozenset({EventType.ENQUEUED}), max_attempts=policy.max_attempts
        )
        self.relay = Relay(queue.database, self.subscription, kind="test")
        self.log = DeliveryLog(queue.database, sink.name, disable_after=policy.disable_after)
        self.worker: Worker = worker_of(
            queue, delivery_handlers(self.log, sink, policy), concurrency=min(policy.concurrency, 4)
        )
        self._queue = queue

    async def run(self) -> None:
        """Deliver until `stop()`."""
        async with asyncio.TaskGroup() as tasks:
            log = tasks.create_task(self.log.run(), name="delivery log")
            await self.worker.run()
            log.cancel()

    def stop(self) -> None:
        self.worker.stop()

    async def register(self) -> None:
        types = sorted(self.subscription.types)
        await self._queue.database.fetch("register_sink", self.subscription.name, "test", types)

    async def relay_all(self) -> None:
        while await self.relay.relay_once():
            pass


async def outlet_with(
    queue: Queue, sink: Destination, events: int = 1, policy: DeliveryPolicy = AT_ONCE
) -> Outlet:
    """An outlet with so many events fanned out and nothing delivered yet."""
    outlet = Outlet(queue, sink, policy)
    await outlet.register()
    await queue.enqueue_many([Job("orders", n) for n in range(events)])
    await outlet.relay_all()
    return outlet


async def ended(queue: Queue, state: JobState, count: int = 1) -> bool:
    return len(await queue.jobs(queue="sink.billing", state=state)) == count


async def sink_state(queue: Queue) -> str:
    (info,) = [sink for sink in await operate.sinks(queue.database) if sink.name == "billing"]
    return info.state


async def is_disabled(queue: Queue) -> bool:
    return await sink_state(queue) == "disabled"


@both_servers
async def test_an_event_is_delivered_and_logged(queue: Queue) -> None:
    sink = Destination()
    outlet = await outlet_with(queue, sink)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.COMPLETED))
    (attempt,) = sink.taken
    assert (attempt.attempt, attempt.event_id) == (1, attempt.cloud_event["id"])
    assert attempt.cloud_event["type"] == "dev.hammerwork.job.enqueued"
    assert json.loads(attempt.text or "") == attempt.cloud_event
    (record,) = await operate.deliveries(queue.database, "billing")
    assert (record.event_id, record.attempt, record.status, record.outcome) == (
        attempt.event_id,
        1,
        204,
        "done",
    )
    assert record.ran >= timedelta(0)
    assert await operate.deliveries(queue.database, "billing", failed=True) == []


async def test_it_is_tried_again_under_the_same_id_until_it_is_taken(queue: Queue) -> None:
    def answer(attempt: DeliveryAttempt) -> DeliveryReport:
        if attempt.attempt < 4:
            return DeliveryReport(outcome=Retry("busy"), status=503, error="server_error", response="a\0b")
        return TAKEN

    sink = Destination(answer=answer)
    outlet = await outlet_with(queue, sink)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.COMPLETED))
    assert [attempt.attempt for attempt in sink.taken] == [1, 2, 3, 4]
    assert len(set(sink.ids)) == 1
    records = await operate.deliveries(queue.database, "billing")
    assert [(r.attempt, r.outcome) for r in records] == [
        (4, "done"),
        (3, "retry"),
        (2, "retry"),
        (1, "retry"),
    ]
    assert records[1].error == "server_error"
    assert len(await operate.deliveries(queue.database, "billing", failed=True)) == 3


async def test_the_standard_schedule_waits_longer_and_longer_and_then_gives_up(queue: Queue) -> None:
    policy = DeliveryPolicy()
    assert policy.max_attempts == len(STANDARD_SCHEDULE.delays) + 1
    refusing = Destination(answer=lambda attempt: DeliveryReport(outcome=Retry("busy")))
    outlet = await outlet_with(queue, refusing, policy=policy)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.SCHEDULED))
    (job,) = await queue.jobs(queue="sink.billing")
    assert timedelta(seconds=2) < job.run_at - datetime.now(UTC) <= timedelta(seconds=6)


async def test_a_destination_may_ask_for_more_time_but_not_for_less(queue: Queue) -> None:
    asked = {1: timedelta(hours=2), 2: timedelta(seconds=1)}
    sink = Destination(answer=lambda attempt: DeliveryReport(outcome=Retry("later", asked[attempt.attempt])))
    outlet = await outlet_with(queue, sink, policy=DeliveryPolicy(retry=Fixed(timedelta(hours=1), "none")))
    async with running(outlet):
        for number, least in ((1, timedelta(hours=2)), (2, timedelta(hours=1))):
            await sink.was_given(number)
            await until(lambda: ended(queue, JobState.SCHEDULED))
            (job,) = await queue.jobs(queue="sink.billing")
            assert least - timedelta(minutes=1) < job.run_at - datetime.now(UTC) <= least
            if number == 1:
                await queue.retry(job.id)


async def test_used_up_attempts_and_refusals_are_dead_letters_that_can_be_replayed(queue: Queue) -> None:
    sink = Destination(answer=lambda attempt: DeliveryReport(outcome=Dead("no such tenant"), status=404))
    outlet = await outlet_with(queue, sink)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.DEAD))
        (letter,) = await operate.dead_letters(queue.database, queue="sink.billing")
        assert letter.detail == "no such tenant"
        sink.answer = lambda attempt: TAKEN
        assert await operate.replay(queue.database, letter.id, {}) == letter.job_id
        await until(lambda: ended(queue, JobState.COMPLETED))
    assert len(set(sink.ids)) == 1


async def test_a_snooze_burns_no_attempt(queue: Queue) -> None:
    sink = Destination(answer=lambda attempt: DeliveryReport(outcome=Snooze(timedelta(hours=1))))
    outlet = await outlet_with(queue, sink)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.SCHEDULED))
    (job,) = await queue.jobs(queue="sink.billing")
    assert job.attempt == 0


async def test_a_sink_that_raises_is_logged_and_tried_again(queue: Queue) -> None:
    def answer(attempt: DeliveryAttempt) -> DeliveryReport:
        if attempt.attempt == 1:
            raise KeyError("a bug of the sink")
        return TAKEN

    outlet = await outlet_with(queue, Destination(answer=answer))
    async with running(outlet):
        await until(lambda: ended(queue, JobState.COMPLETED))
    records = await operate.deliveries(queue.database, "billing")
    assert [(record.outcome, record.error) for record in records] == [
        ("done", None),
        ("retry", "sink_failed"),
    ]


# --- a sink that is gone --------------------------------------------------------------------------


@both_servers
async def test_a_sink_that_says_that_it_is_gone_is_disabled_and_operators_learn_it(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    operators = Subscription(name="ops", types=frozenset({EventType.SINK_DISABLED}))
    await queue.database.fetch("register_sink", "ops", "test", sorted(operators.types))

    def answer(attempt: DeliveryAttempt) -> DeliveryReport:
        return DeliveryReport(outcome=Dead("gone"), status=410, disable="the destination answered 410 Gone")

    sink = Destination(answer=answer)
    policy = DeliveryPolicy(concurrency=1)
    outlet = await outlet_with(queue, sink, events=5, policy=policy)
    async with running(outlet):
        await until(lambda: is_disabled(queue))
        given = len(sink.taken)
    assert given <= 2
    (info,) = [sink for sink in await operate.sinks(queue.database) if sink.name == "billing"]
    assert info.reason == "the destination answered 410 Gone"
    assert await Relay(queue.database, operators, kind="test").relay_once() == 1
    (told,) = await queue.jobs(queue="sink.ops")
    assert told.payload["type"] == "dev.hammerwork.sink.disabled"
    assert told.payload["data"] == {
        "job_id": None, "queue": None, "sink": "billing", "reason": "the destination answered 410 Gone",
    }  # fmt: skip

    sink.answer = lambda attempt: TAKEN
    async with running(Outlet(queue, sink, policy)):
        await operate.resume_sink(queue.database, "billing")
        await until(lambda: ended(queue, JobState.COMPLETED, 5 - given))


async def test_a_sink_of_which_nothing_was_taken_for_too_long_is_disabled(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    sink = Destination(answer=lambda attempt: DeliveryReport(outcome=Retry("refused"), error="refused"))
    policy = DeliveryPolicy(retry=Fixed(timedelta(hours=1)), disable_after=timedelta(days=5))
    outlet = await outlet_with(queue, sink, events=2, policy=policy)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.SCHEDULED, 2))
        assert await sink_state(queue) == "active"
        await connection.execute("update hammerwork.sinks set failing_since = now() - interval '6 days'")
        for job in await queue.jobs(queue="sink.billing"):
            await queue.retry(job.id)
        await until(lambda: is_disabled(queue))
    (info,) = await operate.sinks(queue.database)
    assert info.reason is not None
    assert info.reason.startswith("nothing was taken for 6 days")


async def test_one_delivery_that_is_taken_ends_the_time_of_failing(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    sink = Destination(answer=lambda attempt: DeliveryReport(outcome=Retry("busy")))
    outlet = await outlet_with(queue, sink, policy=DeliveryPolicy(retry=Fixed(timedelta(hours=1))))
    async with running(outlet):
        await until(lambda: ended(queue, JobState.SCHEDULED))
        (info,) = await operate.sinks(queue.database)
        assert info.failing_since is not None
        sink.answer = lambda attempt: TAKEN
        (job,) = await queue.jobs(queue="sink.billing")
        await queue.retry(job.id)
        await until(lambda: ended(queue, JobState.COMPLETED))
    (info,) = await operate.sinks(queue.database)
    assert info.failing_since is None


# --- holding and replaying ------------------------------------------------------------------------


async def test_a_paused_sink_holds_its_deliveries(queue: Queue) -> None:
    sink = Destination()
    outlet = await outlet_with(queue, sink, events=3)
    await operate.pause_sink(queue.database, "billing", "maintenance")
    await queue.enqueue(Job("orders"))
    async with running(outlet):
        probe = Outlet(queue, Destination("other"))
        await probe.register()
        await queue.enqueue(Job("orders"))
        await probe.relay_all()
        async with running(probe):  # another sink's delivery goes through meanwhile

            async def delivered() -> bool:
                return bool(await operate.deliveries(queue.database, "other"))

            await until(delivered)
        await outlet.relay_all()
        assert sink.taken == []
        await operate.resume_sink(queue.database, "billing")
        await outlet.relay_all()
        await until(lambda: ended(queue, JobState.COMPLETED, 5))
    assert len(set(sink.ids)) == 5


@both_servers
async def test_a_replay_since_a_time_delivers_the_same_ids_again(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    sink = Destination()
    outlet = await outlet_with(queue, sink, events=4)
    since = await connection.fetchval("select clock_timestamp()")
    await queue.enqueue_many([Job("orders") for _ in range(3)])
    await outlet.relay_all()
    async with running(outlet):
        await sink.was_given(7)
        assert await operate.replay_sink_since(queue.database, outlet.subscription, since) == 3
        await sink.was_given(10)
    times: defaultdict[int, int] = defaultdict(int)
    for event_id in set(sink.ids):
        times[sink.ids.count(event_id)] += 1
    assert times == {1: 4, 2: 3}


async def test_one_delivery_is_replayed_under_its_id(queue: Queue) -> None:
    sink = Destination()
    outlet = await outlet_with(queue, sink)
    async with running(outlet):
        await until(lambda: ended(queue, JobState.COMPLETED))
        (record,) = await operate.deliveries(queue.database, "billing")
        await operate.replay_delivery(queue.database, record.job_id)
        await sink.was_given(2)
    assert len(set(sink.ids)) == 1


async def test_a_destination_that_hangs_delays_no_other(queue: Queue) -> None:
    slow, quick = Destination("slow"), Destination("quick")
    slow.opened.clear()
    outlets = [Outlet(queue, sink) for sink in (slow, quick)]
    for outlet in outlets:
        await outlet.register()
    await queue.enqueue_many([Job("orders", n) for n in range(30)])
    for outlet in outlets:
        await outlet.relay_all()
    async with running(outlets[0]), running(outlets[1]):
        await quick.was_given(30)
        assert len(slow.taken) <= 10
        slow.opened.set()
        await slow.was_given(30)


async def test_acts_on_a_sink_that_does_not_exist_are_refused(queue: Queue) -> None:
    for act in (operate.pause_sink, operate.resume_sink):
        with pytest.raises(NotFound):
            await act(queue.database, "nobody")
