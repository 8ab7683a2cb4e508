"""Bridges of the spool, each with one fault that an author might make: what the kit is there to find."""

from __future__ import annotations

import asyncio
import base64
import random
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

import structlog

from hammerwork.plugins import (
    BadMessage,
    Delivery,
    Disconnected,
    Fate,
    Guarantee,
    Misconfigured,
    Options,
    Receipt,
    Want,
)

from .spool import SpoolBridge, SpoolOptions

log = structlog.get_logger(__name__)


class OpensOnce(SpoolBridge):
    """Keeps a sign of its first life."""

    _closed = False

    async def open(self) -> None:
        if self._closed:
            raise RuntimeError("it was closed")
        await super().open()

    async def close(self) -> None:
        self._closed = self._closed or self._link is not None
        await super().close()


class Greedy(SpoolBridge):
    """Takes what there is, whatever was wanted."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        return await super().pull(replace(want, count=1000))


class Heavy(SpoolBridge):
    """Has not heard of sizes."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        return await super().pull(replace(want, size=10**9))


class Slow(SpoolBridge):
    """Waits for as long as it pleases."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        return await super().pull(replace(want, wait=timedelta(seconds=1.2)))


class Endless(SpoolBridge):
    """A pull that does not notice that its bridge was closed."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        while True:
            with suppress(Disconnected):
                if (came := await super().pull(want)) or want.wait < timedelta(minutes=1):
                    return came
            await asyncio.sleep(0.05)


class Deaf(SpoolBridge):
    """Takes a broker that is gone for one that has nothing to say."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        try:
            return await super().pull(want)
        except Disconnected:
            await asyncio.sleep(want.wait.total_seconds())
            return []

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        with suppress(Disconnected):
            await super().settle(receipts)


class Hasty(SpoolBridge):
    """Acknowledges what it has only just received."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deliveries = await super().pull(want)
        if deliveries:
            await super().settle([Receipt(delivery, Fate.STORED) for delivery in deliveries])
        return deliveries


class Lazy(SpoolBridge):
    """Never acknowledges anything."""

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        return


class Sweeping(SpoolBridge):
    """Acknowledges all that it has in hand, not only what is settled."""

    _handles: tuple[int, ...] = ()

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deliveries = await super().pull(want)
        self._handles += tuple(delivery.handle for delivery in deliveries)
        return deliveries

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        await self.link.ask(do="done", handles=self._handles)


class Renumbering(SpoolBridge):
    """Names deliveries by numbers that begin anew with every connection."""

    _numbers: list[int]

    async def open(self) -> None:
        self._numbers = []
        await super().open()

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        self._numbers.append(fields["handle"])
        return super().delivery(fields)._replace(handle=len(self._numbers) - 1)

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        numbers = [receipt.delivery.handle for receipt in receipts]
        await self.link.ask(do="done", handles=[self._numbers[n] for n in numbers if n < len(self._numbers)])

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self.link.ask(do="back", handles=self._numbers)


class Forgetful(SpoolBridge):
    """Throws away what is released."""

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        await self.link.ask(do="done", handles=[delivery.handle for delivery in deliveries])


class Heartless(SpoolBridge):
    """Says that it prolongs its leases, and does not."""

    async def beat(self, link: Any) -> None:
        return


class Wasteful(SpoolBridge):
    """Throws away what it had received ahead when it is to rest."""

    async def rest(self) -> None:
        ahead, self._buffer = self._buffer, []
        await self.link.ask(do="done", handles=[delivery.handle for delivery in ahead])


class Hoarding(SpoolBridge):
    """Keeps what it received ahead while it rests."""

    async def rest(self) -> None:
        return


class Miscounting(SpoolBridge):
    """Counts by taking the messages out."""

    async def lag(self) -> int | None:
        return len(await self.link.ask(do="get", count=1000, wait=0))


class Renaming(SpoolBridge):
    """Gives every delivery an identity of its own."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        found = super().delivery(fields)
        return found._replace(message=found.message._replace(id=secrets.token_hex(8)))


class Uncounting(SpoolBridge):
    """Says that it counts deliveries, and calls each of them the first."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        found = super().delivery(fields)
        return found._replace(message=found.message._replace(attempt=1))


class Shuffling(SpoolBridge):
    """Gives messages in any order."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        deliveries = list(await super().pull(want))
        random.Random(1).shuffle(deliveries)
        return deliveries


class Boasting(SpoolBridge):
    """Promises more than there is."""

    async def guarantee(self) -> Guarantee:
        return Guarantee("exactly-once", "we are good")


class Decoding(SpoolBridge):
    """Decodes bodies as text, which is not its work."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        text = base64.b64decode(fields["body"]).decode(errors="replace")
        return super().delivery({**fields, "body": base64.b64encode(text.encode()).decode()})


class Stripping(SpoolBridge):
    """Tidies bodies up."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        body = base64.b64decode(fields["body"]).strip(b"\0 \r\n")
        return super().delivery({**fields, "body": base64.b64encode(body).decode()})


class Cutting(SpoolBridge):
    """Has a buffer of 64 KiB."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        body = base64.b64decode(fields["body"])[: 64 * 1024]
        return super().delivery({**fields, "body": base64.b64encode(body).decode()})


class Latin(SpoolBridge):
    """Reads headers in an old encoding."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        headers = {name: str(value).encode().decode("latin-1") for name, value in fields["headers"].items()}
        return super().delivery({**fields, "headers": headers})


class Raw(SpoolBridge):
    """Leaves bytes in its coordinates."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        found = super().delivery(fields)
        return found._replace(message=found.message._replace(coordinates={"tag": b"\xff"}))


class Keyless(SpoolBridge):
    """Says that it carries keys, and loses them."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        return super().delivery({**fields, "key": None})


class Talkative(SpoolBridge):
    """Logs whom it connects to, all of it."""

    async def open(self) -> None:
        await super().open()
        log.info("spool.opened", password=self._options.password.get_secret_value())


class Showing(SpoolBridge):
    """Shows what it was made of."""

    def __repr__(self) -> str:
        return f"Showing({self.name!r}, {self._options.password.get_secret_value()!r})"


class Blaming(SpoolBridge):
    """Says in its errors what it has tried, all of it."""

    async def connect(self) -> Any:
        try:
            return await super().connect()
        except Disconnected as error:
            raise Disconnected(f"{error} with {self._options.password.get_secret_value()}") from None


class Jealous(SpoolBridge):
    """Wants the queue for itself."""

    _reader: SpoolBridge | None = None

    async def open(self) -> None:
        await super().open()
        if Jealous._reader is not None:
            raise Misconfigured("somebody else reads this queue")
        Jealous._reader = self

    async def close(self) -> None:
        if Jealous._reader is self:
            Jealous._reader = None
        await super().close()


class OpenOptions(Options):
    """The password is plain text."""

    port: int
    password: str
    ahead: int = 4
    tags: tuple[str, ...] = ()


class OpenHearted(SpoolBridge):
    """Has options that print their password."""

    Options = OpenOptions  # type: ignore[assignment]

    def __init__(self, name: str, options: OpenOptions) -> None:
        super().__init__(name, SpoolOptions.model_validate(options.model_dump()))


class UntypedOptions(SpoolOptions):
    """Says of its tags nothing, so that a variable's text stays text."""

    tags: Any = ()


class Untyped(SpoolBridge):
    """Has options that a file and a variable set differently."""

    Options = UntypedOptions


class Judging(SpoolBridge):
    """Refuses poison by itself, so that its queue stands still."""

    def delivery(self, fields: Mapping[str, Any]) -> Delivery:
        if not base64.b64decode(fields["body"]).endswith(b"}"):
            raise BadMessage("not_json", "this is no message for me")
        return super().delivery(fields)


class Unfair(SpoolBridge):
    """Settles only what became a job."""

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        await super().settle([receipt for receipt in receipts if receipt.fate is Fate.STORED])


class Dropping(SpoolBridge):
    """Drops what it has received ahead when it is asked for what is there already."""

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if not want.wait and self._buffer:
            await self.rest_of_buffer()
        return await super().pull(want)

    async def rest_of_buffer(self) -> None:
        ahead, self._buffer = self._buffer, []
        await self.link.ask(do="done", handles=[delivery.handle for delivery in ahead])


class Tidying(SpoolBridge):
    """Acknowledges what it has left when it closes, for the sake of order."""

    async def close(self) -> None:
        if self._link is not None:
            with suppress(Disconnected):
                await self.link.ask(do="done", handles=[delivery.handle for delivery in self._buffer])
        await super().close()
