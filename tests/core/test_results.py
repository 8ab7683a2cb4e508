"""Waiting for results: values, failures, time-outs and results that are gone."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest

from hammerwork.core.errors import (
    JobCancelled,
    JobDead,
    Misconfigured,
    ResultExpired,
    ResultTimeout,
)
from hammerwork.core.job import Cancel, Dead, Done, Job, JobState
from hammerwork.core.queue import Queue

from .running import both_servers, end, running, until, worker_of


@both_servers
async def test_a_result_is_waited_for(queue: Queue) -> None:
    jobs = [Job("orders", n) for n in range(20)]
    await queue.enqueue_many(jobs)
    waiting = asyncio.gather(*(queue.result(job.id, timeout=timedelta(seconds=10)) for job in jobs))
    async with running(worker_of(queue, {"orders": lambda job: {"square": job.payload**2}})):
        assert await waiting == [{"square": n**2} for n in range(20)]
    assert await queue.result(jobs[3].id) == {"square": 9}


async def test_a_job_without_a_result_answers_none_and_so_does_json_null(queue: Queue) -> None:
    silent, null = Job("orders"), Job("orders")
    await end(queue, (silent, None), (null, Done(None)))
    assert await queue.result(silent.id) is None
    assert await queue.result(null.id) is None


@pytest.mark.parametrize("value", [0, False, "", [], {}, 1.5, "☃", [None]])
async def test_any_json_value_is_a_result(queue: Queue, value: Any) -> None:
    job = Job("orders")
    await end(queue, (job, value))
    assert await queue.result(job.id) == value


async def test_a_job_that_ended_badly_raises_what_happened(queue: Queue) -> None:
    dead, cancelled = Job("orders"), Job("orders")
    await end(queue, (dead, Dead("no such customer")), (cancelled, Cancel("not wanted")))
    with pytest.raises(JobDead, match="no such customer") as caught:
        await queue.result(dead.id)
    assert (caught.value.job_id, caught.value.state) == (dead.id, "dead")
    with pytest.raises(JobCancelled, match="not wanted"):
        await queue.result(cancelled.id)


@pytest.mark.parametrize("timeout", [timedelta(0), timedelta(milliseconds=50)])
async def test_waiting_has_an_end_and_the_job_goes_on(queue: Queue, timeout: timedelta) -> None:
    job = Job("orders")
    await queue.enqueue(job)
    async with asyncio.timeout(5):
        with pytest.raises(ResultTimeout) as caught:
            await queue.result(job.id, timeout=timeout)
    assert isinstance(caught.value, TimeoutError)
    assert (await queue.get(job.id)).state is JobState.AVAILABLE


async def test_a_result_past_its_time_is_told_from_none(queue: Queue) -> None:
    job = Job("orders", result_ttl=timedelta(0))
    await end(queue, (job, {"kept": "briefly"}))
    await queue.database.fetch("prune_results", 100)
    with pytest.raises(ResultExpired):
        await queue.result(job.id)


async def test_who_waits_learns_that_waiting_cannot_succeed(own_queue: Queue) -> None:
    job = Job("orders")
    await own_queue.enqueue(job)
    waiting = asyncio.create_task(own_queue.result(job.id))
    async with own_queue.database.acquire() as connection:
        await connection.execute("drop table hammerwork.results")
    async with asyncio.timeout(5):
        with pytest.raises(Misconfigured):
            await waiting


async def test_closing_ends_the_wait(dsn: str) -> None:
    queue = Queue(dsn)
    job = Job("orders")
    await queue.enqueue(job)
    waiting = asyncio.create_task(queue.result(job.id))
    await until_waited(queue, job.id)
    await queue.close()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await queue.close()


async def until_waited(queue: Queue, job_id: UUID) -> None:
    async def waited() -> bool:
        return job_id in queue._results._awaited

    await until(waited)
