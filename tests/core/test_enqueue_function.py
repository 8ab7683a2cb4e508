"""hammerwork.enqueue(): jobs from plain SQL, from triggers and from other languages."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from hammerwork.core.identity import new_id, slot_of
from hammerwork.core.job import JobState, Priority
from hammerwork.core.queue import Queue

from .running import before, both_servers, running, worker_of


@both_servers
async def test_plain_sql_enqueues_with_defaults(queue: Queue, connection: asyncpg.Connection) -> None:
    job_id = await connection.fetchval("select hammerwork.enqueue('orders')")
    stored = await queue.get(job_id)
    assert (stored.queue, stored.payload, stored.state) == ("orders", None, JobState.AVAILABLE)
    assert (stored.priority, stored.max_attempts) == (Priority.NORMAL, 5)
    assert job_id.version == 7
    assert abs(job_id.int >> 80) / 1000 == pytest.approx(datetime.now(UTC).timestamp(), abs=60)


@both_servers
async def test_plain_sql_enqueues_with_everything_named(queue: Queue, connection: asyncpg.Connection) -> None:
    given = new_id(77)
    job_id = await connection.fetchval(
        """select hammerwork.enqueue(queue => 'orders', payload => '{"a": [1, "☃"]}', priority => 4::smallint,
               run_at => now() + interval '1 hour', max_attempts => 2, timeout => interval '3 seconds',
               correlation_id => 'c-1', headers => '{"tenant": "acme"}', id => $1)""",
        given,
    )
    stored = await queue.get(job_id)
    assert (job_id, slot_of(job_id)) == (given, 77)
    assert (stored.payload, stored.headers) == ({"a": [1, "☃"]}, {"tenant": "acme"})
    assert (stored.state, stored.priority, stored.max_attempts) == (JobState.SCHEDULED, 4, 2)
    assert stored.correlation_id == "c-1"
    assert stored.run_at > datetime.now(UTC) + timedelta(minutes=59)


async def test_an_id_that_exists_is_left_alone(queue: Queue, connection: asyncpg.Connection) -> None:
    given = new_id()
    for payload in ("1", "2"):
        call = "select hammerwork.enqueue('orders', $2::text::jsonb, id => $1)"
        assert await connection.fetchval(call, given, payload) == given
    assert (await queue.get(given)).payload == 1


async def test_ids_made_by_the_database_spread_over_the_slots(connection: asyncpg.Connection) -> None:
    rows = await connection.fetch("select hammerwork.new_id() as id from generate_series(1, 2000)")
    assert len({row["id"] for row in rows}) == 2000
    assert len({slot_of(row["id"]) for row in rows}) > 700
    assert {(row["id"].version, row["id"].variant) for row in rows} == {(7, "specified in RFC 4122")}


async def test_a_trigger_turns_rows_into_jobs_with_its_transaction(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await connection.execute(
        """
        create table invoices (id integer, total numeric);
        create function enqueue_invoice() returns trigger language plpgsql as $$
        begin
            perform hammerwork.enqueue('invoices', to_jsonb(new), correlation_id => new.id::text);
            return new;
        end $$;
        create trigger invoices_enqueue after insert on invoices
            for each row execute function enqueue_invoice();
        """
    )
    async with connection.transaction():
        await connection.execute("insert into invoices select n, n * 1.5 from generate_series(1, 3) n")
        assert await queue.jobs() == []
    undone = connection.transaction()
    await undone.start()
    await connection.execute("insert into invoices values (4, 6)")
    await undone.rollback()

    done = asyncio.Event()
    seen: dict[str, object] = {}

    async def handle(job: object) -> None:
        seen[job.correlation_id] = job.payload  # type: ignore[attr-defined]
        if len(seen) == 3:
            done.set()

    async with running(worker_of(queue, {"invoices": handle})):
        await before(done)
    assert seen == {str(n): {"id": n, "total": n * 1.5} for n in (1, 2, 3)}


async def test_the_commit_of_plain_sql_wakes_an_idle_worker(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    listener = await asyncpg.connect(queue.database.where)
    words: asyncio.Queue[str] = asyncio.Queue()
    await listener.add_listener("hammerwork", lambda *word: words.put_nowait(str(word[3])))
    async with connection.transaction():
        await connection.execute("select hammerwork.enqueue('orders') from generate_series(1, 50)")
        assert words.empty()
    assert await asyncio.wait_for(words.get(), 5) == "queue orders"
    await connection.execute("notify hammerwork, 'last'")
    assert await asyncio.wait_for(words.get(), 5) == "last"  # Postgres folds equal words of a transaction
    await listener.close()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("hammerwork.enqueue('Bad Queue')", "queue name 'Bad Queue' is not allowed"),
        ("hammerwork.enqueue('')", "queue name '' is not allowed"),
        ("hammerwork.enqueue(E'a\\nb')", "is not allowed"),
        ("hammerwork.enqueue(E'orders\\n')", "is not allowed"),
        ("hammerwork.enqueue(null)", "queue"),
        ("hammerwork.enqueue('orders', priority => 5::smallint)", "priority 5 is not allowed"),
        ("hammerwork.enqueue('orders', priority => null)", "priority"),
        ("hammerwork.enqueue('orders', max_attempts => 0)", "max_attempts"),
        ("hammerwork.enqueue('orders', timeout => interval '-1 second')", "timeout"),
        ("hammerwork.enqueue('orders', headers => '[1]')", "headers"),
    ],
)
async def test_what_no_worker_could_run_is_refused(
    queue: Queue, connection: asyncpg.Connection, call: str, said: str
) -> None:
    with pytest.raises(asyncpg.PostgresError, match=said):
        await connection.execute(f"select {call}")
    assert await queue.jobs() == []
