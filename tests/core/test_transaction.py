"""Exactly once: a handler's own writes and its job's completion commit together, or neither does."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Misconfigured
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.job import Job, JobState
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Fixed

from .running import before, both_servers, ran, running, until, worker_of


@pytest.fixture
async def effects(connection: asyncpg.Connection) -> asyncpg.Connection:
    """A connection that sees a table `effects (note text)`."""
    await connection.execute("create table effects (note text)")
    return connection


@both_servers
async def test_a_transaction_commits_effects_and_completion_together(
    queue: Queue, effects: asyncpg.Connection
) -> None:
    async def handle(job: RunningJob) -> str:
        async with job.transaction() as connection:
            await connection.execute("insert into effects values ('inside')")
            assert await effects.fetchval("select count(*) from effects") == 0
            job.result = {"kept": True}
        assert (await queue.get(job.id)).state is JobState.COMPLETED
        return "does not count"

    job = Job("orders")
    stored = await ran(queue, job, handle)
    assert (stored.state, stored.attempt) == (JobState.COMPLETED, 1)
    assert await effects.fetchval("select array_agg(note) from effects") == ["inside"]
    assert await queue.result(job.id) == {"kept": True}


async def test_what_is_raised_in_a_transaction_undoes_it_and_is_raised_as_it_was(
    queue: Queue, effects: asyncpg.Connection
) -> None:
    errors: list[BaseException] = [
        ConnectionRefusedError("the payment service"),
        TimeoutError("the payment service"),
        ValueError("no such price"),
    ]
    seen: list[BaseException] = []

    async def handle(job: RunningJob) -> None:
        for error in errors:
            try:
                async with job.transaction() as connection:
                    await connection.execute("insert into effects values ('undone')")
                    raise error
            except Exception as caught:
                seen.append(caught)
        try:
            async with job.transaction() as connection:
                await connection.execute("insert into no_such_table values (1)")
        except asyncpg.UndefinedTableError:
            seen.append(ValueError("undefined"))
        raise RuntimeError("give up")

    stored = await ran(queue, Job("orders"), handle, retry=Fixed(timedelta(hours=1)))
    assert seen[:3] == errors
    assert len(seen) == 4
    assert (stored.state, stored.error) == (JobState.SCHEDULED, "RuntimeError: give up")
    assert await effects.fetchval("select count(*) from effects") == 0


async def test_after_its_transaction_a_handler_may_fail_and_the_job_stays_completed(
    queue: Queue, effects: asyncpg.Connection
) -> None:
    async def handle(job: RunningJob) -> None:
        async with job.transaction() as connection:
            await connection.execute("insert into effects values ('once')")
        with pytest.raises(Misconfigured, match="used already"):
            async with job.transaction():
                pass
        raise RuntimeError("too late")

    stored = await ran(queue, Job("orders"), handle)
    assert stored.state is JobState.COMPLETED
    assert await operate.attempts(queue.database, stored.id) == []
    assert await effects.fetchval("select count(*) from effects") == 1


@both_servers
async def test_a_transaction_of_a_worker_that_lost_its_lease_changes_nothing(
    queue: Queue, effects: asyncpg.Connection
) -> None:
    claimed, go_on = asyncio.Event(), asyncio.Event()

    async def handle(job: RunningJob) -> None:
        claimed.set()
        await go_on.wait()
        async with job.transaction() as connection:
            await connection.execute("insert into effects values ('of the past')")

    job = Job("orders")
    await queue.enqueue(job)
    worker = worker_of(queue, {"orders": handle}, lease=timedelta(seconds=60))
    async with running(worker):
        await before(claimed)
        # What another worker's claim after a rescue does.
        await effects.execute(
            "update hammerwork.jobs set lease = lease + 1, claimed_by = gen_random_uuid() where id = $1",
            job.id,
        )
        go_on.set()
        await until(lambda: counted(worker.counts.ended, ("orders", "lost")))
    stored = await queue.get(job.id)
    assert (stored.state, stored.lease) == (JobState.RUNNING, 2)
    assert await effects.fetchval("select count(*) from effects") == 0


async def counted(counts: Any, key: object) -> bool:
    return bool(counts[key])
