"""Preparation: from a delivery to what is to be stored of it, a job, a dead letter or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Literal

import structlog

from ..errors import BadMessage, HammerworkError, Misconfigured
from ..message import Delivery, Message
from ..postgres import store
from .decode import Decoder
from .fields import printable
from .item import Item
from .mapping import FieldMapping, Mapper
from .plain import PlainRows

log = structlog.get_logger(__name__)

Tombstones = Literal["skip", "cancel", "enqueue"]
"""What a tombstone does, a key without a body: nothing, cancel the latest job of its key, or become a job
whose payload is null."""

TURN = 50
"""Messages that are mapped before others on the event loop have their turn: the batch before, on its way
into the database, first of all."""


class Preparation:
    """One bridge's decoder and mapping, and its rules for what is refused. It connects to nothing.

    `max_deliveries`: a message that the broker has delivered more often than this, by its own count, is
    refused (None: no limit).
    """

    def __init__(
        self,
        bridge: str,
        decoder: Decoder,
        mapper: Mapper,
        *,
        max_deliveries: int | None = None,
        tombstones: Tombstones = "skip",
    ) -> None:
        self._bridge = bridge
        self._decoder = decoder
        self._mapper = mapper
        self._max_deliveries = max_deliveries
        self._tombstones = tombstones
        self._plain = mapper.plain(bridge) if isinstance(mapper, FieldMapping) else None

    async def row_for(self, message: Message) -> tuple[object, ...] | None:
        """What a message becomes, as a row of enqueue.sql; None when it is filtered out. BadMessage."""
        await self._decoder.ready((message,))
        return await self._row(message)

    async def prepare(self, deliveries: Sequence[Delivery]) -> list[Item]:
        """The items of these deliveries, in their order. Raises Unavailable for what the world lacks, and
        Misconfigured where a schema registry refuses us."""
        await self._decoder.ready(delivery.message for delivery in deliveries)
        if self._mapper.waits:
            return await asyncio.gather(*map(self._item, deliveries))
        items: list[Item] = []
        for start in range(0, len(deliveries), TURN):
            turn = deliveries[start : start + TURN]
            if self._plain is None:
                items += [await self._item(delivery) for delivery in turn]
            else:
                items += [self._plain_item(delivery, self._plain) for delivery in turn]
            await asyncio.sleep(0)
        return items

    async def _item(self, delivery: Delivery) -> Item:
        item = Item(delivery)
        try:
            self._refuse_unread(delivery)
            item.row = await self._row(delivery.message)
        except (Exception, SystemExit) as error:
            self._blame(item, error)
        return item

    def _plain_item(self, delivery: Delivery, plain: PlainRows) -> Item:
        """As `_item`, without a coroutine a message."""
        item = Item(delivery)
        try:
            self._refuse_unread(delivery)
            item.row = self._plain_row(delivery.message, plain)
        except (Exception, SystemExit) as error:
            self._blame(item, error)
        return item

    async def _row(self, message: Message) -> tuple[object, ...] | None:
        if self._plain is not None:
            return self._plain_row(message, self._plain)
        if message.tombstone:
            if self._tombstones != "enqueue":
                return None
            job = await self._mapper.map(message, None, self._bridge)
            return None if job is None else store.row_of(job)
        decoded = self._decoder.decode(message)
        job = await self._mapper.map(message, decoded.value, self._bridge)
        if job is None:
            return None
        return store.row_of(job, decoded.text if job.payload is decoded.value else None)

    def _plain_row(self, message: Message, plain: PlainRows) -> tuple[object, ...] | None:
        if not message.tombstone:
            return plain.row(message, self._decoder.decode(message).text)
        return plain.row(message, "null") if self._tombstones == "enqueue" else None

    def _refuse_unread(self, delivery: Delivery) -> None:
        """Raise BadMessage for what its bridge refuses, and for poison."""
        if delivery.refused is not None:
            raise delivery.refused
        most, attempt = self._max_deliveries, delivery.message.attempt
        if most is not None and attempt is not None and attempt > most:
            raise BadMessage("too_many_deliveries", f"delivered {attempt} times, allowed are {most}")

    def _blame(self, item: Item, error: BaseException) -> None:
        """The message is refused, unless the world is to blame: then the error goes on."""
        match error:
            case BadMessage():
                item.refuse(error)
            case Misconfigured():
                item.refuse(BadMessage("mapping_failed", str(error)))
            case HammerworkError() | MemoryError():
                raise error
            case _:
                # Nobody foresaw this message. Held, it would come again and break the bridge again, for ever.
                log.exception("a message cannot be mapped", bridge=self._bridge)
                item.refuse(BadMessage("mapping_failed", printable(f"{type(error).__name__}: {error}")))
