"""Postgres crashes, throws everybody out, answers too late or not at all: nothing is lost or done twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from functools import partial
from itertools import count
from uuid import uuid4

import pytest

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core.errors import Unavailable
from hammerwork.core.execute.worker import Worker
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.store import COPY_FROM
from hammerwork.core.queue import Queue
from hammerwork.core.upkeep import Upkeep

from ..claiming import claim
from ..services.postgres import PostgresService
from ..services.proxy import FaultProxy
from .ledger import Ledger, until
from .publisher import Publisher, parcels, with_repeats
from .running import running
from .work import work, work_handlers

pytestmark = pytest.mark.chaos

LEASE = timedelta(seconds=2)
AT_ONCE = 10
"""Jobs a call of enqueue_many under load."""


class Load:
    """Enqueues without a pause from several tasks, and notes in the ledger what it was told."""

    def __init__(self, queue: Queue, ledger: Ledger, *, every: float = 0.01) -> None:
        self._queue = queue
        self._ledger = ledger
        self._every = every
        self._numbers = count()
        self._stopping = asyncio.Event()

    @property
    def answered(self) -> int:
        """How many jobs it was told are stored."""
        return sum(key.startswith("j") for key in self._ledger.acknowledged)

    async def run(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            for number in range(3):
                tasks.create_task(self._enqueue(), name=f"load {number}")

    def stop(self) -> None:
        self._stopping.set()

    async def _enqueue(self) -> None:
        while not self._stopping.is_set():
            ids = [f"j{next(self._numbers)}" for _ in range(AT_ONCE)]
            how = "return" if len(self._ledger.acknowledged) % (2 * AT_ONCE) else "await"
            try:
                await self._queue.enqueue_many(work(ids, how=how, seconds=0.005))
                self._ledger.acknowledged |= set(ids)
            except Unavailable:
                self._ledger.unsure |= set(ids)
            await asyncio.sleep(self._every)


def _worker(queue: Queue, *, upkeep: bool = True, starts: bool = False) -> Worker:
    return Worker(
        queue,
        work_handlers(queue.database, starts=starts),
        concurrency=8,
        lease=LEASE,
        drain=timedelta(seconds=5),
        upkeep=upkeep,
    )


async def _rested(ledger: Ledger) -> bool:
    return await ledger.unfinished() == 0


@pytest.fixture
async def fragile(fragile_postgres: PostgresService) -> AsyncIterator[Queue]:
    """A Queue with the schema on the Postgres that may be restarted."""
    url = await fragile_postgres.create_database()
    async with Queue(url, patience=timedelta(seconds=5)) as queue:
        await queue.migrate()
        yield queue
    await fragile_postgres.drop_database(url)


async def test_postgres_crashing_under_load_loses_and_repeats_nothing(
    fragile_postgres: PostgresService, fragile: Queue
) -> None:
    ledger = Ledger(fragile.database.where)
    await ledger.open()
    load = Load(fragile, ledger)
    recoveries = []
    async with running(_worker(fragile)), running(_worker(fragile)):
        async with running(load):
            for _ in range(3):
                before = await ledger.completed()
                await until(partial(_more, ledger, before + 50), 10, "jobs are being done")
                await asyncio.to_thread(fragile_postgres.restart, immediate=True)
                before = await ledger.completed()
                recoveries.append(await until(partial(_more, ledger, before), 10, "workers go on"))
        await until(lambda: _rested(ledger), 20, "every job is done")
    account = await ledger.assert_clean(effects=True)
    assert account.ok > 150
    assert max(recoveries) <= 5, recoveries


async def test_all_backends_being_terminated_again_and_again_loses_and_repeats_nothing(
    postgres_service: PostgresService, queue: Queue, ledger: Ledger
) -> None:
    name = queue.database.where.rpartition("/")[2]
    load, landed = Load(queue, ledger), 0
    async with running(_worker(queue)), running(_worker(queue)):
        async with running(load):
            await until(lambda: _more(ledger, 50), 10, "jobs are being done")
            for _ in range(10):
                landed += await _terminate_all(postgres_service, name)
                await asyncio.sleep(0.5)
        assert landed >= 40
        await until(lambda: _rested(ledger), 25, "every job is done")
    account = await ledger.assert_clean(effects=True)
    assert account.ok > 150


async def _terminate_all(service: PostgresService, database: str) -> int:
    tag = await service.execute(
        f"select pg_terminate_backend(pid) from pg_stat_activity where datname = '{database}'"  # noqa: S608
    )
    return int(tag.split()[-1])


class Cut:
    """A database behind a proxy, and the same database without one."""

    def __init__(self, proxy: FaultProxy, queue: Queue, ledger: Ledger) -> None:
        self.proxy = proxy
        self.queue = queue
        self.ledger = ledger

    def cut_next_commit(self) -> asyncio.Event:
        """On connections that are new: the proxy also sees what passed shortly before it was told, and
        would take the COMMIT of the transaction before for this one."""
        self.proxy.cut()
        return self.proxy.cut_after(b"COMMIT")


@pytest.fixture
async def cut(postgres_service: PostgresService, ledger: Ledger) -> AsyncIterator[Cut]:
    async with AsyncExitStack() as stack:
        proxy = await stack.enter_async_context(FaultProxy(*postgres_service.address))
        url = postgres_service.dsn(ledger.dsn.rpartition("/")[2], port=proxy.port)
        queue = await stack.enter_async_context(Queue(url))
        yield Cut(proxy, queue, ledger)


async def test_an_enqueue_whose_answer_is_cut_stores_its_jobs_once(cut: Cut) -> None:
    tripped = cut.proxy.cut_after(b"cut here")
    await cut.queue.enqueue_many(work(["j0", "cut here", "j2"]))
    assert tripped.is_set()
    cut.ledger.acknowledged = {"j0", "cut here", "j2"}
    await cut.ledger.assert_clean()


async def test_an_enqueue_by_copy_whose_commit_is_cut_stores_its_jobs_once(cut: Cut) -> None:
    keys = [f"j{n}" for n in range(COPY_FROM)]
    await cut.queue.enqueue_many(work(["warm"]))
    tripped = cut.cut_next_commit()
    await cut.queue.enqueue_many(work(keys))
    assert tripped.is_set()
    cut.ledger.acknowledged = {"warm", *keys}
    await cut.ledger.assert_clean()


async def test_single_enqueues_that_share_a_statement_whose_answer_is_cut_are_each_stored_once(
    cut: Cut,
) -> None:
    tripped = cut.proxy.cut_after(b"cut here")
    keys = [*(f"j{n}" for n in range(20)), "cut here"]
    await asyncio.gather(*(cut.queue.enqueue(job) for job in work(keys)))
    assert tripped.is_set()
    cut.ledger.acknowledged = set(keys)
    await cut.ledger.assert_clean()


async def test_jobs_that_ran_before_their_enqueue_is_sent_again_are_not_stored_again(
    cut: Cut, queue: Queue
) -> None:
    """The worker is quicker than the producer that has to reconnect first."""
    async with running(_worker(queue)):
        tripped = cut.proxy.cut_after(b"cut here")
        sending = asyncio.create_task(cut.queue.enqueue_many(work(["j0", "cut here"])), name="enqueue")
        await tripped.wait()
        cut.proxy.refuse()
        await until(lambda: _more(cut.ledger, 1), 10, "both jobs are done")
        cut.proxy.heal()
        await sending
        cut.ledger.acknowledged = {"j0", "cut here"}
        await until(lambda: _rested(cut.ledger), 10, "every job is done")
    await cut.ledger.assert_clean(effects=True)


async def test_a_settle_whose_answer_is_cut_is_settled_once(cut: Cut, queue: Queue) -> None:
    worker = _worker(cut.queue, upkeep=False)
    async with running(Upkeep(queue.database)), running(worker):
        tripped = cut.proxy.cut_after(b"result of j3")
        await queue.enqueue_many(work([f"j{n}" for n in range(6)], how="return"))
        cut.ledger.acknowledged = {f"j{n}" for n in range(6)}
        await asyncio.wait_for(tripped.wait(), 10)
        await until(lambda: _rested(cut.ledger), 10, "every job is done")
    account = await cut.ledger.assert_clean()
    assert account.ok == 6
    assert worker.counts.ended["work", "completed"] == 6
    assert await cut.ledger.fetch("select from hammerwork.attempts") == []


async def test_a_claim_whose_answer_is_cut_burns_no_attempt_and_stops_no_handler(
    cut: Cut, queue: Queue
) -> None:
    """Its jobs are this worker's without its knowing; they go back, and what runs goes on."""
    async with running(Upkeep(queue.database)), running(_worker(cut.queue, upkeep=False)):
        await queue.enqueue_many(work(["j0"], how="return", seconds=2.0))
        await until(lambda: _held(cut.ledger, 1), 10, "the first handler runs")
        tripped = cut.proxy.cut_after(b"j1", "to_client")
        await queue.enqueue_many(work(["j1", "j2"], how="return"))
        cut.ledger.acknowledged = {"j0", "j1", "j2"}
        await asyncio.wait_for(tripped.wait(), 10)
        await until(lambda: _rested(cut.ledger), 15, "every job is done")
    await cut.ledger.assert_clean()
    assert await cut.ledger.fetch("select from hammerwork.attempts") == []
    assert {row["attempt"] for row in await cut.ledger.fetch("select attempt from hammerwork.history")} == {1}


async def test_a_settle_that_cannot_be_sent_is_sent_when_postgres_is_back(cut: Cut, queue: Queue) -> None:
    handlers = work_handlers(queue.database)
    worker = Worker(cut.queue, handlers, concurrency=1, lease=timedelta(seconds=30), upkeep=False)
    async with running(worker):
        await queue.enqueue_many(work(["j0"], how="return", seconds=0.5))
        cut.ledger.acknowledged = {"j0"}
        await until(lambda: _held(cut.ledger, 1), 10, "the handler runs")
        cut.proxy.refuse()
        await until(partial(_answered, worker), 10, "the handler has answered")
        assert await cut.ledger.completed() == 0
        cut.proxy.heal()
        await until(lambda: _rested(cut.ledger), 10, "its outcome is written")
    await cut.ledger.assert_clean()
    assert await cut.ledger.fetch("select from hammerwork.attempts") == []


async def test_a_retry_whose_answer_is_cut_does_not_take_the_next_attempt_back(
    cut: Cut, queue: Queue
) -> None:
    """The same worker runs the second attempt by the time it asks again about the first."""
    async with running(Upkeep(queue.database)), running(_worker(cut.queue, upkeep=False)):
        for number in range(5):
            tripped = cut.proxy.cut_after(f"first attempt of j{number} fails".encode())
            await queue.enqueue_many(work([f"j{number}"], how="fail_first", seconds=0.5))
            cut.ledger.acknowledged.add(f"j{number}")
            await asyncio.wait_for(tripped.wait(), 10)
        await until(lambda: _rested(cut.ledger), 15, "every job is done")
    await cut.ledger.assert_clean(effects=True)
    assert {row["attempt"] for row in await cut.ledger.fetch("select attempt from hammerwork.history")} == {2}
    assert len(await cut.ledger.fetch("select from hammerwork.attempts")) == 5


async def test_a_jobs_own_transaction_whose_commit_is_cut_has_its_effect_once(cut: Cut, queue: Queue) -> None:
    async with running(Upkeep(queue.database)), running(_worker(cut.queue, upkeep=False)):
        ids = [f"j{n}" for n in range(20)]
        trips = []
        for key in ids:
            trips.append(cut.cut_next_commit())
            await queue.enqueue_many(work([key]))
            cut.ledger.acknowledged.add(key)
            await asyncio.wait_for(trips[-1].wait(), 15)
        await until(lambda: _rested(cut.ledger), 15, "every job is done")
    assert all(trip.is_set() for trip in trips)
    await cut.ledger.assert_clean(effects=True)


async def test_an_intake_whose_commit_is_cut_stores_each_message_once(
    cut: Cut, publisher: Publisher, rabbitmq_url: str
) -> None:
    stream = with_repeats(parcels([f"m{n}" for n in range(400)], poison_every=10), 0.2, seed=3)
    cut.ledger.acknowledged = {parcel.id for parcel in stream}
    cut.ledger.poison = {parcel.id for parcel in stream if parcel.poison}
    intake = _intake(cut.queue.database, publisher, rabbitmq_url)
    trips = []
    async with running(intake):
        for start in range(0, len(stream), 60):
            trips.append(cut.cut_next_commit())
            await publisher.publish_all(stream[start : start + 60])
            await asyncio.wait_for(trips[-1].wait(), 10)
        await until(lambda: _settled(intake, len(stream)), 15, "every delivery is settled")
        assert intake.status.state == "running"
    assert await publisher.waiting() == 0
    await cut.ledger.assert_clean()


async def test_messages_without_an_identity_are_stored_once_though_their_commit_is_cut(
    cut: Cut, queue: Queue, publisher: Publisher, rabbitmq_url: str
) -> None:
    """No inbox row says so, but the ids of the jobs and of the dead letters; and the jobs are done before
    the intake can ask again."""
    intake = _intake(cut.queue.database, publisher, rabbitmq_url)
    stream = parcels(["job", "poison", "another job"], poison_every=2)
    cut.ledger.acknowledged = {parcel.id for parcel in stream}
    cut.ledger.poison = {"poison"}
    async with running(_worker(queue)), running(intake):
        for number, parcel in enumerate(stream, 1):
            tripped = cut.cut_next_commit()
            await publisher.send(parcel.body, headers={"id": parcel.id})
            await asyncio.wait_for(tripped.wait(), 10)
            cut.proxy.refuse()
            await until(lambda: _rested(cut.ledger), 10, "what was stored is done")
            cut.proxy.heal()
            await until(partial(_settled, intake, number), 15, "it is settled")
        await until(lambda: _rested(cut.ledger), 10, "every job is done")
    assert await publisher.waiting() == 0
    await cut.ledger.assert_clean(effects=True)


async def test_everything_goes_on_by_itself_after_a_black_hole(
    cut: Cut, queue: Queue, publisher: Publisher, rabbitmq_url: str
) -> None:
    """One worker sits behind the hole with jobs in its hands; another takes them over meanwhile."""
    behind, beside = _worker(cut.queue, upkeep=False), _worker(queue)
    load, intake = Load(cut.queue, cut.ledger), _intake(cut.queue.database, publisher, rabbitmq_url)
    stream = parcels([f"m{n}" for n in range(200)])
    async with running(behind), running(beside), running(intake):
        await queue.enqueue_many(work([f"long{n}" for n in range(16)], seconds=1.0))
        cut.ledger.acknowledged = {f"long{n}" for n in range(16)}
        await until(lambda: _held(cut.ledger, 16), 10, "both workers have their hands full")
        async with running(load):
            cut.proxy.blackhole()
            await publisher.publish_all(stream)
            await until(lambda: _more(cut.ledger, 15), 15, "the other worker has taken over")
            assert not load.answered
            cut.proxy.heal()
            await until(lambda: _more(cut.ledger, 300), 15, "work goes on")
        cut.ledger.acknowledged |= {parcel.id for parcel in stream}
        await until(lambda: _nothing_missing(cut.ledger), 20, "every message is stored")
        await until(lambda: _rested(cut.ledger), 25, "every job is done")
    lost = await cut.ledger.fetch("select from hammerwork.attempts where cause = 'lost'")
    assert len(lost) >= 8
    assert await publisher.waiting() == 0
    await cut.ledger.assert_clean(effects=True)


async def test_a_claim_that_arrives_after_its_worker_was_given_up_holds_no_job(
    cut: Cut, queue: Queue
) -> None:
    """The network keeps the words of an idle worker until its life is over for everybody else."""
    async with running(Upkeep(queue.database)), running(_worker(cut.queue, upkeep=False)):
        await until(lambda: _registered(cut.ledger, 1), 10, "the worker is there")
        cut.proxy.blackhole()
        await until(lambda: _registered(cut.ledger, 0), 10, "it is given up")
        await queue.enqueue_many(work(["j0"]))
        cut.ledger.acknowledged = {"j0"}
        cut.proxy.heal()
        await until(lambda: _rested(cut.ledger), 10, "its next life does the job")
    await cut.ledger.assert_clean(effects=True)


async def test_a_job_whose_worker_was_given_up_during_its_claim_is_found(
    queue: Queue, ledger: Ledger
) -> None:
    ghost = uuid4()
    await queue.database.fetch("register_worker", ghost, "nowhere", 0, ["work"], 1, LEASE)
    await queue.enqueue_many(work(["j0"]))
    ledger.acknowledged = {"j0"}
    await claim(queue.database, "work", ghost)
    await ledger.fetch("delete from hammerwork.workers")

    await Upkeep(queue.database).tidy()

    async with running(_worker(queue)):
        await until(lambda: _rested(ledger), 10, "somebody else does the job")
    await ledger.assert_clean(effects=True)


def _intake(database: Database, publisher: Publisher, url: str) -> Intake:
    options = RabbitmqOptions.model_validate({"url": url, "queue": publisher.queue})
    return Intake(
        database,
        RabbitmqBridge("orders", options),
        Decoder(),
        FieldMapping(queue="work"),
        kind="rabbitmq",
    )


async def _held(ledger: Ledger, wanted: int) -> bool:
    (row,) = await ledger.fetch("select count(*) from hammerwork.jobs where state = 'running'")
    return int(row[0]) >= wanted


async def _registered(ledger: Ledger, wanted: int) -> bool:
    return len(await ledger.fetch("select from hammerwork.workers")) == wanted


async def _more(ledger: Ledger, than: int) -> bool:
    return await ledger.completed() > than


async def _answered(worker: Worker) -> bool:
    return worker.counts.ended["work", "completed"] == 1


async def _settled(intake: Intake, wanted: int) -> bool:
    return intake.counts.received >= wanted


async def _nothing_missing(ledger: Ledger) -> bool:
    return not await ledger.missing()
