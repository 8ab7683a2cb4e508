"""What an application calls: enqueue, look, wait for results, and the acts of an operator."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import (
    Misconfigured,
    NotFound,
    ResultTimeout,
    StateConflict,
    Unavailable,
)
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.identity import new_id
from hammerwork.core.job import Dead, Done, Job, JobState, Priority
from hammerwork.core.postgres.store import COPY_FROM
from hammerwork.core.queue import Enqueued, Queue

from ..services import free_port
from .running import both_servers, end, running, until, until_final, worker_of

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def jobs_stored(queue: Queue) -> int:
    async with queue.database.acquire() as connection:
        return int(await connection.fetchval("select count(*) from hammerwork.jobs"))


# --- enqueue --------------------------------------------------------------------------------------


@both_servers
async def test_a_job_is_stored_as_it_was_given(queue: Queue) -> None:
    payload = {"text": "naïve ☃ 😀 \\u0000", "number": 1.5, "big": 2**70, "none": None, "deep": [[{"a": []}]]}
    run_at = datetime.now(UTC) + timedelta(hours=1)
    job = Job(
        "orders",
        payload,
        priority=Priority.HIGH,
        run_at=run_at,
        max_attempts=7,
        correlation_id="c-1",
        traceparent=TRACE,
        headers={"tenant": "acme"},
        origin={"bridge": "in", "message_id": "m-1"},
    )
    assert await queue.enqueue(job) == job.id
    stored = await queue.get(job.id)
    assert stored.payload == payload
    assert (stored.queue, stored.state, stored.priority) == ("orders", JobState.SCHEDULED, Priority.HIGH)
    assert (stored.run_at, stored.max_attempts, stored.attempt, stored.lease) == (run_at, 7, 0, 0)
    assert (stored.correlation_id, stored.traceparent) == ("c-1", TRACE)
    assert (stored.headers, stored.origin) == ({"tenant": "acme"}, {"bridge": "in", "message_id": "m-1"})


async def test_without_a_time_a_job_is_available_and_with_a_delay_it_is_scheduled(queue: Queue) -> None:
    now, later = Job("orders"), Job("orders", delay=timedelta(minutes=5))
    past = Job("orders", run_at=datetime.now(UTC) - timedelta(days=1))
    await queue.enqueue_many([now, later, past])
    assert (await queue.get(now.id)).state is JobState.AVAILABLE
    assert (await queue.get(past.id)).state is JobState.AVAILABLE
    stored = await queue.get(later.id)
    assert stored.state is JobState.SCHEDULED
    assert timedelta(minutes=4) < stored.run_at - datetime.now(UTC) < timedelta(minutes=6)


@both_servers
async def test_a_job_that_is_stored_already_is_left_as_it_is(queue: Queue) -> None:
    job = Job("orders", {"version": 1})
    await queue.enqueue(job)
    assert await queue.enqueue(Job("orders", {"version": 2}, id=job.id)) == job.id
    assert (await queue.get(job.id)).payload == {"version": 1}
    assert await jobs_stored(queue) == 1


@both_servers
async def test_many_answer_one_by_one_what_is_new(queue: Queue) -> None:
    old, new, other = Job("orders"), Job("orders"), Job("billing")
    await queue.enqueue(old)
    answers = await queue.enqueue_many([old, new, new, other])
    assert answers == [Enqueued.DUPLICATE, Enqueued.STORED, Enqueued.DUPLICATE, Enqueued.STORED]
    assert await jobs_stored(queue) == 3


async def test_a_duplicate_is_found_over_the_batches_of_one_call(queue: Queue) -> None:
    jobs = [Job("orders", n) for n in range(1_500)]
    answers = await queue.enqueue_many([*jobs, jobs[0], jobs[1_400]])
    assert answers == [Enqueued.STORED] * 1_500 + [Enqueued.DUPLICATE] * 2
    assert await jobs_stored(queue) == 1_500


async def test_nothing_is_no_fault(queue: Queue) -> None:
    assert await queue.enqueue_many([]) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"payload": {"a": float("nan")}}, "payload is not JSON"),
        ({"payload": float("inf")}, "payload is not JSON"),
        ({"payload": {"a": "b\0c"}}, "payload holds a NUL"),
        ({"payload": {"a\0": 1}}, "payload holds a NUL"),
        ({"payload": "\ud800"}, "payload is not JSON"),
        ({"payload": object()}, "payload is not JSON"),
        ({"payload": {(1, 2): 3}}, "payload is not JSON"),
        ({"payload": 10**5_000}, "payload is not JSON"),
        ({"headers": {"a": "\0"}}, "headers holds? a NUL"),
        ({"traceparent": "\0"}, "headers holds? a NUL"),
        ({"origin": {"a": b"bytes"}}, "origin is not JSON"),
        ({"priority": 9}, "priority"),
        ({"priority": -1}, "priority"),
        ({"correlation_id": "a\0b"}, "correlation_id"),
        ({"correlation_id": "\ud800"}, "correlation_id"),
    ],
)
async def test_what_postgres_would_refuse_is_refused_before_and_stores_nothing_of_the_batch(
    queue: Queue, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(Misconfigured, match=said):
        await queue.enqueue_many([Job("orders"), Job("orders", **options)])
    assert await jobs_stored(queue) == 0


async def test_a_payload_nested_without_end_is_refused(queue: Queue) -> None:
    payload: list[Any] = []
    payload.append(payload)
    with pytest.raises(Misconfigured, match="payload"):
        await queue.enqueue(Job("orders", payload))


@both_servers
async def test_jobs_are_taken_by_priority_and_then_in_the_order_of_their_batch(queue: Queue) -> None:
    jobs = [Job("orders", n, priority=Priority(n % 5)) for n in range(60)]
    await queue.enqueue_many(jobs[:40])
    await queue.enqueue_many(jobs[40:])
    taken: list[int] = []

    async def handle(job: RunningJob) -> None:
        taken.append(job.payload)

    async with running(worker_of(queue, {"orders": handle}, concurrency=1)):
        await until_all(taken, 60)
    assert taken == sorted(range(60), key=lambda n: (-(n % 5), n))


async def until_all(taken: list[Any], count: int) -> None:
    async def done() -> bool:
        return len(taken) == count

    await until(done)


async def test_while_postgres_is_away_enqueue_is_patient_and_then_says_so() -> None:
    async with asyncio.timeout(5):
        queue = Queue(
            f"postgresql://postgres@127.0.0.1:{free_port()}/none", patience=timedelta(milliseconds=100)
        )
        with pytest.raises(Unavailable, match="is away"):
            await queue.enqueue(Job("orders"))
        await queue.close()


async def test_a_url_that_is_no_database_is_refused() -> None:
    with pytest.raises(Misconfigured, match="postgresql://") as caught:
        Queue("mysql://localhost/db")
    assert "postgresql://user" in caught.value.hint


async def test_a_database_that_does_not_exist_is_refused(dsn: str) -> None:
    with pytest.raises(Misconfigured, match="nowhere"):
        await Queue(dsn.rpartition("/")[0] + "/nowhere").enqueue(Job("orders"))


# --- the caller's own pool ------------------------------------------------------------------------


async def test_the_callers_pool_may_have_codecs_of_its_own_and_is_not_closed(dsn: str) -> None:
    import json

    async def with_codecs(connection: asyncpg.Connection) -> None:
        for kind in ("json", "jsonb"):
            await connection.set_type_codec(
                kind, schema="pg_catalog", encoder=json.dumps, decoder=json.loads, format="text"
            )

    async with asyncpg.create_pool(dsn, min_size=1, max_size=3, init=with_codecs) as pool:
        async with Queue(pool=pool) as queue:
            await queue.migrate()
            job = Job("orders", {"a": [1]}, headers={"h": 1}, origin={"o": 1})
            await queue.enqueue(job)
            stored = await queue.get(job.id)
            assert (stored.payload, stored.headers, stored.origin) == ({"a": [1]}, {"h": 1}, {"o": 1})
            async with Queue(dsn) as other, running(worker_of(other, {"orders": lambda job: job.payload})):
                assert await queue.result(job.id, timeout=timedelta(seconds=5)) == {"a": [1]}
            many = [Job("orders", {"a": n}) for n in range(COPY_FROM)]
            await queue.enqueue_many(many)
            assert [(await queue.get(job.id)).payload for job in many] == [job.payload for job in many]
        assert await pool.fetchval("select 1") == 1


async def test_a_queue_takes_a_dsn_or_a_pool(dsn: str) -> None:
    with pytest.raises(Misconfigured, match="DSN or a pool"):
        Queue()
    async with asyncpg.create_pool(dsn, min_size=0, max_size=1) as pool:
        with pytest.raises(Misconfigured, match="DSN or a pool"):
            Queue(dsn, pool=pool)


async def test_a_worker_on_a_callers_pool_is_refused_at_once(dsn: str) -> None:
    async with asyncpg.create_pool(dsn, min_size=0, max_size=2) as pool:
        with pytest.raises(Misconfigured, match="DSN"):
            worker_of(Queue(pool=pool), {"orders": lambda job: None})


# --- look -----------------------------------------------------------------------------------------


async def test_a_job_that_does_not_exist_is_not_found(queue: Queue) -> None:
    with pytest.raises(NotFound):
        await queue.get(new_id())
    with pytest.raises(NotFound):
        await queue.result(new_id())
    with pytest.raises(NotFound):
        await queue.cancel(new_id())
    with pytest.raises(NotFound):
        await queue.retry(new_id())


@both_servers
async def test_jobs_are_listed_newest_first_page_by_page_live_and_finished(queue: Queue) -> None:
    ended = [Job("orders", n) for n in range(5)]
    await end(queue, *((job, Done()) for job in ended))
    live = [Job("orders", n, correlation_id="c-1") for n in range(5)]
    await queue.enqueue_many([*live, Job("billing")])
    newest_first = sorted((job.id for job in [*ended, *live]), reverse=True)

    seen: list[UUID] = []
    while page := await queue.jobs(queue="orders", before=seen[-1] if seen else None, limit=3):
        assert len(page) <= 3
        seen += [job.id for job in page]
    assert seen == newest_first
    assert {job.id for job in await queue.jobs(state=JobState.COMPLETED)} == {job.id for job in ended}
    assert {job.id for job in await queue.jobs(correlation_id="c-1")} == {job.id for job in live}
    assert await queue.jobs(queue="nobody") == []


async def test_stats_count_the_live_jobs_and_name_the_paused(queue: Queue) -> None:
    await queue.enqueue_many([Job("orders"), Job("orders"), Job("orders", delay=timedelta(hours=1))])
    await queue.pause("billing", "rates are wrong")
    billing, orders = await queue.stats()
    assert (orders.queue, orders.available, orders.scheduled, orders.running) == ("orders", 2, 1, 0)
    assert orders.oldest is not None
    assert timedelta(0) <= orders.oldest < timedelta(minutes=1)
    assert (billing.queue, billing.available, billing.pause_reason) == ("billing", 0, "rates are wrong")
    assert billing.paused_at is not None


# --- acts -----------------------------------------------------------------------------------------


@both_servers
async def test_a_waiting_job_is_cancelled_at_once(queue: Queue) -> None:
    job, later = Job("orders"), Job("orders", delay=timedelta(hours=1))
    await queue.enqueue_many([job, later])
    assert await queue.cancel(job.id, "changed my mind") is JobState.AVAILABLE
    assert await queue.cancel(later.id) is JobState.SCHEDULED
    stored = await queue.get(job.id)
    assert (stored.state, stored.error) == (JobState.CANCELLED, "changed my mind")
    assert await jobs_stored(queue) == 0
    with pytest.raises(StateConflict, match="cancelled"):
        await queue.cancel(job.id)


@both_servers
async def test_a_dead_job_gets_all_its_attempts_again_and_its_lease_goes_on(queue: Queue) -> None:
    job = Job("orders", {"n": 1}, max_attempts=1)
    await end(queue, (job, Dead("broken")))
    (letter,) = await operate.dead_letters(queue.database)
    lease = (await queue.get(job.id)).lease
    assert lease == 1

    await queue.retry(job.id)
    stored = await queue.get(job.id)
    assert (stored.state, stored.attempt, stored.lease) == (JobState.AVAILABLE, 0, lease)
    assert await operate.dead_letters(queue.database) == []
    (closed,) = await operate.dead_letters(queue.database, closed=True)
    assert (closed.id, closed.replayed_as) == (letter.id, job.id)
    async with running(worker_of(queue, {"orders": lambda job: "mended"})):
        assert await queue.result(job.id, timeout=timedelta(seconds=5)) == "mended"
    assert (await queue.get(job.id)).lease == lease + 1


async def test_a_retried_job_has_no_old_result(queue: Queue) -> None:
    job = Job("orders")
    await end(queue, (job, "first"))
    await queue.retry(job.id)
    with pytest.raises(ResultTimeout):
        await queue.result(job.id, timeout=timedelta(milliseconds=50))
    async with running(worker_of(queue, {"orders": lambda job: None})):
        await until_final(queue, job.id)
    assert await queue.result(job.id) is None


async def test_a_scheduled_job_is_retried_now_and_a_waiting_one_not(queue: Queue) -> None:
    later = Job("orders", delay=timedelta(hours=1))
    await queue.enqueue(later)
    await queue.retry(later.id)
    assert (await queue.get(later.id)).state is JobState.AVAILABLE
    with pytest.raises(StateConflict, match="available"):
        await queue.retry(later.id)


@both_servers
async def test_a_paused_queue_is_left_alone_until_it_is_resumed(queue: Queue) -> None:
    ran: list[str] = []

    async def handle(job: RunningJob) -> None:
        ran.append(job.queue)

    await queue.pause("orders", "stock is counted")
    orders, billing = Job("orders"), Job("billing")
    await queue.enqueue_many([orders, billing])
    async with running(worker_of(queue, {"orders": handle, "billing": handle})):
        await until_final(queue, billing.id)
        assert (await queue.get(orders.id)).state is JobState.AVAILABLE
        assert await queue.resume("orders") is True
        await until_final(queue, orders.id)
    assert await queue.resume("orders") is False
    assert ran == ["billing", "orders"]


async def test_a_dead_letter_is_discarded_once(queue: Queue) -> None:
    job = Job("orders", {"n": 1})
    await end(queue, (job, Dead("broken")))
    (letter,) = await operate.dead_letters(queue.database, queue="orders", reason="gave_up")
    body = await operate.dead_letter(queue.database, letter.id)
    assert (body.body, body.whole, letter.detail) == (b'{"n": 1}', True, "broken")
    await operate.discard(queue.database, letter.id)
    assert await operate.dead_letters(queue.database) == []
    with pytest.raises(StateConflict):
        await operate.discard(queue.database, letter.id)
    with pytest.raises(StateConflict):
        await operate.replay(queue.database, letter.id, {})
    with pytest.raises(NotFound):
        await operate.discard(queue.database, new_id())


async def test_the_dead_letter_of_a_job_is_replayed_as_its_retry(queue: Queue) -> None:
    job = Job("orders", {"n": 1})
    await end(queue, (job, Dead("broken")))
    (letter,) = await operate.dead_letters(queue.database)
    assert await operate.replay(queue.database, letter.id, {}) == job.id
    assert (await queue.get(job.id)).state is JobState.AVAILABLE
