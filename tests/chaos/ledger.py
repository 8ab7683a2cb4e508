"""The ledger of a chaos test: what went in, what Postgres holds of it afterwards, and the difference."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import asyncpg
import pytest

from .work import STARTS

PLACES = """
    select payload ->> 'id' as id, 'jobs' as place from hammerwork.jobs
    union all
    select payload ->> 'id', 'history' from hammerwork.history
    union all
    select coalesce(headers ->> 'id', message_id), 'dead_letters' from hammerwork.dead_letters
    where bridge is not null
"""
"""Every thing that went in carries its id in the payload, or in the header `id` where it is poison."""

ORPHANS = """
    select message_id from hammerwork.inbox
    where not exists (select from hammerwork.jobs where jobs.id = inbox.job_id)
      and not exists (select from hammerwork.history where history.id = inbox.job_id)
      and not exists (select from hammerwork.dead_letters as letter
                      where inbox.job_id is null and letter.bridge = inbox.bridge
                        and letter.message_id = inbox.message_id)
"""
"""Identities that the inbox would drop as duplicates of nothing."""

PAUSING = """
    select from pg_stat_activity where datname = current_database()
      and state = 'idle in transaction' and now() - state_change > '0.3 s'::interval
"""

EFFECTS = "create table if not exists effects (id text not null, job_id uuid not null, attempt int not null)"
"""Without any unique key: a second effect is to be seen, not refused."""


@dataclass(frozen=True, slots=True)
class Account:
    """How a ledger adds up; the classes are those of Jepsen's total-queue checker.

    `recovered` went in with an unknown answer and is there; everything else must be empty.
    """

    ok: int
    recovered: int
    lost: list[str]
    unexpected: list[str]
    duplicated: list[str]
    misplaced: list[str]
    """A dead letter where a job was expected, or the other way round."""
    orphans: list[str]
    effects_repeated: list[str]
    effects_missing: list[str]
    """Jobs that are completed without their effect."""
    effects_unfounded: list[str]
    """Effects whose job is not completed."""

    @property
    def faults(self) -> dict[str, list[str]]:
        names = (
            "lost", "unexpected", "duplicated", "misplaced", "orphans",
            "effects_repeated", "effects_missing", "effects_unfounded",
        )  # fmt: skip
        return {name: found[:5] for name in names if (found := getattr(self, name))}


@dataclass
class Ledger:
    """`acknowledged`: the ids that the system has said yes to, so each is there exactly once. `poison`:
    those of them that must be dead letters. `unsure`: the answer never came, so each is there at most
    once."""

    dsn: str
    acknowledged: set[str] = field(default_factory=set)
    poison: set[str] = field(default_factory=set)
    unsure: set[str] = field(default_factory=set)

    async def open(self) -> None:
        """Make the tables in which handlers leave their traces."""
        await self._fetch(EFFECTS)
        await self._fetch(STARTS)

    async def completed(self) -> int:
        """How many jobs are completed by now."""
        (row,) = await self._fetch("select count(*) from hammerwork.history where state = 'completed'")
        return int(row[0])

    async def missing(self) -> set[str]:
        """The acknowledged ids that are nowhere yet."""
        return self.acknowledged - {row["id"] for row in await self._fetch(PLACES)}

    async def unfinished(self) -> int:
        """How many jobs are still to be run."""
        (row,) = await self._fetch("select count(*) from hammerwork.jobs")
        return int(row[0])

    async def fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        """Rows of a query of the test's own."""
        return await self._fetch(query, *arguments)

    async def is_within_transaction(self) -> bool:
        """Whether some process pauses in the middle of a transaction."""
        return bool(await self._fetch(PAUSING))

    async def account(self) -> Account:
        """Compare. Meant for when everything has come to rest."""
        places: dict[str, Counter[str]] = {}
        for row in await self._fetch(PLACES):
            places.setdefault(row["id"], Counter())[row["place"]] += 1
        asked = self.acknowledged | self.unsure
        buried = {key for key, found in places.items() if "dead_letters" in found}
        return Account(
            ok=len(self.acknowledged & places.keys()),
            recovered=len((self.unsure - self.acknowledged) & places.keys()),
            lost=_listed(self.acknowledged - places.keys()),
            unexpected=_listed(places.keys() - asked),
            duplicated=_listed(key for key, found in places.items() if found.total() > 1),
            misplaced=_listed((buried ^ self.poison) & places.keys() & asked),
            orphans=[row["message_id"] for row in await self._fetch(ORPHANS)],
            **await self._effects(),
        )

    async def assert_clean(self, *, effects: bool = False) -> Account:
        """Nothing lost, nothing twice, nothing from nowhere; with `effects`, one a completed job."""
        account = await self.account()
        faults = account.faults
        if not effects:
            faults.pop("effects_missing", None)
        assert not faults, f"{faults} of {len(self.acknowledged)} acknowledged, {len(self.unsure)} unsure"
        return account

    async def _effects(self) -> dict[str, list[str]]:
        repeated = await self._fetch("select id from effects group by id having count(*) > 1")
        missing = await self._fetch(
            "select payload ->> 'id' as id from hammerwork.history where state = 'completed'"
            " and coalesce(payload ->> 'how', '') not in ('return', 'block_return')"
            " and not exists (select from effects where job_id = history.id)"
        )
        unfounded = await self._fetch(
            "select id from effects where not exists"
            " (select from hammerwork.history where history.id = job_id and state = 'completed')"
        )
        return {
            "effects_repeated": _listed(row["id"] for row in repeated),
            "effects_missing": _listed(row["id"] for row in missing),
            "effects_unfounded": _listed(row["id"] for row in unfounded),
        }

    async def _fetch(self, query: str, *arguments: object) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.dsn, timeout=10)
        try:
            return await connection.fetch(query, *arguments)
        finally:
            await connection.close()


def _listed(ids: Iterable[str | None]) -> list[str]:
    return sorted(str(key) for key in ids)


async def until(condition: Callable[[], Awaitable[bool]], within: float, what: str) -> float:
    """Poll until the condition holds; the seconds that it took. Fails the test after `within` seconds."""
    started = time.monotonic()
    while not await condition():
        if time.monotonic() - started > within:
            pytest.fail(f"not within {within:g} s: {what}")
        await asyncio.sleep(0.05)
    return time.monotonic() - started
