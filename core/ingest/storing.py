"""Storing: a batch into the database, in one transaction that is sent again until its end is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from uuid import UUID

import asyncpg

from ..backoff import Backoff
from ..errors import BadMessage, Unavailable
from ..failpoints import reach
from ..message import Receipt
from ..postgres import store
from ..postgres.database import Connection, Database, describe, statement
from .burial import bury
from .item import Item
from .offsets import KeptOffsets
from .tombstones import follow_keys

HOLD = 5.0
"""Seconds that a batch is kept in hand while Postgres is away, before it goes back to the broker."""


class Storing:
    """One bridge's writes: identities, jobs, dead letters and offsets of a batch commit together.

    `give_up` says whether to stop trying early; `held` hears what keeps a batch waiting. `follows_keys`:
    a tombstone cancels the latest job of its key.
    """

    def __init__(
        self,
        database: Database,
        bridge: str,
        *,
        dead_letter_bytes: int,
        offsets: KeptOffsets | None,
        follows_keys: bool,
        give_up: Callable[[], bool],
        held: Callable[[str], None],
    ) -> None:
        self._database = database
        self._bridge = bridge
        self._dead_letter_bytes = dead_letter_bytes
        self._offsets = offsets
        self._follows_keys = follows_keys
        self._give_up = give_up
        self._held = held

    async def until_stored(self, items: list[Item]) -> list[Receipt]:
        """Store the batch, again when its COMMIT is unknown or Postgres is away for a moment.

        Ids are made before the first try, so a batch that was stored after all meets its own rows. There are
        no receipts for what is of a partition that is not ours any more. Raises Unavailable when Postgres
        stays away longer than HOLD.
        """
        backoff, deadline = Backoff(first=0.05, longest=1.0), time.monotonic() + HOLD
        again = False
        while True:
            try:
                return await self._store(items, again=again)
            except Unavailable as error:
                if time.monotonic() > deadline or self._give_up():
                    raise
                self._held(str(error))
                again = True
                await asyncio.sleep(backoff.next())
            except asyncpg.UniqueViolationError as error:
                # A transform gave an id that exists: not to be stored again, and no fault of the batch.
                if again:
                    return await self._isolate(items, error)
                again = True
            except asyncpg.PostgresError as error:
                return await self._isolate(items, error)

    async def _isolate(self, items: list[Item], error: asyncpg.PostgresError) -> list[Receipt]:
        """Postgres refuses the batch for something in it: halve it until the message is found."""
        if len(items) > 1:
            middle = len(items) // 2
            return [*await self.until_stored(items[:middle]), *await self.until_stored(items[middle:])]
        (item,) = items
        if item.bad is not None:
            raise Unavailable(f"a dead letter cannot be stored: {describe(error)}") from error
        item.refuse(BadMessage("refused_by_postgres", describe(error)))
        return await self.until_stored(items)

    async def _store(self, items: list[Item], *, again: bool) -> list[Receipt]:
        """One transaction. The receipts hold once this has returned."""
        offsets = self._offsets
        if offsets is None:
            async with self._database.transaction() as connection:
                return await self._write(connection, items, again=again)
        moves = offsets.moves(items)
        written: list[Receipt] = []
        async with self._database.transaction() as connection:
            moved = await offsets.move(connection, moves)
            done = await offsets.stand(connection, moves) if again else set()
            ours = {move.partition: move.fence for move in moves if move.partition in moved}
            fresh = [item for item in items if ours.get(item.partition, -1) == item.fence]
            if fresh:
                written = await self._write(connection, fresh, again=again)
        offsets.moved(moves, moved | done)
        fences = {move.partition: move.fence for move in moves if move.partition in done}
        known = [item.receipt() for item in items if fences.get(item.partition, -1) == item.fence]
        return [*written, *known]

    async def _write(self, connection: Connection, items: list[Item], *, again: bool) -> list[Receipt]:
        named = [item for item in items if item.message_id is not None and not item.filtered]
        known = await self._deduplicate(connection, named) if named else {}
        fresh = [item for item in items if id(item) not in known]
        rows = [item.row for item in fresh if item.row is not None]
        if again:
            rows = await store.not_stored(connection, rows)
        enqueue = store.enqueue_fresh if not again and self._database.reachable else store.enqueue
        await enqueue(connection, rows, announce=sorted({str(row[1]) for row in rows}))
        burials = [item.burial(item.bad) for item in fresh if item.bad is not None]
        await bury(connection, self._bridge, burials, self._dead_letter_bytes)
        if self._follows_keys:
            await follow_keys(connection, self._bridge, fresh)
        await reach("intake.before_commit")
        if not known:
            return [item.receipt() for item in items]
        return [known.get(id(item)) or item.receipt() for item in items]

    async def _deduplicate(self, connection: Connection, items: list[Item]) -> dict[int, Receipt]:
        """Insert the identities that are new; the receipts of the other deliveries, by id(item).

        An identity that is known with another body is not dropped: it becomes a dead letter of its own,
        under an identity made of both.
        """
        first: dict[str, Item] = {}
        for item in items:
            if item.message_id is not None:
                first.setdefault(item.message_id, item)
        if not first:
            return {}
        inbox = await self._enter(connection, first)
        receipts: dict[int, Receipt] = {}
        conflicts = []
        for item in items:
            if item.message_id is None:
                continue
            original = first[item.message_id]
            entry = inbox.get(item.message_id)
            if entry is None and item is original:
                continue
            digest, job_id = (original.digest, original.job_id) if entry is None else entry
            if digest == item.digest:
                receipts[id(item)] = item.receipt_of_known(job_id)
            else:
                conflicts.append(item.conflicts())
        if conflicts:
            receipts |= await self._deduplicate(connection, conflicts)
        return receipts

    async def _enter(
        self, connection: Connection, first: dict[str, Item]
    ) -> dict[str, tuple[bytes, UUID | None]]:
        """Write the inbox; what it holds of those that were in it already: (SHA-256, job id)."""
        items = list(first.values())
        new = await connection.fetch(
            statement("inbox_insert"),
            self._bridge, list(first), [i.job_id for i in items], [i.digest for i in items],
        )  # fmt: skip
        missing = first.keys() - {row["message_id"] for row in new}
        if not missing:
            return {}
        rows = await connection.fetch(statement("inbox_known"), self._bridge, list(missing))
        return {row["message_id"]: (row["body_sha256"], row["job_id"]) for row in rows}
