"""Several worker processes under one supervisor: real ones, killed, stopped and orphaned."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from uuid import UUID

import pytest

from hammerwork.core import operate
from hammerwork.core.job import Job, JobState
from hammerwork.core.queue import Queue
from hammerwork.gateway.lifeline import VARIABLE

from .command import WITHIN, Hammerwork, assert_one_clear_line, ended, stopped

LEASE = timedelta(seconds=2)

SHOP = f"""
import asyncio, os, time
from datetime import timedelta
from hammerwork import Handlers, Queue, Worker
from hammerwork.gateway import lifeline

lifeline.HURRIED_WITHIN = timedelta(milliseconds=300)
handlers = Handlers()

@handlers.queue("orders")
async def take(job):
    await asyncio.sleep(job.payload)
    return {{"pid": os.getpid(), "line": os.environ.get({VARIABLE!r})}}

@handlers.queue("blocking")
async def block(job):
    time.sleep(job.payload)

worker = Worker(Queue(os.environ["HAMMERWORK_DATABASE_URL"]), handlers, concurrency=2)
"""


@pytest.fixture
def shop(hammerwork: Hammerwork) -> Hammerwork:
    """With an application in its folder."""
    (hammerwork.folder / "shop.py").write_text(SHOP)
    return hammerwork


async def started(
    shop: Hammerwork, *options: object, app: str = "shop:handlers", own_group: bool = False
) -> asyncio.subprocess.Process:
    return await shop.started("worker", "run", app, *options, own_group=own_group)


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(WITHIN):
        while not await condition():  # noqa: ASYNC110 - other processes make it true
            await asyncio.sleep(0.02)


async def pids(queue: Queue) -> set[int]:
    """The processes whose workers are registered and alive."""
    return {worker.pid for worker in await operate.workers(queue.database) if not worker.lost}


async def working(queue: Queue, processes: int, *, without: int = 0) -> set[int]:
    """Wait until so many processes work, this one not among them; their pids."""

    async def enough() -> bool:
        now = await pids(queue)
        return len(now) == processes and without not in now

    await until(enough)
    return await pids(queue)


async def all_done(queue: Queue, jobs: list[Job]) -> set[int]:
    """Wait for the results of jobs; the pids of the processes that they came from."""
    results = [await queue.result(job.id, timeout=timedelta(seconds=WITHIN)) for job in jobs]
    assert {result["line"] for result in results} == {None}
    return {result["pid"] for result in results}


async def running(queue: Queue) -> set[UUID]:
    return {job.id for job in await queue.jobs(state=JobState.RUNNING, limit=1000)}


def arguments(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text()


def gone(pid: int) -> bool:
    """Whether a process has ended, reaped or not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def all_gone(processes: set[int]) -> None:
    async def none_left() -> bool:
        return all(map(gone, processes))

    await until(none_left)


async def test_processes_share_the_work_and_stop_together(shop: Hammerwork, queue: Queue) -> None:
    process = await started(shop, "--processes", 2, "--concurrency", 1)
    with ended(process):
        workers = await working(queue, 2)
        assert process.pid not in workers
        jobs = [Job("orders", 0.2) for _ in range(10)]
        await queue.enqueue_many(jobs)
        assert await all_done(queue, jobs) == workers
        assert not any(shop.environment["HAMMERWORK_DATABASE_URL"] in arguments(pid) for pid in workers)
        said = await stopped(process)
    assert said.count("worker stopped") == 2
    assert "worker processes stopped" in said
    assert await pids(queue) == set()


@pytest.mark.parametrize("app", ["shop:handlers", "shop:worker"])
async def test_a_killed_process_is_replaced_and_no_job_is_lost(
    shop: Hammerwork, queue: Queue, app: str
) -> None:
    options = ["--lease", f"{LEASE.total_seconds()}s", "--concurrency", 2] if app == "shop:handlers" else []
    process = await started(shop, "--processes", 2, *options, app=app)
    with ended(process):
        first = await working(queue, 2)
        jobs = [Job("orders", 0.3) for _ in range(16)]
        await queue.enqueue_many(jobs)
        await until(lambda: _at_least(queue, 4))
        victim = min(first)
        os.kill(victim, signal.SIGKILL)
        if app == "shop:worker":  # its lease is half a minute
            await _beats_are_old(queue, victim)

        await working(queue, 2, without=victim)
        more = [Job("orders", 0.3) for _ in range(8)]
        await queue.enqueue_many(more)
        await all_done(queue, jobs)
        assert await all_done(queue, more) == await pids(queue)
        said = await stopped(process)
    assert "how=SIGKILL" in said
    assert "restart_in" in said
    assert sorted(await _history(queue)) == sorted((job.id, "completed") for job in [*jobs, *more])


async def test_a_signal_to_one_process_drains_it_and_another_takes_its_place(
    shop: Hammerwork, queue: Queue
) -> None:
    process = await started(shop, "--processes", 2, "--concurrency", 1)
    with ended(process):
        first = min(await working(queue, 2))
        jobs = [Job("orders", 1.0) for _ in range(2)]
        await queue.enqueue_many(jobs)
        await until(lambda: _at_least(queue, 2))
        os.kill(first, signal.SIGTERM)
        os.kill(first, signal.SIGTERM)
        await working(queue, 2, without=first)
        assert first in await all_done(queue, jobs)
        await stopped(process)
    assert {job.attempt for job in [await queue.get(job.id) for job in jobs]} == {1}


async def test_a_signal_to_the_whole_group_drains_every_process_and_hurries_none(
    shop: Hammerwork, queue: Queue
) -> None:
    process = await started(shop, "--processes", 2, "--concurrency", 1, own_group=True)
    with ended(process):
        await working(queue, 2)
        jobs = [Job("orders", 1.0) for _ in range(2)]
        await queue.enqueue_many(jobs)
        await until(lambda: _at_least(queue, 2))
        os.killpg(process.pid, signal.SIGINT)
        _, err = await asyncio.wait_for(process.communicate(), WITHIN)
    assert process.returncode == 0, err
    assert sorted(await _history(queue)) == sorted((job.id, "completed") for job in jobs)
    assert {job.attempt for job in [await queue.get(job.id) for job in jobs]} == {1}


async def test_a_second_signal_hurries_every_process(shop: Hammerwork, queue: Queue) -> None:
    process = await started(shop, "--processes", 2, "--concurrency", 1, "--drain", "1h")
    with ended(process):
        await working(queue, 2)
        jobs = [Job("orders", 3600) for _ in range(2)]
        await queue.enqueue_many(jobs)
        await until(lambda: _at_least(queue, 2))
        process.send_signal(signal.SIGTERM)
        await _says(process, b"worker stopping", times=2)
        await stopped(process)
    left = [await queue.get(job.id) for job in jobs]
    assert {(job.state, job.attempt) for job in left} == {(JobState.AVAILABLE, 0)}


async def test_processes_whose_supervisor_is_killed_end(shop: Hammerwork, queue: Queue) -> None:
    process = await started(shop, "--processes", 2, "--concurrency", 1)
    with ended(process):
        orphans = await working(queue, 2)
        process.kill()
        await all_gone(orphans)
    assert await pids(queue) == set()  # they said goodbye


async def test_an_orphan_with_a_blocked_event_loop_ends_when_its_drain_is_over(
    shop: Hammerwork, queue: Queue
) -> None:
    process = await started(shop, "--processes", 2, "--concurrency", 1, "--drain", "100ms")
    with ended(process):
        orphans = await working(queue, 2)
        await queue.enqueue_many([Job("blocking", 3600) for _ in range(2)])
        await until(lambda: _at_least(queue, 2))
        process.kill()
        await all_gone(orphans)


async def test_one_process_for_each_core(shop: Hammerwork, queue: Queue) -> None:
    process = await started(shop, "--processes", 0)
    with ended(process):
        await working(queue, len(os.sched_getaffinity(0)))
        await stopped(process)


async def test_what_is_wrong_with_the_application_is_said_once(shop: Hammerwork) -> None:
    ran = await shop("worker", "run", "shop:nothing", "--processes", 3)
    assert ran.code == 1
    assert_one_clear_line(ran, "has no 'nothing'", hint="shop:handlers")


async def test_what_is_wrong_with_the_settings_is_said_once(shop: Hammerwork) -> None:
    three = {"HAMMERWORK_WORKER__PROCESSES": "3"}
    ran = await shop("worker", "run", "shop:handlers", more={"HAMMERWORK_WORKER__PROCESSES": "many"})
    assert_one_clear_line(ran, "worker.processes")
    ran = await shop("worker", "run", "shop:handlers", "--lease", "1ms", more=three)
    assert ran.code == 2
    assert_one_clear_line(ran, "--lease")
    ran = await shop("worker", "run", "shop:worker", "--concurrency", 3, more=three)
    assert ran.code == 2
    assert_one_clear_line(ran, "has its own --concurrency")


async def test_a_missing_schema_is_said_once(tmp_path: Path, dsn: str) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    ran = await Hammerwork(tmp_path, dsn)("worker", "run", "shop:handlers", "--processes", 3)
    assert ran.code == 1
    assert_one_clear_line(ran, "", hint="hammerwork migrate")


async def test_a_stop_while_the_first_process_waits_for_postgres_is_quick(bare: Hammerwork) -> None:
    (bare.folder / "shop.py").write_text(SHOP)
    nowhere = {"HAMMERWORK_DATABASE_URL": "postgresql://ana@127.0.0.1:1/shop"}
    process = await bare.started("worker", "run", "shop:handlers", "--processes", 2, more=nowhere)
    with ended(process):
        await _says(process, b"waiting for postgres")
        async with asyncio.timeout(5):
            await stopped(process)


async def test_a_process_that_dies_again_and_again_is_replaced_ever_later(
    shop: Hammerwork, queue: Queue
) -> None:
    (shop.folder / "frail.py").write_text(
        "import os\nfrom pathlib import Path\nfrom shop import handlers\n"
        "made = Path('made')\n"
        "if made.exists(): os._exit(9)\n"
        "made.touch()\n"
    )
    process = await started(shop, "--processes", 2, "--drain", "0s", app="frail:handlers")
    with ended(process):
        lines = await _says(process, b"how='exit code 9'", times=4)
        delays = [float(line.rpartition(b"restart_in=")[2].split()[0]) for line in lines if b"code 9" in line]
        assert await working(queue, 1)  # the one that came first is left alone
        await stopped(process)
    assert all(0.05 <= delay <= 0.2 * 2**n for n, delay in enumerate(delays))


async def _at_least(queue: Queue, count: int) -> bool:
    return len(await running(queue)) >= count


async def _history(queue: Queue) -> list[tuple[UUID, str]]:
    async with queue.database.acquire() as connection:
        rows = await connection.fetch("select id, state from hammerwork.history")
    return [(row["id"], row["state"]) for row in rows]


async def _beats_are_old(queue: Queue, pid: int) -> None:
    async with queue.database.acquire() as connection:
        await connection.execute(
            "update hammerwork.workers set heartbeat_at = now() - interval '1 hour', lease = interval '1 s'"
            " where pid = $1",
            pid,
        )


async def _says(process: asyncio.subprocess.Process, words: bytes, *, times: int = 1) -> list[bytes]:
    """Read its log until these words have come so often; the lines."""
    assert process.stderr is not None
    lines: list[bytes] = []
    async with asyncio.timeout(WITHIN):
        while sum(words in line for line in lines) < times:
            line = await process.stderr.readline()
            assert line, b"".join(lines).decode()
            lines.append(line)
    return lines
