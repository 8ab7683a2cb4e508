"""Intake: deliveries are decoded, mapped and stored in one transaction; only then the broker hears of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta
from uuid import UUID

import asyncpg
import structlog

from ..backoff import Backoff
from ..errors import BadMessage, Disconnected, HammerworkError, Misconfigured, Unavailable
from ..failpoints import reach
from ..message import Bridge, Delivery, Fate, Message, Receipt, Want
from ..postgres import store
from ..postgres.database import Connection, Database, describe, statement
from ..status import Status
from .burial import bury
from .decode import Decoder
from .fields import printable
from .item import Item
from .mapping import Mapper

log = structlog.get_logger(__name__)

HOLD = 5.0
"""Seconds that a batch is kept in hand while Postgres is away, before it goes back to the broker."""

LONGEST_PAUSE = 5.0
"""Seconds between two tries to open a bridge: ingest resumes within 10 s of a broker's return."""

TURN = 25
"""Messages that are mapped before others on the event loop have their turn: the batch before, on its way
into the database, first of all."""

MISCONFIGURED_RETRY = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """How a bridge's messages are gathered and kept. `size` and `dead_letter_bytes` are bytes.

    `max_deliveries`: a message that the broker has delivered more often than this, by its own count,
    becomes a dead letter (None: no limit; nothing of ours fails a message twice).
    """

    count: int = 500
    size: int = 8 * 1024 * 1024
    linger: timedelta = timedelta(milliseconds=5)
    wait: timedelta = timedelta(seconds=1)
    dead_letter_bytes: int = 1024 * 1024
    dedupe_window: timedelta = timedelta(days=14)
    max_deliveries: int | None = None


@dataclass(slots=True)
class IntakeCounts:
    """What came in since the start; read by telemetry."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    filtered: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    seconds: float = 0.0
    """Time from a pull to its settling, summed over batches."""
    reconnects: int = 0


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one pull brought, in its order, and when (on the monotonic clock)."""

    deliveries: Sequence[Delivery]
    items: list[Item]
    started: float


class Intake:
    """One bridge's way into the database, supervised: it reconnects, holds and resumes by itself.

    A permanent property of a message makes a dead letter, and the bridge goes on; a property of the
    world (Postgres or the broker away, a wrong setting) holds the bridge, and nothing is lost.
    """

    def __init__(
        self,
        database: Database,
        bridge: Bridge,
        decoder: Decoder,
        mapper: Mapper,
        limits: IntakeLimits | None = None,
        *,
        kind: str = "",
    ) -> None:
        self.bridge = bridge
        self.status = Status()
        self.counts = IntakeCounts()
        self._database = database
        self._decoder = decoder
        self._mapper = mapper
        self._limits = limits or IntakeLimits()
        self._kind = kind or type(bridge).__name__
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Pull nothing more; what is in hand is stored and settled. Idempotent."""
        self._stopping.set()

    async def run(self) -> None:
        """Ingest until `stop()`; never raises for what the broker, the database or a message does."""
        backoff = Backoff(longest=LONGEST_PAUSE)
        while not self._stopping.is_set():
            pause = await self._session(backoff)
            with suppress(TimeoutError):
                async with asyncio.timeout(pause):
                    await self._stopping.wait()
        self.status.stopped()

    async def row_for(self, message: Message) -> tuple[object, ...] | None:
        """What a message becomes, as a row of enqueue.sql; None when it is filtered out. BadMessage."""
        decoded = self._decoder.decode(message)
        job = await self._mapper.map(message, decoded.value, self.bridge.name)
        if job is None:
            return None
        return store.row_of(job, decoded.text if job.payload is decoded.value else None)

    # --- one connection to the broker ---

    async def _session(self, backoff: Backoff) -> float:
        """Open, pump until something ends it, close; how many seconds to wait before the next."""
        name = self.bridge.name
        try:
            await self._database.fetch("register_bridge", name, self._kind, self._limits.dedupe_window)
            await self.bridge.open()
            self.status.running()
            log.info("bridge open", bridge=name)
            await self._pump(backoff)
        except Misconfigured as error:
            self.status.holding(f"{error}. {error.hint}".rstrip(". "))
            log.error("bridge held: a setting is wrong", bridge=name, error=str(error), hint=error.hint)
            if not self.counts.batches:
                return MISCONFIGURED_RETRY
            # It has worked: a broker that was killed takes connections before it knows its queues again.
        except Unavailable as error:
            self.status.holding(str(error))
            log.warning("bridge held", bridge=name, error=str(error))
        except Exception as error:
            self.status.holding(f"{type(error).__name__}: {error}")
            log.exception("bridge failed", bridge=name)
        finally:
            await self._close()
        self.counts.reconnects += 1
        return backoff.next()

    async def _close(self) -> None:
        try:
            await self.bridge.close()
        except Exception:
            log.exception("bridge did not close cleanly", bridge=self.bridge.name)

    async def _pump(self, backoff: Backoff) -> None:
        """Batch after batch. While one is stored the next is pulled and mapped, as far as it is there, so
        that Python and Postgres work at the same time. A message that comes alone is not kept waiting for
        others, unless others came with the one before."""
        limits = self._limits
        gather = Want(count=limits.count, size=limits.size, wait=limits.wait, linger=limits.linger)
        prompt = replace(gather, linger=timedelta(0))
        at_once = replace(prompt, wait=timedelta(0))
        batch, want = None, prompt
        while batch is not None or not self._stopping.is_set():
            if batch is None:
                batch = await self._take(want)
                continue
            want = prompt if len(batch.deliveries) == 1 else gather
            stored, ahead = await asyncio.gather(
                self._until_stored(batch.items), self._take(at_once), return_exceptions=True
            )
            if isinstance(stored, BaseException):
                also = ahead.deliveries if isinstance(ahead, _Batch) else ()
                await self._release([*batch.deliveries, *also])
                raise stored
            await self._settle(batch, stored)
            backoff.reset()
            if isinstance(ahead, BaseException):
                raise ahead
            batch = ahead

    async def _take(self, want: Want) -> _Batch | None:
        """Pull the next deliveries and map them. Where the world is in the way, they go back."""
        if self._stopping.is_set() or not (deliveries := await self.bridge.pull(want)):
            return None
        started = time.monotonic()
        await reach("intake.pulled")
        try:
            return _Batch(deliveries, await self._prepare_all(deliveries), started)
        except HammerworkError:
            await self._release(deliveries)
            raise

    async def _settle(self, batch: _Batch, receipts: Sequence[Receipt]) -> None:
        await reach("intake.committed")
        await self.bridge.settle(receipts)
        await reach("intake.settled")
        self._count(receipts, time.monotonic() - batch.started)
        self.status.progressed()

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        with suppress(Disconnected):
            await self.bridge.release(deliveries)

    # --- from a delivery to what is to be stored ---

    async def _prepare_all(self, deliveries: Sequence[Delivery]) -> list[Item]:
        if self._mapper.waits:
            return await asyncio.gather(*map(self._prepare, deliveries))
        items = []
        for start in range(0, len(deliveries), TURN):
            items += [await self._prepare(delivery) for delivery in deliveries[start : start + TURN]]
            await asyncio.sleep(0)
        return items

    async def _prepare(self, delivery: Delivery) -> Item:
        message = delivery.message
        item = Item(delivery)
        try:
            self._refuse_poison(message)
            item.row = await self.row_for(message)
        except BadMessage as bad:
            item.refuse(bad)
        except Misconfigured as error:
            item.refuse(BadMessage("mapping_failed", str(error)))
        except (HammerworkError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            # Nobody foresaw this message. Held, it would come again and break the bridge again, for ever.
            log.exception("a message cannot be mapped", bridge=self.bridge.name)
            item.refuse(BadMessage("mapping_failed", printable(f"{type(error).__name__}: {error}")))
        return item

    def _refuse_poison(self, message: Message) -> None:
        most = self._limits.max_deliveries
        if most is not None and message.attempt is not None and message.attempt > most:
            raise BadMessage("too_many_deliveries", f"delivered {message.attempt} times, allowed are {most}")

    # --- the transaction ---

    async def _until_stored(self, items: list[Item]) -> list[Receipt]:
        """Store the batch, again when its COMMIT is unknown or Postgres is away for a moment.

        Ids are made before the first try, so a batch that was stored after all meets its own rows.
        Raises Unavailable when Postgres stays away longer than HOLD.
        """
        backoff, deadline = Backoff(first=0.05, longest=1.0), time.monotonic() + HOLD
        again = False
        while True:
            try:
                return await self._store(items, again=again)
            except Unavailable as error:
                if time.monotonic() > deadline or self._stopping.is_set():
                    raise
                self.status.holding(str(error))
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
            return [*await self._until_stored(items[:middle]), *await self._until_stored(items[middle:])]
        (item,) = items
        if item.bad is not None:
            raise Unavailable(f"a dead letter cannot be stored: {describe(error)}") from error
        item.refuse(BadMessage("refused_by_postgres", describe(error)))
        return await self._until_stored(items)

    async def _store(self, items: list[Item], *, again: bool) -> list[Receipt]:
        """One transaction: identities, jobs and dead letters. The receipts hold once this has returned."""
        async with self._database.transaction() as connection:
            known = await self._deduplicate(connection, [item for item in items if not item.filtered])
            fresh = [item for item in items if id(item) not in known]
            rows = [item.row for item in fresh if item.row is not None]
            if again:
                rows = await store.not_stored(connection, rows)
            enqueue = store.enqueue_fresh if not again and self._database.reachable else store.enqueue
            await enqueue(connection, rows, announce=sorted({str(row[1]) for row in rows}))
            burials = [item.burial(item.bad) for item in fresh if item.bad is not None]
            await bury(connection, self.bridge.name, burials, self._limits.dead_letter_bytes)
            await reach("intake.before_commit")
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
        name, items = self.bridge.name, list(first.values())
        new = await connection.fetch(
            statement("inbox_insert"), name, list(first), [i.job_id for i in items], [i.digest for i in items]
        )
        missing = first.keys() - {row["message_id"] for row in new}
        if not missing:
            return {}
        rows = await connection.fetch(statement("inbox_known"), name, list(missing))
        return {row["message_id"]: (row["body_sha256"], row["job_id"]) for row in rows}

    def _count(self, receipts: Sequence[Receipt], seconds: float) -> None:
        counts = self.counts
        counts.batches += 1
        counts.seconds += seconds
        counts.received += len(receipts)
        for receipt in receipts:
            match receipt.fate:
                case Fate.STORED:
                    counts.stored += 1
                case Fate.DUPLICATE:
                    counts.duplicates += 1
                case Fate.FILTERED:
                    counts.filtered += 1
                case Fate.DEAD_LETTERED:
                    counts.dead_lettered[str(receipt.reason)] += 1
