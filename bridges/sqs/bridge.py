"""SqsBridge: one SQS queue, standard or FIFO, as a source of messages."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, assert_never

import structlog

from ...clients.identity import JsonIdentity
from ...core.errors import Disconnected, MissingExtra
from ...core.message import EXACTLY_ONCE, BridgeCapabilities, Delivery, Guarantee, Receipt, Want
from .options import MOST_A_CALL, AttributeIdentity, SqsOptions

if TYPE_CHECKING:
    from .session import Session, Topology

log = structlog.get_logger(__name__)

DAY = 86_400
SHORT_VISIBILITY = 15.0
CLOSE_WITHIN = 4.0
"""Seconds that a close takes at most; polls that are under way then end behind it."""

LOOK = timedelta(seconds=1)


class SqsBridge:
    """Implements `core.message.Bridge` for one queue.

    Several long polls fill one buffer. Everything that is held is kept hidden from others until it is deleted
    or handed back; a poll that was begun is let end by itself, after the close if need be. Raises
    MissingExtra where the client is not installed.
    """

    Options = SqsOptions
    capabilities = BridgeCapabilities(
        stable_ids=True,
        counts_deliveries=True,
        lease="renewed",
        carries=frozenset({"headers", "content_type"}),
        largest=1024 * 1024,
    )

    def __init__(self, name: str, options: SqsOptions) -> None:
        self.name = name
        self._options = options
        self._session_type = _client()
        self._session: Session | None = None
        self._closing: set[asyncio.Task[None]] = set()
        """Sessions that wait for their last polls, beside the one that may be open by now."""

    async def open(self) -> None:
        await self.close()
        self._session = await self._session_type.open(self.name, self._options)
        log.info("sqs.opened", bridge=self.name, queue=self._session.topology.queue)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        return await self._alive().pull(want)

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        if self._session is not None:
            await self._session.settle(receipts)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if self._session is not None:
            await self._session.release(deliveries)

    async def rest(self) -> None:
        """What waits in the buffer goes back; polls that were begun may bring more, which goes back at the
        next call."""
        await self._alive().release([])

    async def lag(self) -> int | None:
        return await self._alive().lag()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            closing = asyncio.create_task(session.close(), name=f"sqs {self.name} close")
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            await asyncio.wait({closing}, timeout=CLOSE_WITHIN)

    def tap(self, most: int, kept: Mapping[str, int | None]) -> SqsBridge:
        """One poller with short polls that receives no more than that, in tens. SQS counts a receive of each,
        which a redrive policy sees, and a FIFO queue gives nobody the rest of their groups meanwhile."""
        looking = {"pollers": 1, "wait": LOOK, "prefetch": max(MOST_A_CALL, most)}
        return SqsBridge(f"{self.name} (tap)", self._options.model_copy(update=looking))

    async def guarantee(self) -> Guarantee:
        session = await self._session_type.open(self.name, self._options)
        try:
            return _guarantee(self._options, session.topology)
        finally:
            await session.close()

    def _alive(self) -> Session:
        session = self._session
        if session is None:
            raise Disconnected("the bridge is not open")
        session.check()
        return session


def _client() -> type[Session]:
    try:
        from .session import Session
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"aiobotocore", "botocore"}:
            raise MissingExtra("the SQS bridge", "aws") from error
        raise
    return Session


def _guarantee(options: SqsOptions, topology: Topology) -> Guarantee:
    match options.identity:
        case "message_id":
            because = "SQS keeps a message's id over redeliveries; sent twice, it is two messages"
        case "deduplication_id":
            because = "the producer's deduplication id names a message"
        case "envelope_id":
            because = "the envelope's id names a message"
        case AttributeIdentity(attribute=name):
            because = f"the attribute {name} names a message; without it SQS's own id does"
        case JsonIdentity(pointer=pointer):
            because = f"the body's {pointer} names a message; without it SQS's own id does"
        case other:
            assert_never(other)
    because += f"; the queue keeps messages for {topology.retention / DAY:g} days, dedupe_window no less"
    return Guarantee(EXACTLY_ONCE, because, tuple(_warnings(options, topology)))


def _warnings(options: SqsOptions, topology: Topology) -> Iterator[str]:
    most = topology.most_receives
    if most == 1:
        yield "maxReceiveCount is 1: one lost answer and SQS takes a good message for poison; set 5 or more"
    elif most is not None and most < 4:
        yield f"maxReceiveCount is {most}: a gateway that is restarted as often moves good messages away"
    if options.prefetch < MOST_A_CALL * options.pollers:
        yield f"prefetch {options.prefetch} is less than {options.pollers} pollers bring: some never poll"
    if options.visibility.total_seconds() < SHORT_VISIBILITY:
        yield "visibility is so short that a slow call of AWS lets messages come twice"
    if options.delete_payloads and options.unwrap in ("sns", "auto"):
        yield "delete_payloads deletes objects that other subscribers of the topic may still need"
