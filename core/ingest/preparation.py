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
from .mapping import Mapper

log = structlog.get_logger(__name__)

Tombstones = Literal["skip", "cancel", "enqueue"]
"""What a tombstone does, a key without a body: nothing, cancel the latest job of its key, or become a job
whose payload is null."""

TURN = 25
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

    async def row_for(self, message: Message) -> tuple[object, ...] | None:
        """What a message becomes, as a row of enqueue.sql; None when it is filtered out. BadMessage."""
        await self._decoder.ready((message,))
        return await self._row(message)

    async def _row(self, message: Message) -> tuple[object, ...] | None:
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

    async def prepare(self, deliveries: Sequence[Delivery]) -> list[Item]:
        """The items of these deliveries, in their order. Raises Unavailable for what the world lacks, and
        Misconfigured where a schema registry refuses us."""
        await self._decoder.ready(delivery.message for delivery in deliveries)
        if self._mapper.waits:
            return await asyncio.gather(*map(self._item, deliveries))
        items = []
        for start in range(0, len(deliveries), TURN):
            items += [await self._item(delivery) for delivery in deliveries[start : start + TURN]]
            await asyncio.sleep(0)
        return items

    async def _item(self, delivery: Delivery) -> Item:
        message = delivery.message
        item = Item(delivery)
        try:
            if delivery.refused is not None:
                raise delivery.refused
            self._refuse_poison(message)
            item.row = await self._row(message)
        except BadMessage as bad:
            item.refuse(bad)
        except Misconfigured as error:
            item.refuse(BadMessage("mapping_failed", str(error)))
        except (HammerworkError, MemoryError):
            raise
        except (Exception, SystemExit) as error:
            # Nobody foresaw this message. Held, it would come again and break the bridge again, for ever.
            log.exception("a message cannot be mapped", bridge=self._bridge)
            item.refuse(BadMessage("mapping_failed", printable(f"{type(error).__name__}: {error}")))
        return item

    def _refuse_poison(self, message: Message) -> None:
        most = self._max_deliveries
        if most is not None and message.attempt is not None and message.attempt > most:
            raise BadMessage("too_many_deliveries", f"delivered {message.attempt} times, allowed are {most}")
