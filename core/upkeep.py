"""Upkeep: due jobs are promoted, jobs of lost workers rescued, old rows pruned, partitions made."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

import asyncpg
import structlog

from .backoff import Backoff
from .errors import HammerworkError
from .identity import new_id, slot_of
from .job import JobState
from .postgres import store
from .postgres.database import STATEMENT_TIMEOUT, Connection, Database, statement
from .postgres.duty import Duty
from .postgres.store import Finish, Requeue

log = structlog.get_logger(__name__)

PROMOTE_AT_ONCE = 5000
RESCUE_AT_ONCE = 500
PRUNE_AT_ONCE = 5000
LONGEST_REST = 0.25
"""Seconds until the next look for due jobs when none was known to be due sooner: a job that is scheduled
for less than this from now may start up to this much late."""

TAKE_OVER_EVERY = 2.0
RESCUE_EVERY = 1.0
UNSTICK_EVERY = 10.0
TIDY_EVERY = 60.0
OWNERLESS_SHARE = 1000
"""Looking for ownerless jobs reads the whole table of jobs, and may take a thousandth of the time."""
STUCK_AFTER = timedelta(seconds=STATEMENT_TIMEOUT + 10)
"""How long a COPY may wait for its client. A client that runs gives up sooner."""
PARTITIONS_AHEAD = 7
LOCK_TIMEOUT = "set local lock_timeout = '1s'"
"""Whoever waits for a whole table makes everybody else wait behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """How long finished things are kept. Events are kept longer while an active sink has not read them."""

    history: timedelta = timedelta(days=7)
    attempts: timedelta = timedelta(days=30)
    events: timedelta = timedelta(days=7)
    deliveries: timedelta = timedelta(days=14)
    dead_letters: timedelta = timedelta(days=30)
    """After their replay or discard; open ones are kept for ever."""


class Upkeep:
    """Runs in every gateway and worker; one of them does the work at a time."""

    def __init__(self, database: Database, retention: Retention | None = None) -> None:
        self._database = database
        self._retention = retention or Retention()
        self._duty = Duty(database, "upkeep")
        self._rescued_at = 0.0
        self._unstuck_at = 0.0
        self._tidied_at = 0.0
        self._ownerless_due = 0.0

    async def run(self) -> None:
        """Keep up until cancelled."""
        # Not at the start: beside a table of millions there is enough to do, and others have looked before.
        self._ownerless_due = time.monotonic() + TIDY_EVERY
        backoff = Backoff()
        try:
            while True:
                try:
                    rest = await self._round()
                    backoff.reset()
                except (HammerworkError, asyncpg.PostgresError) as error:
                    rest = backoff.next()
                    log.warning("upkeep failed", error=str(error), retry_in=round(rest, 2))
                await asyncio.sleep(rest)
        finally:
            await self._duty.leave()

    async def _round(self) -> float:
        """One turn of every duty that is due; how many seconds to rest after it."""
        if not await self._duty.ours():
            return TAKE_OVER_EVERY
        now = time.monotonic()
        if now - self._rescued_at > RESCUE_EVERY:
            self._rescued_at = now
            if await self._database.fetch("lost_workers"):
                await self.rescue()
        if now - self._unstuck_at > UNSTICK_EVERY:
            self._unstuck_at = now
            await self.end_stuck_copies()
        if now - self._tidied_at > TIDY_EVERY:
            # Noted before: tidying that fails, behind somebody's long read, must not keep us from promoting.
            self._tidied_at = now
            await self.tidy()
        return await self._promote_due()

    async def _promote_due(self) -> float:
        """Promote what is due, and rest until the next job is."""
        (row,) = await self._database.fetch("next_due")
        wait: timedelta | None = row["wait"]
        if wait is None:
            return LONGEST_REST
        if wait > timedelta(0):
            return min(LONGEST_REST, wait.total_seconds())
        # What is due and could not be promoted is locked by somebody who is changing it at this moment.
        return 0.0 if await self.promote() else LONGEST_REST

    async def promote(self) -> int:
        """Make scheduled jobs that are due available, and tell their workers; how many."""
        rows = await self._database.fetch("promote", PROMOTE_AT_ONCE)
        if rows:
            await self._database.fetch("announce", [f"queue {row['queue']}" for row in rows])
        return sum(row["jobs"] for row in rows)

    async def end_stuck_copies(self) -> None:
        """End the sessions of producers that have stopped in their tracks in the middle of a COPY."""
        for row in await self._database.fetch("end_stuck_copies", STUCK_AFTER):
            log.warning("a producer stopped in the middle of a COPY: its session was ended", pid=row["pid"])

    async def rescue(self) -> int:
        """Give the jobs of workers whose lease is over to others; how many.

        The attempt counts and is recorded as lost; without one left the job is dead, so that a job that
        kills its workers does not kill them for ever.
        """
        rescued = 0
        async with self._database.transaction() as connection:
            for worker in await connection.fetch(statement("lost_workers")):
                rescued += await self._rescue_from(connection, worker["id"])
        return rescued

    async def rescue_ownerless(self) -> int:
        """Give away the jobs that were claimed in the moment in which their worker was given up; how many."""
        rescued = 0
        async with self._database.transaction() as connection:
            for row in await connection.fetch(statement("ownerless_claims")):
                rescued += await self._rescue_from(connection, row["claimed_by"])
        return rescued

    async def _rescue_from(self, connection: Connection, worker: UUID) -> int:
        held = await connection.fetch(statement("jobs_held_by"), worker, RESCUE_AT_ONCE)
        back = [
            Requeue(id=row["id"], lease=row["lease"], kind="retried", cause="lost", error=_lost(worker))
            for row in held
            if row["attempt"] < row["max_attempts"] and row["cancel_reason"] is None
        ]
        ended = [
            Finish(
                id=row["id"],
                lease=row["lease"],
                state=JobState.DEAD if row["cancel_reason"] is None else JobState.CANCELLED,
                cause="lost",
                error=row["cancel_reason"] or _lost(worker),
                dead_letter_id=new_id(slot_of(row["id"])),
            )
            for row in held
            if row["attempt"] >= row["max_attempts"] or row["cancel_reason"] is not None
        ]
        if back:
            await store.requeue(connection, worker, back)
        if ended:
            await store.finish(connection, worker, ended)
        queues = sorted({row["queue"] for row in held})
        await connection.fetch(statement("announce"), [f"queue {queue}" for queue in queues])
        await connection.fetch(statement("unregister_worker"), worker)
        log.warning("worker lost", worker=str(worker), jobs_given_back=len(back), jobs_ended=len(ended))
        return len(held)

    async def tidy(self) -> None:
        """Find ownerless jobs, prune and drop what is past its time, make tomorrow's partitions."""
        began = time.monotonic()
        if began >= self._ownerless_due:
            await self.rescue_ownerless()
            self._ownerless_due = began + OWNERLESS_SHARE * (time.monotonic() - began)
        for prune in ("prune_results", "prune_inbox"):
            pruned = PRUNE_AT_ONCE
            while pruned == PRUNE_AT_ONCE:
                pruned = len(await self._database.fetch(prune, PRUNE_AT_ONCE))
        await self._database.fetch("prune_dead_letters", self._retention.dead_letters, PRUNE_AT_ONCE)
        async with self._database.transaction() as connection:
            await connection.execute(LOCK_TIMEOUT)
            await connection.fetch(statement("make_partitions"), PARTITIONS_AHEAD)
        await self._drop_partitions()

    async def _drop_partitions(self) -> None:
        now = datetime.now(UTC)
        for row in await self._database.fetch("list_partitions"):
            keep: timedelta = getattr(self._retention, row["parent"])
            if row["ends_at"] + keep > now:
                continue
            if row["parent"] == "events":
                (unread,) = await self._database.fetch("events_unread", row["ends_at"])
                if unread["unread"]:
                    log.warning("events are kept past their time: a sink has not read them", day=row["name"])
                    continue
            async with self._database.transaction() as connection:
                await connection.execute(LOCK_TIMEOUT)
                # The name comes from pg_class, never from outside.
                await connection.execute(f"drop table hammerwork.{row['name']}")
            log.info("partition dropped", name=row["name"])


def _lost(worker: UUID) -> str:
    return f"worker {worker} was lost while it ran this"
