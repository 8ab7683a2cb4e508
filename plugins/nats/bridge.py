"""NatsBridge: a durable pull consumer of a JetStream stream as a source of messages."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, assert_never

import structlog

from .. import (
    BridgeCapabilities,
    Delivery,
    Disconnected,
    Guarantee,
    Json,
    JsonIdentity,
    Message,
    Misconfigured,
    MissingExtra,
    Receipt,
    Want,
    text_identity,
)
from ..connection import Address, address_of
from .options import HeaderName, NatsOptions, ServerOptions

if TYPE_CHECKING:
    from nats.aio.msg import Msg
    from nats.js.api import ConsumerInfo

    from .link import NatsLink

log = structlog.get_logger(__name__)

SCHEMES = {"nats": 4222, "tls": 4222}
FAREWELL = 5.0
"""Seconds that giving back may take on closing."""


class NatsBridge:
    """Implements `core.message.Bridge` for one durable consumer.

    While messages are in hand the server is told so, three times in their lease. Raises Misconfigured for a
    URL that cannot be used, and MissingExtra where the client is not installed.
    """

    Options = NatsOptions
    capabilities = BridgeCapabilities(
        stable_ids=True,
        counts_deliveries=True,
        lease="renewed",
        carries=frozenset({"id", "key", "headers", "content_type", "content_encoding"}),
        largest=1_000_000,
    )

    def __init__(self, name: str, options: NatsOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = link_type("the NATS bridge")
        self._address = server_address(options)
        self._link: NatsLink | None = None
        self._in_hand: dict[str, None] = {}
        """Where the answers that are owed go to, one a message."""
        self._keeping: asyncio.Task[None] | None = None

    async def open(self) -> None:
        await self.close()
        options = self._options
        link = await self._link_type.connect(self._address, options, name=self.name)
        try:
            consumer = await self._consumer(link)
            await link.subscribe()
        except BaseException:
            await link.close()
            raise
        self._link = link
        lease = consumer.config.ack_wait or options.lease.total_seconds()
        self._keeping = asyncio.create_task(self._keep(link, lease / 3), name=f"{self.name}: in progress")
        log.info("nats.opened", bridge=self.name, url=self._address.shown, stream=options.stream)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        link, options = self._alive(), self._options
        taken = await link.gather(
            options.stream, options.consumer, want.count, want.size, wait=want.wait, linger=want.linger
        )
        for message in taken:
            self._in_hand[message.reply] = None
        return [Delivery(self._message(message), message.reply) for message in taken]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        """An answer is taken on any connection: it names the message."""
        link = self._alive()
        replies = [receipt.delivery.handle for receipt in receipts]
        if self._options.confirm:
            await asyncio.gather(*(link.ask(link.client.request(reply, b"+ACK")) for reply in replies))
        else:
            await link.tell(replies, b"+ACK")
        for reply in replies:
            self._in_hand.pop(reply, None)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if self._link is not None:
            held = [d.handle for d in deliveries if d.handle in self._in_hand]
            await self._give_back(self._link, held)

    async def rest(self) -> None:
        await self._give_back(self._alive(), [])

    async def lag(self) -> int | None:
        link = self._alive()
        info = await link.consumer(self._options.stream, self._options.consumer)
        if info is None:
            raise Disconnected(f"the consumer {self._options.consumer!r} is gone")
        held = len(self._in_hand) + len(link.buffer)
        return max(0, (info.num_pending or 0) + (info.num_ack_pending or 0) - held)

    async def close(self) -> None:
        link, self._link = self._link, None
        keeping, self._keeping = self._keeping, None
        if keeping is not None:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
        if link is not None:
            with contextlib.suppress(Disconnected, Misconfigured, TimeoutError):
                async with asyncio.timeout(FAREWELL):
                    await self._give_back(link, list(self._in_hand))
            await link.close()
        self._in_hand.clear()

    async def guarantee(self) -> Guarantee:
        link = await self._link_type.connect(self._address, self._options, name=self.name)
        try:
            stream = await link.ask(link.client.jsm().stream_info(self._options.stream))
            consumer = await link.consumer(self._options.stream, self._options.consumer)
            if consumer is None and self._options.declare == "verify":
                raise self._missing()
        finally:
            await link.close()
        storage = stream.config.storage
        limit = consumer.config.max_deliver if consumer is not None else None
        return _guarantee(self._options, in_memory=storage == "memory", max_deliver=limit or -1)

    def _alive(self) -> NatsLink:
        link = self._link
        if link is None:
            raise Disconnected("the bridge is not open")
        if link.lost is not None:
            raise link.lost
        return link

    async def _keep(self, link: NatsLink, every: float) -> None:
        """While the link lives: what is in hand is being worked on, and its lease begins anew."""
        with contextlib.suppress(Disconnected, Misconfigured):
            while True:
                await asyncio.sleep(every)
                ahead = [message.reply for message in link.buffer]
                await link.tell([*self._in_hand, *ahead], b"+WPI")

    async def _give_back(self, link: NatsLink, replies: Sequence[str]) -> None:
        ahead = [message.reply for message in link.buffer]
        link.buffer.clear()
        for reply in replies:
            self._in_hand.pop(reply, None)
        delay = round(self._options.release_delay.total_seconds() * 1e9)
        await link.tell([*replies, *ahead], b'-NAK {"delay": %d}' % delay if delay else b"-NAK")

    # --- the consumer ---

    async def _consumer(self, link: NatsLink) -> ConsumerInfo:
        """The consumer, made where it is missing and may be made."""
        found = await link.consumer(self._options.stream, self._options.consumer)
        if found is None:
            if self._options.declare == "verify":
                raise self._missing()
            found = await self._create(link)
            log.info("nats.consumer_created", bridge=self.name, consumer=self._options.consumer)
        config, subject = found.config, self._options.subject
        if config.deliver_subject or config.ack_policy != "explicit":
            raise Misconfigured(
                f"the consumer {self._options.consumer!r} does not pull, or does not acknowledge one by one",
                hint="name another: the bridge makes it",
            )
        if subject is not None and config.filter_subject != subject:
            raise Misconfigured(
                f"the consumer {self._options.consumer!r} has the subject {config.filter_subject!r}",
                hint=f"name another consumer for {subject!r}, or change this one",
            )
        return found

    async def _create(self, link: NatsLink) -> ConsumerInfo:
        from nats.js.api import ConsumerConfig, DeliverPolicy

        options = self._options
        policies = {"beginning": DeliverPolicy.ALL, "end": DeliverPolicy.NEW}
        policy = policies.get(options.start, DeliverPolicy.BY_START_SEQUENCE)
        config = ConsumerConfig(
            durable_name=options.consumer,
            deliver_policy=policy,
            opt_start_seq=int(options.start) if policy is DeliverPolicy.BY_START_SEQUENCE else None,
            ack_wait=options.lease.total_seconds(),
            max_deliver=-1,
            max_ack_pending=options.in_flight,
            filter_subject=options.subject,
        )
        return await link.ask(link.client.jsm().add_consumer(options.stream, config))

    def _missing(self) -> Misconfigured:
        options = self._options
        return Misconfigured(
            f"the stream {options.stream!r} has no consumer {options.consumer!r}",
            hint="create it, correct the names, or let the bridge create it with declare = 'create'",
        )

    # --- from what was delivered to a message ---

    def _message(self, delivered: Msg) -> Message:
        meta, headers = delivered.metadata, dict(delivered.headers or {})
        place = f"{meta.stream}:{meta.sequence.stream}:{int(meta.timestamp.timestamp() * 1000)}"
        return Message(
            body=delivered.data,
            id=self._identity(place, headers, delivered.data),
            key=self._key(delivered.subject, headers),
            headers=headers,
            content_type=_header(headers, "Content-Type"),
            content_encoding=_header(headers, "Content-Encoding"),
            timestamp=meta.timestamp,
            attempt=meta.num_delivered,
            coordinates={
                "broker": "nats",
                "stream": meta.stream,
                "consumer": meta.consumer,
                "subject": delivered.subject,
                "sequence": meta.sequence.stream,
            },
        )

    def _identity(self, place: str, headers: Mapping[str, Json], body: bytes) -> str | None:
        """`place` holds the time of storing: the sequences of a stream that was made anew begin again."""
        match self._options.identity:
            case "message_id":
                return _header(headers, "Nats-Msg-Id") or place
            case "sequence":
                return place
            case "none":
                return None
            case HeaderName(header=name):
                return _header(headers, name)
            case JsonIdentity() as pointed:
                return pointed.of(body)
            case other:
                assert_never(other)

    def _key(self, subject: str, headers: Mapping[str, Json]) -> str | None:
        match self._options.key:
            case None:
                return None
            case "subject":
                return subject
            case HeaderName(header=name):
                return _header(headers, name)
            case other:
                assert_never(other)


def link_type(feature: str) -> type[NatsLink]:
    """The class of the connection. Raises MissingExtra where its client is not installed."""
    try:
        from .link import NatsLink
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "nats":
            raise MissingExtra(feature, "nats") from error
        raise
    return NatsLink


def server_address(options: ServerOptions) -> Address:
    """Raises Misconfigured for a URL that cannot be used."""
    return address_of(options.url, options.tls, schemes=SCHEMES, secure="tls")


def _header(headers: Mapping[str, Json], name: str) -> str | None:
    """A header by its name, whatever its case."""
    found = headers.get(name)
    if found is None:
        wanted = name.lower()
        found = next((value for other, value in headers.items() if other.lower() == wanted), None)
    return text_identity(found)


def _guarantee(options: NatsOptions, *, in_memory: bool, max_deliver: int) -> Guarantee:
    warnings = tuple(_warnings(options, in_memory=in_memory, max_deliver=max_deliver))
    match options.identity:
        case "none":
            because = "identity is none, so a message that is delivered twice is stored twice"
            return Guarantee("at-least-once", because, warnings)
        case "message_id":
            because = "a message's Nats-Msg-Id or, without one, its sequence is the same on every delivery"
            return Guarantee("exactly-once in effect", because, warnings)
        case "sequence":
            because = "a message's sequence in the stream is the same on every delivery"
            return Guarantee("exactly-once in effect", because, warnings)
        case HeaderName(header=name):
            source = f"the producer sets the header {name}"
        case JsonIdentity(pointer=pointer):
            source = f"the body has an identity at {pointer}"
        case other:
            assert_never(other)
    because = f"where {source}; messages without one are stored at least once"
    return Guarantee("exactly-once in effect", because, warnings)


def _warnings(options: NatsOptions, *, in_memory: bool, max_deliver: int) -> Iterator[str]:
    if options.identity == "none":
        yield "duplicates cannot be told: name an identity"
    if in_memory:
        yield "the stream is in memory: it does not survive a restart of the server"
    if max_deliver > 0:
        yield f"the consumer gives a message up after {max_deliver} deliveries: set its max_deliver to -1"
