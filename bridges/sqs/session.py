"""Session: one connection to a queue, with its pollers and what they have received."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Self

import structlog

from ...core.errors import BadMessage, Disconnected, HammerworkError, Misconfigured
from ...core.message import Delivery, Fate, Receipt, Want
from .buffer import Buffer
from .connection import Connection
from .content import Opened, Reader
from .holding import Held, Holding
from .options import MOST_A_CALL, SqsOptions

if TYPE_CHECKING:
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

log = structlog.get_logger(__name__)

MOST_BUFFERED = 32 * 1024 * 1024
"""Bytes that may wait for a pull before the pollers wait for it; what they then bring comes on top."""

GRACE = 3.0
"""Seconds for a poll that should have ended by itself."""

GIVE_BACK_WITHIN = 3.0


class Session:
    """Made by `open`, used until something is raised, and closed. `failure` is what ended it."""

    def __init__(self, connection: Connection, name: str, options: SqsOptions, topology: Topology) -> None:
        self.buffer = Buffer()
        self.topology = topology
        self.failure: Exception | None = None
        self._connection = connection
        self._name = name
        self._options = options
        self._reader = Reader(options, topology.queue, ids_in_groups=topology.ids_in_groups)
        self._holding = Holding(
            connection, name, visibility=options.visibility.total_seconds(), ordered=topology.fifo
        )
        self._polling = 0
        self._receiving = False
        self._ending = False
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._pollers: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, name: str, options: SqsOptions) -> Self:
        """Connect and look at the queue. Nothing is received before the first `receive`."""
        connection = await Connection.open(options)
        try:
            topology = Topology(connection.queue_url, await connection.attributes())
            topology.require(options)
        except BaseException:
            await connection.close()
            raise
        session = cls(connection, name, options, topology)
        session._pollers = [session._start(session._poll(), f"poll {n}") for n in range(options.pollers)]
        session._tasks = [session._start(session._holding.keep_hidden(), "keep hidden")]
        return session

    # --- receive ---

    def receive(self) -> None:
        """Let the pollers poll."""
        self._receiving = True
        self._look_again()

    async def pull(self, want: Want) -> list[Delivery]:
        """What the buffer holds, after as long a wait as is wanted. Raises what ended the session."""
        self.receive()
        await self.buffer.wait(1, 1, want.wait.total_seconds())
        if len(self.buffer):
            await self.buffer.wait(want.count, want.size, want.linger.total_seconds())
        self.check()
        taken = self.buffer.take(want.count, want.size)
        self._look_again()
        return taken

    def check(self) -> None:
        """Raise what ended the session, if it has ended."""
        if self.failure is not None:
            raise self.failure

    def _look_again(self) -> None:
        self._changed.set()

    def _room(self) -> bool:
        expected = len(self._holding) + MOST_A_CALL * (self._polling + 1)
        return self._receiving and expected <= self._options.prefetch and self.buffer.size < MOST_BUFFERED

    async def _poll(self) -> None:
        options = self._options
        while not self._ending:
            if not self._room():
                self._changed.clear()
                await self._changed.wait()
                continue
            self._polling += 1
            try:
                received = await self._connection.receive(options.wait, options.visibility)
            finally:
                self._polling -= 1
            if received:
                await self._take(received)

    async def _take(self, received: Sequence[MessageTypeDef]) -> None:
        """They are held from now on, also while their bodies are fetched from S3."""
        fresh = []
        for raw in received:
            message_id, handle = raw.get("MessageId", ""), raw.get("ReceiptHandle", "")
            if not self._holding.again(message_id, handle):
                held = self._held(message_id, handle, raw)
                self._holding.hold(held)
                fresh.append((raw, held))
        if self._ending:
            await self._give_back(self._holding.all())
            return
        self.buffer.add(await asyncio.gather(*(self._delivery(raw, held) for raw, held in fresh)))

    def _held(self, message_id: str, handle: str, raw: MessageTypeDef) -> Held:
        now = asyncio.get_running_loop().time()
        system: Mapping[str, str] = raw.get("Attributes") or {}  # type: ignore[assignment]
        count = system.get("ApproximateReceiveCount", "")
        return Held(
            id=message_id,
            handle=handle,
            group=system.get("MessageGroupId"),
            attempt=int(count) if count.isdecimal() else 1,
            received_at=now,
            hidden_at=now,
        )

    async def _delivery(self, raw: MessageTypeDef, held: Held) -> Delivery:
        opened: Opened | None = None
        try:
            opened = self._reader.open(raw)
            body = opened.inner.body
            if opened.pointer is not None:
                body = await self._connection.fetch(opened.pointer)
            message = self._reader.message(opened, body)
        except BadMessage as bad:
            pointer = None if opened is None else opened.pointer
            return Delivery(self._reader.refused(raw, pointer=pointer), held, refused=bad)
        held.payload = opened.pointer
        return Delivery(message, held)

    # --- settle, give back ---

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        """Delete what is stored, and then the objects that nobody needs any more."""
        deleted = set(map(id, await self._holding.delete([receipt.delivery.handle for receipt in receipts])))
        self._look_again()
        if self._options.delete_payloads:
            for receipt in receipts:
                held: Held = receipt.delivery.handle
                if id(held) in deleted and held.payload and not _lies_in_a_letter(receipt):
                    await self._delete_object(held)

    async def _delete_object(self, held: Held) -> None:
        assert held.payload is not None
        try:
            await self._connection.delete_object(held.payload)
        except (Disconnected, Misconfigured) as error:
            log.warning("sqs.object_left", bridge=self._name, object=str(held.payload), error=str(error))

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Poll no more, and give back these and all that wait in the buffer. Best effort."""
        self._receiving = False
        waiting = self.buffer.take(len(self.buffer), self.buffer.size)
        await self._give_back([delivery.handle for delivery in (*deliveries, *waiting)])

    async def _give_back(self, entries: Sequence[Held]) -> None:
        with suppress(Disconnected, Misconfigured, TimeoutError):
            async with asyncio.timeout(GIVE_BACK_WITHIN):
                await self._holding.give_back(entries)

    async def lag(self) -> int:
        attributes = await self._connection.attributes()
        return int(attributes.get("ApproximateNumberOfMessages", 0)) + len(self.buffer)

    # --- the end ---

    async def close(self) -> None:
        """Give back everything, let the polls end, disconnect. A pull that is under way raises.

        A poll that is cut would leave messages hidden that nobody has. What it brings now goes back at once.
        """
        self._ending, self._receiving = True, False
        self.failure = self.failure or Disconnected("the bridge was closed")
        self.buffer.wake()
        self._look_again()
        try:
            await self._give_back(self._holding.all())
            await asyncio.wait(self._pollers, timeout=self._options.wait.total_seconds() + GRACE)
        finally:
            if cut := sum(poller.cancelled() or not poller.done() for poller in self._pollers):
                hidden = self._options.visibility.total_seconds()
                log.warning("sqs.polls_cut", bridge=self._name, polls=cut, hidden_for=hidden)
            tasks = [*self._pollers, *self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._connection.close()

    def _start(self, work: Coroutine[None, None, None], what: str) -> asyncio.Task[None]:
        return asyncio.create_task(self._guarded(work), name=f"sqs {self._name} {what}")

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        """What ends a task ends the session; the next call hears of it."""
        try:
            await work
        except Exception as error:
            if not isinstance(error, HammerworkError):
                log.exception("sqs.failed", bridge=self._name)
            self.failure = self.failure or error
            self.buffer.wake()


def _lies_in_a_letter(receipt: Receipt) -> bool:
    """Whether a dead letter was made of the message, now or when it came before. Then its object stays, for
    the letter may hold the start of it only."""
    before = receipt.fate is Fate.DUPLICATE and receipt.job_id is None
    return before or receipt.fate is Fate.DEAD_LETTERED


class Topology:
    """What a queue says of itself."""

    def __init__(self, url: str, attributes: Mapping[str, str]) -> None:
        self.queue = url.rpartition("/")[2]
        self.fifo = attributes.get("FifoQueue") == "true" or self.queue.endswith(".fifo")
        self.ids_in_groups = attributes.get("DeduplicationScope") == "messageGroup"
        self.retention = int(attributes.get("MessageRetentionPeriod", 345_600))
        self.most_receives = _most_receives(attributes.get("RedrivePolicy"))
        """How often SQS delivers a message before it puts it into the dead-letter queue; None: for ever."""

    def require(self, options: SqsOptions) -> None:
        """Raise Misconfigured where the options need another queue."""
        if options.identity == "deduplication_id" and not self.fifo:
            raise Misconfigured(
                f"{self.queue} is no FIFO queue, so its messages have no deduplication id",
                hint="set identity to message_id, an attribute or a JSON pointer",
            )


def _most_receives(policy: str | None) -> int | None:
    try:
        return int(json.loads(policy or "")["maxReceiveCount"])
    except (ValueError, KeyError, TypeError):
        return None
