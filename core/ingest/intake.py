"""Intake: deliveries are decoded, mapped and stored in one transaction; only then the broker hears of it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import timedelta

import structlog

from ..backoff import Backoff
from ..cancellation import asked_to_end
from ..errors import Disconnected, HammerworkError, Misconfigured, Unavailable
from ..failpoints import reach
from ..message import EXACTLY_ONCE, Bridge, Delivery, Fate, LogBridge, Receipt, Want
from ..postgres.database import Database
from ..status import Status
from .decode import Decoder
from .flow import Circuit, Flow, FlowLimits
from .item import Item
from .mapping import Mapper
from .offsets import KeptOffsets
from .preparation import Preparation, Tombstones
from .storing import Storing

log = structlog.get_logger(__name__)

LONGEST_PAUSE = 5.0
"""Seconds between two tries to open a bridge: ingest resumes within 10 s of a broker's return."""

MISCONFIGURED_RETRY = 30.0

LAG_EVERY = 10.0
"""Seconds between two looks at how many messages wait at the broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeLimits:
    """How a bridge's messages are gathered and kept. `size` and `dead_letter_bytes` are bytes.

    `max_deliveries`: a message that the broker has delivered more often than this, by its own count,
    becomes a dead letter (None: no limit; nothing of ours fails a message twice). `exactly_once`: the bridge
    is held unless it promises that.
    """

    count: int = 500
    size: int = 8 * 1024 * 1024
    linger: timedelta = timedelta(milliseconds=5)
    wait: timedelta = timedelta(seconds=1)
    dead_letter_bytes: int = 1024 * 1024
    dedupe_window: timedelta = timedelta(days=14)
    max_deliveries: int | None = None
    tombstones: Tombstones = "skip"
    exactly_once: bool = False


@dataclass(slots=True)
class IntakeCounts:
    """What came in since the start; read for metrics."""

    received: int = 0
    stored: int = 0
    duplicates: int = 0
    filtered: int = 0
    dead_lettered: Counter[str] = field(default_factory=Counter)
    batches: int = 0
    seconds: float = 0.0
    """Time from a pull to its settling, summed over batches."""
    reconnects: int = 0
    stalls: int = 0
    lag: int | None = None
    """How many messages waited at the broker when it was last asked; None where it does not tell."""

    def add(self, receipts: Sequence[Receipt], seconds: float) -> None:
        """A batch is stored and settled."""
        self.batches += 1
        self.seconds += seconds
        fates = Counter([receipt.fate for receipt in receipts])
        self.received += len(receipts)
        self.stored += fates[Fate.STORED]
        self.duplicates += fates[Fate.DUPLICATE]
        self.filtered += fates[Fate.FILTERED]
        if fates[Fate.DEAD_LETTERED]:
            self.dead_lettered.update(str(r.reason) for r in receipts if r.fate is Fate.DEAD_LETTERED)


@dataclass(frozen=True, slots=True)
class _Batch:
    """What one pull brought, in its order, and when (on the monotonic clock)."""

    deliveries: Sequence[Delivery]
    items: list[Item]
    started: float


class Intake:
    """One bridge's way into the database, supervised: it reconnects, holds and resumes by itself.

    A permanent property of a message makes a dead letter, and the bridge goes on; a property of the
    world (Postgres or the broker away, a wrong setting) holds the bridge, and nothing is lost. While the
    flow says so the bridge rests: connected, and nothing is pulled. `feeds` are queues that its jobs are
    known to go to.
    """

    def __init__(
        self,
        database: Database,
        bridge: Bridge,
        decoder: Decoder,
        mapper: Mapper,
        limits: IntakeLimits | None = None,
        *,
        flow: FlowLimits | None = None,
        feeds: Sequence[str] = (),
        kind: str = "",
    ) -> None:
        self.bridge = bridge
        self.status = Status()
        self.counts = IntakeCounts()
        self._database = database
        self._limits = limits = limits or IntakeLimits()
        self._flow_limits = flow or FlowLimits()
        self._flow = Flow(database, bridge.name, self._flow_limits, feeds)
        self._circuit = Circuit(self._flow_limits)
        self._offsets = _kept_for(bridge, database)
        self._preparation = Preparation(
            bridge.name,
            decoder,
            mapper,
            max_deliveries=limits.max_deliveries,
            tombstones=limits.tombstones,
        )
        self._storing = Storing(
            database,
            bridge.name,
            dead_letter_bytes=limits.dead_letter_bytes,
            offsets=self._offsets,
            follows_keys=limits.tombstones == "cancel",
            give_up=lambda: self._stopping.is_set(),
            held=self.status.holding,
        )
        self._kind = kind or type(bridge).__name__
        self._resting = False
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Pull nothing more; what is in hand is stored and settled. Idempotent."""
        self._stopping.set()

    async def run(self) -> None:
        """Ingest until `stop()`; never raises for what the broker, the database or a message does."""
        backoff = Backoff(longest=LONGEST_PAUSE)
        while not self._stopping.is_set():
            await self._rest_for(await self._session(backoff))
        self.status.stopped()

    # --- one connection to the broker ---

    async def _session(self, backoff: Backoff) -> float:
        """Open, pump until something ends it, close; how many seconds to wait before the next."""
        name = self.bridge.name
        try:
            await self._database.fetch("register_bridge", name, self._kind, self._limits.dedupe_window)
            if self._limits.exactly_once:
                await self._require_exactly_once()
            await self.bridge.open()
            self.status.running()
            log.info("bridge open", bridge=name)
            await self._watched(self._pump(backoff))
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
        except asyncio.CancelledError:
            if asked_to_end():
                raise
            self.status.holding("a client cancelled its own call")
            log.exception("bridge failed", bridge=name)
        finally:
            await self._close()
        self.counts.reconnects += 1
        return backoff.next()

    async def _require_exactly_once(self) -> None:
        """The broker's topology may change while we run, so it is asked before every `open`."""
        found = await self.bridge.guarantee()
        if found.level != EXACTLY_ONCE:
            raise Misconfigured(
                f"guarantee = 'exactly_once' is asked, but it is {found.level}: {found.because}",
                hint="; ".join(found.warnings) or "or set guarantee = 'at_least_once'",
            )

    async def _close(self) -> None:
        try:
            await self.bridge.close()
        except Exception:
            log.exception("bridge did not close cleanly", bridge=self.bridge.name)
        if self._offsets is not None:
            self._offsets.leave_all()

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
                self._storing.until_stored(batch.items), self._take(at_once), return_exceptions=True
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
        """Pull the next deliveries and map them, or rest if that is to be. Where the world is in the way,
        they go back."""
        if self._stopping.is_set():
            return None
        if (reason := await self._flow.look()) is not None:
            await self._rest(reason, want)
            return None
        if self._resting:
            await self._go_on()
        count = self._flow.most(want.count)
        if not count:
            await self._rest_for(0.05 if want.wait else 0.0)
            return None
        deliveries = await self.bridge.pull(want if count == want.count else replace(want, count=count))
        if not deliveries:
            return None
        self._flow.took(len(deliveries))
        started = time.monotonic()
        await reach("intake.pulled")
        try:
            return _Batch(deliveries, await self._items(deliveries), started)
        except HammerworkError:
            await self._release(deliveries)
            raise

    async def _items(self, deliveries: Sequence[Delivery]) -> list[Item]:
        """What is to be stored of them. Of a log: without what was stored before, or is not ours."""
        offsets = self._offsets
        if offsets is None:
            return await self._preparation.prepare(deliveries)
        ours, fences = offsets.fenced(deliveries)
        items = await self._preparation.prepare(ours)
        for item, fence in zip(items, fences, strict=True):
            item.fence = fence
        return items

    async def _settle(self, batch: _Batch, receipts: Sequence[Receipt]) -> None:
        await reach("intake.committed")
        await self.bridge.settle(receipts)
        await reach("intake.settled")
        self.counts.add(receipts, time.monotonic() - batch.started)
        self.status.progressed()
        self._flow.fed({str(item.row[1]) for item in batch.items if item.row is not None})
        bad = sum(receipt.fate is Fate.DEAD_LETTERED for receipt in receipts)
        if (reason := self._circuit.count(len(receipts), bad)) is not None:
            await self._open_circuit(reason)
        self._refuse_robbed()

    def _refuse_robbed(self) -> None:
        if self._offsets is not None and self._offsets.robbed:
            partitions = ", ".join(sorted(self._offsets.robbed))
            raise Disconnected(f"somebody else has taken {partitions} meanwhile")

    async def _release(self, deliveries: Sequence[Delivery]) -> None:
        with suppress(Disconnected):
            await self.bridge.release(deliveries)

    # --- holding back ---

    async def _rest(self, reason: str, want: Want) -> None:
        """Nothing is pulled: the bridge stays connected. Only a pull that might wait is worth the time."""
        if not self._resting:
            log.warning("bridge holds back", bridge=self.bridge.name, reason=reason)
        self._resting = True
        self.status.paused(reason)
        await self.bridge.rest()
        if want.wait:
            await self._rest_for(self._flow_limits.look_every.total_seconds())

    async def _go_on(self) -> None:
        self._resting = False
        self.status.running()
        log.info("bridge goes on", bridge=self.bridge.name)
        if self._offsets is not None:
            # An operator may have moved them. Where no more messages come, no store would find out.
            await self._offsets.look()
            self._refuse_robbed()

    async def _rest_for(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    async def _open_circuit(self, reason: str) -> None:
        """For every process, and until an operator resumes the bridge."""
        log.error(
            "bridge paused: too many dead letters", bridge=self.bridge.name, reason=reason,
            hint=f"look at `hammerwork dead list`, then `hammerwork bridge resume {self.bridge.name}`",
        )  # fmt: skip
        await self._database.fetch("pause_bridge", self.bridge.name, reason)
        self._circuit.forget()
        self._flow.look_anew()

    # --- is it stuck? ---

    async def _watched(self, pump: Coroutine[None, None, None]) -> None:
        """Run the pump, and end it when nothing moves although messages wait."""
        pumping = asyncio.create_task(pump, name=f"pump {self.bridge.name}")
        watching = asyncio.create_task(self._watch(), name=f"watch {self.bridge.name}")
        try:
            await asyncio.wait({pumping, watching}, return_when=asyncio.FIRST_COMPLETED)
            if watching.done():
                watching.result()
        finally:
            for task in (pumping, watching):
                task.cancel()
            await asyncio.wait({pumping, watching})
        pumping.result()

    async def _watch(self) -> None:
        """Ask for the lag now and then. Raises Disconnected when there was some, and no progress, for
        `stall_after`."""
        patience = self._flow_limits.stall_after.total_seconds()
        quiet_since = time.monotonic()
        progress = self.status.progress_at
        while True:
            await asyncio.sleep(min(LAG_EVERY, patience / 4))
            lag = self.counts.lag = await self._lag()
            now = time.monotonic()
            moved = self.status.progress_at != progress
            if not lag or moved or self.status.state != "running" or not self._flow.most(1):
                quiet_since, progress = now, self.status.progress_at
            elif now - quiet_since >= patience:
                self.counts.stalls += 1
                raise Disconnected(f"no progress for {now - quiet_since:.0f} s while {lag} messages wait")

    async def _lag(self) -> int | None:
        try:
            async with asyncio.timeout(LAG_EVERY):
                return await self.bridge.lag()
        except (HammerworkError, TimeoutError):
            return None
        except Exception:
            log.exception("a bridge does not tell its lag", bridge=self.bridge.name)
            return None


def _kept_for(bridge: Bridge, database: Database) -> KeptOffsets | None:
    if not isinstance(bridge, LogBridge):
        return None
    offsets = KeptOffsets(database, bridge.name)
    bridge.keep(offsets)
    return offsets
