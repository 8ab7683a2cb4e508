"""One migrated database a server for the whole session; every test finds it empty."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import cast
from uuid import UUID, uuid4

import asyncpg
import pytest

from hammerwork.core.postgres import schema
from hammerwork.core.postgres.database import Database
from hammerwork.core.queue import Queue

from ..services.postgres import PostgresService

EMPTY = """
select pg_terminate_backend(pid) from pg_stat_activity
 where datname = current_database() and pid <> pg_backend_pid() and backend_type = 'client backend';
delete from hammerwork.jobs; delete from hammerwork.history; delete from hammerwork.results;
delete from hammerwork.attempts; delete from hammerwork.events; delete from hammerwork.deliveries;
delete from hammerwork.inbox; delete from hammerwork.bridges; delete from hammerwork.dead_letters;
delete from hammerwork.bridge_offsets; delete from hammerwork.bridge_keys;
delete from hammerwork.queues; delete from hammerwork.workers; delete from hammerwork.sinks;
delete from hammerwork.duties;
drop schema public cascade; create schema public;
"""


@pytest.fixture(scope="session")
def migrated() -> Callable[[PostgresService], str]:
    """The URL of the one database with the schema on a server, made when first asked for."""
    made: dict[int, str] = {}

    def find(service: PostgresService) -> str:
        if id(service) not in made:
            with ThreadPoolExecutor(1) as thread:
                made[id(service)] = thread.submit(asyncio.run, _migrated(service)).result()
        return made[id(service)]

    return find


async def _migrated(service: PostgresService) -> str:
    url = await service.create_database()
    async with Database(url) as database:
        await schema.migrate(database)
    return url


@pytest.fixture
async def dsn(
    request: pytest.FixtureRequest, migrated: Callable[[PostgresService], str]
) -> AsyncIterator[str]:
    """An empty database with the schema; see `running.both_servers` for the oldest Postgres."""
    which = {"newest": "postgres_service", "oldest": "oldest_postgres_service"}
    service = cast("PostgresService", request.getfixturevalue(which[getattr(request, "param", "newest")]))
    url = migrated(service)
    yield url
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(EMPTY)
    finally:
        await connection.close()


@pytest.fixture
async def empty_dsn(postgres_service: PostgresService) -> AsyncIterator[str]:
    """A database of its own without any schema."""
    url = await postgres_service.create_database()
    yield url
    await postgres_service.drop_database(url)


@pytest.fixture
async def own_queue(empty_dsn: str) -> AsyncIterator[Queue]:
    """A queue on a database of its own, for tests that change the schema or crowd the server's clock."""
    async with Queue(empty_dsn) as queue:
        await queue.migrate()
        yield queue


@pytest.fixture
async def connection(dsn: str) -> AsyncIterator[asyncpg.Connection]:
    """A plain asyncpg connection to the database of the test."""
    connection = await asyncpg.connect(dsn)
    yield connection
    await connection.close(timeout=5)


@pytest.fixture
async def worker(queue: Queue) -> UUID:
    """The id of a worker that is registered but does not run."""
    worker = uuid4()
    hour = timedelta(hours=1)
    await queue.database.fetch("register_worker", worker, "test", 1, ["orders"], 1, hour)
    return worker
