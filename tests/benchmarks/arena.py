"""Arena: the servers of a run, a fresh database for every round, and the clock over all of them."""

from __future__ import annotations

import gc
import secrets
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

import asyncpg

from hammerwork.gateway.garbage import collect_seldom, keep_what_is_built

from ..services.kafka import KafkaService, find_kafka
from ..services.postgres import PostgresService, find_postgres
from ..services.rabbitmq import RabbitmqService, find_rabbitmq
from .measure import Measure
from .processes import cpu_seconds
from .stages import Stage


@dataclass(frozen=True, slots=True)
class _Reading:
    wal: int
    client: float
    server: float | None
    broker: float | None


LOG_SEGMENTS = 24
"""Files of 16 MB of write-ahead log that exist before the first round. A new server makes each when it comes
to it, 40 ms in which everybody waits, every 16,000 jobs, at whoever's turn it happens; one that has run for
an hour uses its old ones again."""


class Servers:
    """A Postgres with its default settings, as a user meets it after an hour, and brokers when the first row
    asks."""

    def __init__(self) -> None:
        self.postgres: PostgresService = find_postgres(settings={"min_wal_size": f"{LOG_SEGMENTS * 16}MB"})
        self._broker: RabbitmqService | None = None
        self._kafka: KafkaService | None = None
        self._templates: dict[Stage, str] = {}

    def close(self) -> None:
        self.postgres.close()
        if self._broker is not None:
            self._broker.close()
        if self._kafka is not None:
            self._kafka.close()

    def broker(self) -> RabbitmqService:
        """RabbitMQ; raises ServiceMissing."""
        if self._broker is None:
            self._broker = find_rabbitmq()
        return self._broker

    def kafka(self) -> KafkaService:
        """Kafka; raises ServiceMissing."""
        if self._kafka is None:
            self._kafka = find_kafka()
        return self._kafka

    async def version(self) -> str:
        """Postgres' own."""
        connection = await asyncpg.connect(self.postgres.dsn())
        try:
            return str(await connection.fetchval("show server_version"))
        finally:
            await connection.close()

    @property
    def broker_pid(self) -> int | None:
        return self._broker.pid if self._broker is not None else None

    @asynccontextmanager
    async def arena(self, stage: Stage) -> AsyncIterator[Arena]:
        """A copy of what `stage` made, gone after the block. Its first use makes the original."""
        if not self._templates:
            await self._make_log()
        if stage not in self._templates:
            self._templates[stage] = f"stage_{secrets.token_hex(6)}"
            await self.postgres.execute(f"create database {self._templates[stage]}")
            await stage(self.postgres.dsn(self._templates[stage]))
        name = f"round_{secrets.token_hex(6)}"
        # Copying files ends with a checkpoint, so that none of an earlier round's work is left for this one.
        await self.postgres.execute(
            f"create database {name} template {self._templates[stage]} strategy file_copy"
        )
        try:
            yield Arena(self, self.postgres.dsn(name), stage)
        finally:
            await self.postgres.execute(f"drop database if exists {name} with (force)")

    async def _make_log(self) -> None:
        for _ in range(LOG_SEGMENTS):
            await self.postgres.execute("select pg_logical_emit_message(false, 'hammerwork', 'one more')")
            await self.postgres.execute("select pg_switch_wal()")
        await self.postgres.execute("checkpoint")  # which keeps them, to be used again


class Arena:
    """Where one side does its work in one round."""

    def __init__(self, servers: Servers, dsn: str, stage: Stage) -> None:
        self._servers = servers
        self._stage = stage
        self.dsn = dsn

    def another(self) -> AbstractAsyncContextManager[Arena]:
        """One more copy of the same stage."""
        return self._servers.arena(self._stage)

    @property
    def broker_url(self) -> str:
        """RabbitMQ; raises ServiceMissing."""
        return self._servers.broker().url

    @property
    def kafka(self) -> KafkaService:
        """Kafka; raises ServiceMissing."""
        return self._servers.kafka()

    @asynccontextmanager
    async def measured(self, done: int) -> AsyncIterator[Measure]:
        """Measure the block, in which `done` things are done. Garbage is collected as a gateway does it,
        whoever's turn it is: what the benchmarks are made of is none of the work that is measured."""
        connection = await asyncpg.connect(self.dsn)
        thresholds = gc.get_threshold()
        try:
            measure = Measure(done=done)
            gc.collect()
            keep_what_is_built()
            collect_seldom()
            before, started = await self._read(connection), time.perf_counter()
            yield measure
            measure.seconds = time.perf_counter() - started
            after = await self._read(connection)
        finally:
            gc.unfreeze()
            gc.set_threshold(*thresholds)
            await connection.close()
        measure.wal = after.wal - before.wal
        measure.client_cpu = after.client - before.client
        measure.server_cpu = _difference(after.server, before.server)
        measure.broker_cpu = _difference(after.broker, before.broker)

    async def _read(self, connection: asyncpg.Connection) -> _Reading:
        wal = await connection.fetchval("select (pg_current_wal_insert_lsn() - '0/0')::bigint")
        server, broker = cpu_seconds(self._servers.postgres.pid), cpu_seconds(self._servers.broker_pid)
        return _Reading(wal, time.process_time(), server, broker)

    async def analyse(self) -> None:
        """Statistics of what was just enqueued, as autovacuum would make them within a minute: without them
        some plans, ours or a peer's, are those of an empty table."""
        connection = await asyncpg.connect(self.dsn)
        try:
            await connection.execute("analyze")
        finally:
            await connection.close()

    async def dead_rows(self) -> int:
        """Rows that vacuum has yet to remove, as the statistics count them. Ask when the side has left:
        sessions report what they did at their end."""
        connection = await asyncpg.connect(self.dsn)
        try:
            return int(
                await connection.fetchval(
                    "select coalesce(sum(n_dead_tup), 0)::bigint from pg_stat_user_tables"
                )
            )
        finally:
            await connection.close()


def _difference(after: float | None, before: float | None) -> float | None:
    return None if after is None or before is None else after - before
