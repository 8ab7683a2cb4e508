"""The delivery log: written in batches, before the settle, and the judge of when a sink is given up."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any, cast

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Unavailable
from hammerwork.core.event import DeliveryReport
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.identity import new_id
from hammerwork.core.job import Dead, Done, Job, JobState, Outcome, Retry
from hammerwork.core.publish.deliver import DeliveryPolicy, delivery_handlers
from hammerwork.core.publish.delivery_log import DeliveryLog
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Fixed

from .running import both_servers, running, until, worker_of
from .test_deliver import Destination

DONE, BUSY = DeliveryReport(outcome=Done(), status=204), DeliveryReport(outcome=Retry("busy"), status=503)
DAYS_5 = timedelta(days=5)


class Try:
    """What the log reads of a running job."""

    def __init__(self) -> None:
        self.id = new_id()
        self.attempt = 1


@pytest.fixture
async def log(queue: Queue) -> AsyncIterator[DeliveryLog]:
    """The log of the sink billing, running."""
    await queue.database.fetch("register_sink", "billing", "test", ["job.enqueued"])
    log = DeliveryLog(queue.database, "billing", disable_after=DAYS_5)
    async with running(log):
        yield log


async def write(log: DeliveryLog, *reports: DeliveryReport) -> list[Any]:
    """Write these as tries that ended together; what came of each."""
    tries = [log.write(cast("RunningJob", Try()), "event", report, 0.1) for report in reports]
    return await asyncio.gather(*tries, return_exceptions=True)


async def failing(connection: asyncpg.Connection) -> timedelta | None:
    value: timedelta | None = await connection.fetchval(
        "select clock_timestamp() - failing_since from hammerwork.sinks"
    )
    return value


@both_servers
async def test_tries_that_end_together_are_one_statement_in_their_order(
    log: DeliveryLog, queue: Queue, connection: asyncpg.Connection
) -> None:
    reports = [DeliveryReport(outcome=Done(), status=200 + n) for n in range(100)]
    assert await write(log, *reports) == [None] * 100
    records = await operate.deliveries(queue.database, "billing", limit=1000)
    assert [record.status for record in reversed(records)] == [200 + n for n in range(100)]
    assert records[0].ran == timedelta(seconds=0.1)
    assert await connection.fetchval("select count(distinct xmin::text) from hammerwork.deliveries") == 1


async def test_what_a_sink_of_somebody_elses_answers_spoils_no_row_beside_it(
    log: DeliveryLog, queue: Queue
) -> None:
    odd = DeliveryReport(outcome=Dead("a\0b\ud800"), status=10**12, error="a\0\ud800", response="\0\udfff")
    garbage = DeliveryReport(outcome=cast("Outcome", "no outcome at all"))
    first, second, third, last = await write(log, DONE, odd, garbage, DONE)
    assert (first, second, last) == (None, None, None)
    assert isinstance(third, AssertionError)
    records = await operate.deliveries(queue.database, "billing")
    assert [record.outcome for record in records] == ["done", "dead", "done"]
    assert records[1].status is None


@pytest.mark.parametrize(
    ("reports", "failing_for"),
    [
        ((DONE,), None),
        ((BUSY, DONE), None),
        ((DONE, BUSY), "now"),
        ((BUSY, DONE, BUSY), "now"),
        ((BUSY, BUSY), "before"),
    ],
)
async def test_one_that_is_taken_ends_the_time_of_failing_for_its_whole_batch(
    log: DeliveryLog, queue: Queue, connection: asyncpg.Connection, reports: Any, failing_for: str | None
) -> None:
    await connection.execute("update hammerwork.sinks set failing_since = now() - interval '4 days'")
    await write(log, *reports)
    since = await failing(connection)
    match failing_for:
        case None:
            assert since is None
        case "now":
            assert since is not None
            assert since < timedelta(minutes=1)
        case "before":
            assert since is not None
            assert since > timedelta(days=3)


@pytest.mark.parametrize(("reports", "state"), [((BUSY, BUSY), "disabled"), ((BUSY, DONE, BUSY), "active")])
async def test_a_sink_is_given_up_once_a_batch_and_only_if_nothing_of_it_was_taken(
    log: DeliveryLog, queue: Queue, connection: asyncpg.Connection, reports: Any, state: str
) -> None:
    await connection.execute("update hammerwork.sinks set failing_since = now() - interval '6 days'")
    await write(log, *reports)
    (info,) = await operate.sinks(queue.database)
    assert info.state == state


async def test_a_sink_that_was_removed_meanwhile_holds_up_nobody(log: DeliveryLog, queue: Queue) -> None:
    await operate.remove_sink(queue.database, "billing")
    gone = DeliveryReport(outcome=Dead("gone"), status=410, disable="gone")
    assert await write(log, gone, DONE) == [None, None]


async def test_a_log_that_is_cut_lets_its_tries_go(own_queue: Queue) -> None:
    log = DeliveryLog(own_queue.database, "billing", disable_after=DAYS_5)
    async with own_queue.database.acquire() as connection:
        await connection.execute("drop table hammerwork.deliveries")
    async with running(log):
        writing = asyncio.create_task(write(log, DONE, DONE))
        await asyncio.sleep(0.1)  # while the log tries in vain
    assert all(isinstance(error, Unavailable) for error in await writing)


# --- beside the worker ----------------------------------------------------------------------------

# Notes deliveries that are settled without a row, and gives the settle time to overtake the log.
WITNESS = """
create table public.unlogged (job_id uuid);
create function public.witness() returns trigger language plpgsql as $$
begin
    if new.queue like 'sink.%' and not exists (select from hammerwork.deliveries where job_id = new.id) then
        insert into public.unlogged values (new.id);
    end if;
    return new;
end $$;
create trigger witness before insert on hammerwork.history for each row execute function public.witness();
create function public.slow() returns trigger language plpgsql as $$
begin
    perform pg_sleep(0.03);
    return null;
end $$;
create trigger slow before insert on hammerwork.deliveries for each statement execute function public.slow();
"""


async def deliver_all(queue: Queue, sink: Destination, events: int) -> None:
    await queue.database.fetch("register_sink", sink.name, "test", ["job.enqueued"])
    jobs = [Job(f"sink.{sink.name}", {"id": f"event {n}", "type": "t"}) for n in range(events)]
    await queue.enqueue_many(jobs)
    policy = DeliveryPolicy(retry=Fixed(timedelta(0)))
    log = DeliveryLog(queue.database, sink.name, disable_after=DAYS_5)
    worker = worker_of(queue, delivery_handlers(log, sink, policy), concurrency=50)

    async def completed() -> bool:
        return len(await queue.jobs(queue="sink.billing", state=JobState.COMPLETED, limit=1000)) == events

    async with running(log), running(worker):
        await until(completed)


async def test_no_delivery_is_settled_before_its_row_is_there(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        await connection.execute(WITNESS)
        await deliver_all(own_queue, Destination(), 300)
        assert await connection.fetchval("select count(*) from public.unlogged") == 0
        assert await connection.fetchval("select count(distinct job_id) from hammerwork.deliveries") == 300


async def test_what_was_taken_is_not_sent_again_because_it_cannot_be_logged_yet(own_queue: Queue) -> None:
    async def mend() -> None:
        await sink.was_given(20)
        await asyncio.sleep(0.3)  # while the log tries in vain
        async with own_queue.database.acquire() as connection:
            await connection.execute("alter table hammerwork.hidden rename to deliveries")

    sink = Destination()
    async with own_queue.database.acquire() as connection:
        await connection.execute("alter table hammerwork.deliveries rename to hidden")
    mending = asyncio.create_task(mend())
    await deliver_all(own_queue, sink, 20)
    await mending
    assert len(sink.taken) == 20
    assert {attempt.attempt for attempt in sink.taken} == {1}
