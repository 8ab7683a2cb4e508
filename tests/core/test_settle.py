"""Settling: fenced by the claim token, written in batches, and no outcome spoils its neighbours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.execute.settle import Settler
from hammerwork.core.identity import new_id
from hammerwork.core.job import Job, JobState
from hammerwork.core.postgres import store
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.store import Completion, Finish, Requeue, Verdict
from hammerwork.core.queue import Queue

from ..claiming import claim
from .running import both_servers, running


async def claimed(database: Database, worker: UUID, count: int = 1) -> list[Any]:
    """Claim on behalf of a worker that is registered but does not run."""
    async with database.acquire() as connection:
        await connection.execute(
            "insert into hammerwork.workers (id, host, pid, queues, concurrency, lease, state)"
            " values ($1, 'test', 1, '{orders}', 1, '1 hour', 'running') on conflict do nothing",
            worker,
        )
    return await claim(database, "orders", worker, count)


def completed(row: Any, **changes: Any) -> Completion:
    return Completion(row["id"], row["lease"], 0.01, None)._replace(**changes)


def died(row: Any, **changes: Any) -> Finish:
    finish = Finish(id=row["id"], lease=row["lease"], state=JobState.DEAD, dead_letter_id=new_id())
    return replace(finish, **changes)


def released(row: Any, **changes: Any) -> Requeue:
    return replace(Requeue(id=row["id"], lease=row["lease"], kind="released"), **changes)


async def settle(database: Database, worker: UUID, verdict: Verdict) -> set[UUID]:
    """The ids that were settled."""
    async with database.acquire() as connection:
        match verdict:
            case Completion():
                return {verdict.id} - await store.complete(connection, worker, [verdict])
            case Finish():
                return {verdict.id} - await store.finish(connection, worker, [verdict])
            case Requeue():
                return {row["id"] for row in await store.requeue(connection, worker, [verdict])}


VERDICTS: dict[str, Callable[..., Verdict]] = {"complete": completed, "finish": died, "requeue": released}


# --- the fence ------------------------------------------------------------------------------------

STALE: dict[str, Callable[[Any, UUID], tuple[int, UUID]]] = {
    "another worker's": lambda row, worker: (row["lease"], uuid4()),
    "an earlier lease": lambda row, worker: (row["lease"] - 1, worker),
    "a later lease": lambda row, worker: (row["lease"] + 1, worker),
}


@both_servers
@pytest.mark.parametrize("how", VERDICTS)
@pytest.mark.parametrize("token", STALE)
async def test_a_settle_with_a_token_that_is_not_of_this_claim_changes_nothing(
    queue: Queue, token: str, how: str
) -> None:
    worker = uuid4()
    job = Job("orders")
    await queue.enqueue(job)
    (row,) = await claimed(queue.database, worker)
    lease, owner = STALE[token](row, worker)
    assert await settle(queue.database, owner, VERDICTS[how](row, lease=lease)) == set()
    stored = await queue.get(job.id)
    assert (stored.state, stored.lease, stored.claimed_by) == (JobState.RUNNING, row["lease"], worker)
    assert await settle(queue.database, worker, completed(row)) == {job.id}


@both_servers
async def test_after_a_rescue_the_first_worker_can_settle_nothing_and_the_second_everything(
    queue: Queue,
) -> None:
    first, second = uuid4(), uuid4()
    job = Job("orders")
    await queue.enqueue(job)
    (row,) = await claimed(queue.database, first)
    assert await settle(queue.database, first, released(row)) == {job.id}
    (again,) = await claimed(queue.database, second)
    assert again["lease"] == row["lease"] + 1
    for stale in (completed(row, result='"stale"'), died(row), released(row)):
        assert await settle(queue.database, first, stale) == set()
    assert await settle(queue.database, second, completed(again, result='"fresh"')) == {job.id}
    assert await queue.result(job.id) == "fresh"


async def test_a_retry_of_a_finished_job_does_not_let_its_old_claim_settle_it(queue: Queue) -> None:
    worker = uuid4()
    job = Job("orders")
    await queue.enqueue(job)
    (row,) = await claimed(queue.database, worker)
    assert await settle(queue.database, worker, died(row)) == {job.id}
    await queue.retry(job.id)
    await claimed(queue.database, worker)  # the very same worker takes it again
    assert await settle(queue.database, worker, completed(row)) == set()
    assert (await queue.get(job.id)).state is JobState.RUNNING


async def test_a_settle_that_is_sent_twice_counts_once(queue: Queue) -> None:
    worker = uuid4()
    job = Job("orders")
    await queue.enqueue(job)
    (row,) = await claimed(queue.database, worker)
    verdict = completed(row, result="1")
    assert await settle(queue.database, worker, verdict) == {job.id}
    assert await settle(queue.database, worker, verdict) == set()
    assert len(await queue.jobs()) == 1


async def test_two_workers_that_claim_at_once_get_different_jobs(queue: Queue) -> None:
    await queue.enqueue_many([Job("orders") for _ in range(100)])
    claims = await asyncio.gather(*(claimed(queue.database, uuid4(), 25) for _ in range(6)))
    ids = [row["id"] for rows in claims for row in rows]
    assert len(ids) == len(set(ids)) == 100


async def test_a_worker_that_is_not_registered_claims_nothing(queue: Queue) -> None:
    await queue.enqueue(Job("orders"))
    assert await claim(queue.database, "orders", uuid4()) == []


# --- the settler ----------------------------------------------------------------------------------


class Settling:
    """A settler that runs, a worker's id, and what it was told is stale."""

    def __init__(self, database: Database) -> None:
        self.worker = uuid4()
        self.stale: set[UUID] = set()
        self.settler = Settler(database, self.worker, on_stale=self.stale.update)

    async def settled(self, *verdicts: Verdict) -> None:
        for verdict in verdicts:
            self.settler.add(verdict)
        await asyncio.wait_for(self.settler.drain(), 10)


@pytest.fixture
async def settling(database: Database) -> AsyncIterator[Settling]:
    settling = Settling(database)
    async with running(settling.settler):
        yield settling


@both_servers
async def test_a_mixed_batch_is_settled_and_the_stale_are_told(queue: Queue, settling: Settling) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(6)])
    rows = await claimed(queue.database, settling.worker, 6)
    stale = completed(rows[5], lease=99)
    await settling.settled(
        completed(rows[0], result='{"a": 1}'),
        died(rows[1], cause="failed", error="no"),
        released(rows[2]),
        released(rows[3], kind="snoozed", delay=timedelta(hours=1)),
        released(rows[4], kind="retried", delay=timedelta(hours=1), cause="failed", error="no"),
        stale,
    )
    states = [(await queue.get(row["id"])).state for row in rows]
    assert states == ["completed", "dead", "available", "scheduled", "scheduled", "running"]
    attempts = [(await queue.get(row["id"])).attempt for row in rows]
    assert attempts == [1, 1, 0, 0, 1, 1]
    assert settling.stale == {rows[5]["id"]}
    assert (settling.settler.settled, settling.settler.stale) == (5, 1)


@pytest.mark.parametrize(
    ("ended", "poison"),
    [
        (completed, {"result": "not JSON"}),
        (completed, {"seconds": "soon"}),
        (died, {"error": "a\0b"}),
        (died, {"error": "\ud800"}),
        (died, {"error": 7}),
        (died, {"seconds": "soon"}),
        (died, {"state": "gone"}),
    ],
)
async def test_an_outcome_that_postgres_refuses_ends_as_a_dead_letter_and_spoils_no_other(
    queue: Queue, settling: Settling, ended: Callable[..., Completion | Finish], poison: dict[str, Any]
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(9)])
    rows = await claimed(queue.database, settling.worker, 9)
    good = {"state": JobState.CANCELLED} if ended is died else {}
    await settling.settled(*(ended(row, **(poison if n == 4 else good)) for n, row in enumerate(rows)))
    states = [(await queue.get(row["id"])).state for row in rows]
    usual = "cancelled" if ended is died else "completed"
    assert states == [usual] * 4 + ["dead"] + [usual] * 4
    (letter,) = await operate.dead_letters(queue.database)
    assert (letter.job_id, letter.reason) == (rows[4]["id"], "failed")
    assert "could not be stored" in letter.detail


@pytest.mark.parametrize(
    "poison", [{"delay": timedelta.max}, {"delay": 30}, {"error": "\0"}, {"cause": "bored"}]
)
async def test_a_job_that_cannot_be_given_back_is_dead_and_the_others_go_back(
    queue: Queue, settling: Settling, poison: dict[str, Any]
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(5)])
    rows = await claimed(queue.database, settling.worker, 5)
    changes = {"kind": "retried", "cause": "failed", "delay": timedelta(hours=1)}
    await settling.settled(
        *(released(row, **(changes | (poison if n == 2 else {}))) for n, row in enumerate(rows))
    )
    states = [(await queue.get(row["id"])).state for row in rows]
    assert states == ["scheduled", "scheduled", "dead", "scheduled", "scheduled"]


async def test_a_job_that_cannot_be_settled_at_all_does_not_stop_the_settler(own_queue: Queue) -> None:
    settling = Settling(own_queue.database)
    await own_queue.enqueue_many([Job("orders", n) for n in range(3)])
    rows = await claimed(own_queue.database, settling.worker, 3)
    async with own_queue.database.acquire() as connection:
        # An operator's own constraint, which even the dead letter meets.
        await connection.execute("alter table hammerwork.history add check (payload <> '1') not valid;")
    async with running(settling.settler):
        await settling.settled(*map(completed, rows))
    states = [(await own_queue.get(row["id"])).state for row in rows]
    assert states == ["completed", "running", "completed"]


async def test_what_is_asked_to_be_cancelled_is_not_given_back_but_cancelled(
    queue: Queue, settling: Settling
) -> None:
    job = Job("orders")
    await queue.enqueue(job)
    (row,) = await claimed(queue.database, settling.worker)
    assert await queue.cancel(job.id, "too late") is JobState.RUNNING
    await settling.settled(released(row, kind="retried", cause="failed", error="no"))
    stored = await queue.get(job.id)
    assert (stored.state, stored.error) == (JobState.CANCELLED, "too late")
    assert settling.stale == set()


async def test_while_postgres_refuses_its_backends_outcomes_wait_and_are_written_once(
    queue: Queue, settling: Settling, connection: asyncpg.Connection
) -> None:
    await queue.enqueue_many([Job("orders", n) for n in range(200)])
    rows = await claimed(queue.database, settling.worker, 200)
    for row in rows:
        settling.settler.add(completed(row, result="1"))
        if row["payload"] in ("50", "100", "150"):
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where application_name = 'hammerwork' and datname = current_database()"
            )
    await asyncio.wait_for(settling.settler.drain(), 20)
    assert (
        await connection.fetchval("select count(*) from hammerwork.history where state = 'completed'") == 200
    )
    assert await connection.fetchval("select count(*) from hammerwork.jobs") == 0
    assert settling.stale == set()
