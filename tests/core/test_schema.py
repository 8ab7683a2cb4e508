"""Migrations: many processes at once, one killed half-way, drift, and versions from the future."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from hammerwork.core.errors import Misconfigured
from hammerwork.core.job import Job
from hammerwork.core.postgres import schema
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue

from ..services.postgres import PostgresService
from .restored import AS_RESTORED
from .running import until

MIGRATE = """
import asyncio, sys
from hammerwork.core.postgres import schema
from hammerwork.core.postgres.database import Database

async def main():
    async with Database(sys.argv[1]) as database:
        print(len(await schema.migrate(database)))

asyncio.run(main())
"""


def migrating_process(dsn: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", MIGRATE, dsn], stdout=subprocess.PIPE, text=True)


async def migrated_by(process: subprocess.Popen[str]) -> int:
    output, _ = await asyncio.to_thread(process.communicate, timeout=60)
    assert process.returncode == 0
    return int(output)


async def tables(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return int(
            await connection.fetchval("select count(*) from pg_tables where schemaname = 'hammerwork'")
        )
    finally:
        await connection.close()


def waits(dsn: str, kind: str) -> Callable[[], Awaitable[bool]]:
    """Whether some backend of the database waits for a lock of this kind."""

    async def look() -> bool:
        connection = await asyncpg.connect(dsn)
        try:
            return bool(
                await connection.fetchval(
                    "select exists (select from pg_stat_activity where datname = current_database()"
                    " and wait_event = $1)",
                    kind,
                )
            )
        finally:
            await connection.close()

    return look


async def test_eight_at_once_apply_each_migration_once(empty_dsn: str) -> None:
    processes = [migrating_process(empty_dsn) for _ in range(2)]
    databases = [Database(empty_dsn, size=1) for _ in range(6)]
    applied = await asyncio.gather(*(schema.migrate(database) for database in databases))
    counts = [len(done) for done in applied] + [await migrated_by(process) for process in processes]
    assert sum(counts) == len(schema.migrations())
    assert await schema.verify(databases[0]) == []
    for database in databases:
        await database.close()


async def test_a_second_run_changes_nothing(empty_dsn: str) -> None:
    async with Database(empty_dsn) as database:
        assert await schema.migrate(database) == schema.migrations()
        assert await schema.migrate(database) == []


async def test_one_that_is_killed_half_way_leaves_nothing_and_the_next_run_converges(empty_dsn: str) -> None:
    # A relation of that name, in a transaction that stays open, holds the migration up in its middle.
    blocker = await asyncpg.connect(empty_dsn)
    await blocker.execute("create schema hammerwork")
    await blocker.execute("begin; create table hammerwork.dead_letters ()")
    victim = migrating_process(empty_dsn)
    try:
        await until(waits(empty_dsn, "transactionid"))
        os.kill(victim.pid, signal.SIGKILL)
    finally:
        victim.kill()
        await asyncio.to_thread(victim.communicate)
    await blocker.execute("rollback")
    await blocker.close()

    async def over() -> bool:
        return await no_other_backend(empty_dsn)

    await until(over)
    assert await tables(empty_dsn) == 0
    async with Database(empty_dsn) as database:
        assert await schema.migrate(database) == schema.migrations()
        assert await schema.verify(database) == []


async def no_other_backend(dsn: str) -> bool:
    connection = await asyncpg.connect(dsn)
    try:
        return not await connection.fetchval(
            "select exists (select from pg_stat_activity where datname = current_database()"
            " and pid <> pg_backend_pid() and backend_type = 'client backend')"
        )
    finally:
        await connection.close()


async def test_verify_says_that_there_is_no_schema(empty_dsn: str) -> None:
    async with Database(empty_dsn) as database:
        assert await schema.verify(database) == ["the schema does not exist: run `hammerwork migrate`"]
        with pytest.raises(Misconfigured) as caught:
            await schema.require_current(database)
        assert "hammerwork migrate" in caught.value.hint


async def test_without_the_schema_every_call_says_what_to_run(empty_dsn: str) -> None:
    async with Queue(empty_dsn) as queue:
        with pytest.raises(Misconfigured) as caught:
            await queue.enqueue(Job("orders"))
        assert "hammerwork migrate" in caught.value.hint


async def test_verify_finds_a_migration_that_is_missing(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        await connection.execute("delete from hammerwork.migrations where version = 1")
    (fault,) = await schema.verify(own_queue.database)
    assert fault == "migration 0001 first is missing: run `hammerwork migrate`"
    with pytest.raises(Misconfigured):
        await schema.require_current(own_queue.database)


async def test_verify_finds_a_migration_of_another_text(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        await connection.execute("update hammerwork.migrations set checksum = 'other' where version = 1")
    (fault,) = await schema.verify(own_queue.database)
    assert "0001 was applied from another text" in fault


async def test_verify_finds_sinks_whose_position_is_of_another_server(own_queue: Queue) -> None:
    for sink in ("crm", "bus", "lake"):
        await own_queue.database.fetch("register_sink", sink, "test", ["job.dead"])
    async with own_queue.database.acquire() as connection:
        await connection.execute(f"{AS_RESTORED} where name <> 'lake'")
    (fault,) = await schema.verify(own_queue.database)
    assert fault.startswith("the position of the sinks bus, crm is ahead of this server's transactions")
    assert "`hammerwork sink remove NAME`" in fault


async def test_verify_finds_that_nobody_makes_partitions(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        day = await connection.fetchval("select to_char(current_date + 1, 'YYYYMMDD')")
        await connection.execute(f"drop table hammerwork.events_{day}")
    (fault,) = await schema.verify(own_queue.database)
    assert fault.startswith("events has no partition for tomorrow")


async def test_verify_finds_a_sink_from_another_servers_data(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        await connection.execute(
            "insert into hammerwork.sinks (name, kind, types, position_xid)"
            " values ('billing', 'webhook', '{}', '9000000000')"
        )
    (fault,) = await schema.verify(own_queue.database)
    assert "ahead of this server's transactions" in fault


async def test_a_schema_from_a_newer_version_is_refused(own_queue: Queue) -> None:
    async with own_queue.database.acquire() as connection:
        await connection.execute(
            "insert into hammerwork.migrations (version, name, checksum) values (9999, 'later', 'x')"
        )
    with pytest.raises(Misconfigured, match="9999") as caught:
        await schema.migrate(own_queue.database)
    assert "upgrade hammerwork" in caught.value.hint
    (fault,) = await schema.verify(own_queue.database)
    assert "9999" in fault
    with pytest.raises(Misconfigured, match="9999"):
        await schema.require_current(own_queue.database)


async def test_the_oldest_postgres_takes_the_schema(oldest_postgres_service: PostgresService) -> None:
    dsn = await oldest_postgres_service.create_database()
    async with Database(dsn) as database:
        await schema.migrate(database)
        assert await schema.verify(database) == []
    await oldest_postgres_service.drop_database(dsn)


def test_migrations_are_numbered_without_gaps() -> None:
    versions = [migration.version for migration in schema.migrations()]
    assert versions == list(range(1, len(versions) + 1))


async def test_every_statement_is_valid_for_its_parameters(dsn: str, connection: asyncpg.Connection) -> None:
    from importlib.resources import files

    names = [entry for entry in (files("hammerwork.core") / "sql").iterdir() if entry.name.endswith(".sql")]
    assert len(names) > 40
    for entry in names:
        await connection.prepare(entry.read_text(encoding="utf-8"))
