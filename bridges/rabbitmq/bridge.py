"""RabbitmqBridge: one RabbitMQ queue, classic or quorum, as a source of messages."""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal, Self, assert_never
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

import structlog
from pydantic import Field, JsonValue, SecretStr, model_validator

from ...clients.identity import HeaderIdentity, JsonIdentity, text_identity
from ...clients.options import Options, TlsOptions
from ...core.errors import Disconnected, Misconfigured, MissingExtra
from ...core.job import Json
from ...core.message import (
    AT_LEAST_ONCE,
    EXACTLY_ONCE,
    BridgeCapabilities,
    Delivery,
    Guarantee,
    Message,
    Receipt,
    Want,
)
from .content import json_headers

if TYPE_CHECKING:
    from .deliveries import Delivered
    from .link import AmqpLink

log = structlog.get_logger(__name__)

URL_HINT = "amqp://user:password@host:5672/vhost, with what is not a letter or digit in % notation"
URL_QUERY = {"auth", "name"}
LARGEST_COUNT = 2**31 - 2
ALSO = ("app_id", "type", "reply_to", "user_id", "expiration", "headers_truncated")
"""What is worth knowing about where a message came from, beside its place."""
ALSO_SAID = attrgetter(*ALSO[:-1])
NO_HEADERS: Mapping[str, Json] = MappingProxyType({})


class ExchangeOptions(Options):
    """An exchange that is declared before the queue is bound to it."""

    name: str = Field(min_length=1, max_length=255)
    type: str = "topic"
    durable: bool = True


class BindingOptions(Options):
    """A binding of the queue to an exchange."""

    exchange: str = Field(min_length=1, max_length=255)
    routing_key: str = Field("", max_length=255)
    arguments: dict[str, JsonValue] = Field(default_factory=dict)


class RabbitmqTlsOptions(TlsOptions):
    """TLS for `amqps://`."""

    server_name: str | None = None
    """The name that the broker's certificate must bear, where it is not the host of the URL."""


class RabbitmqOptions(Options):
    """How to reach a queue and what to make of its messages."""

    url: SecretStr
    """amqp:// or amqps://user:password@host:port/vhost; a slash in the vhost is written %2F."""
    queue: str = Field(min_length=1, max_length=255)
    queue_type: Literal["classic", "quorum"] | None = None
    """The type to create the queue with; None leaves it to the broker."""
    declare: Literal["verify", "create"] = "verify"
    """`verify`: the queue must exist, as whatever it is. `create`: declare exchange, queue and bindings;
    a queue that exists with other properties is refused, not changed."""
    durable: bool = True
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    exchange: ExchangeOptions | None = None
    bindings: tuple[BindingOptions, ...] = ()
    prefetch: int = Field(1500, ge=1, le=65_535)
    """How many messages the broker may send ahead: two or three batches, and all held in memory."""
    consumer_tag: str | None = Field(None, min_length=1, max_length=255)
    consumer_priority: int | None = None
    single_active_consumer: bool = False
    identity: Literal["message_id", "none"] | HeaderIdentity | JsonIdentity = "message_id"
    """What makes a message the same message when it comes again."""
    tls: RabbitmqTlsOptions = RabbitmqTlsOptions()
    connect_timeout: timedelta = Field(timedelta(seconds=10), gt=timedelta(0))
    heartbeat: timedelta = Field(timedelta(seconds=20), ge=timedelta(seconds=1), le=timedelta(hours=1))
    """The connection counts as lost after two of these without a sign of the broker."""

    @model_validator(mode="after")
    def _creates_what_it_names(self) -> Self:
        named = {
            "queue_type": self.queue_type,
            "arguments": self.arguments,
            "exchange": self.exchange,
            "bindings": self.bindings,
            "single_active_consumer": self.single_active_consumer,
        }
        unused = [name for name, value in named.items() if value]
        if self.declare == "verify" and unused:
            raise ValueError(f"{', '.join(unused)} take effect with declare = 'create' only")
        return self

    def queue_arguments(self) -> dict[str, JsonValue]:
        """The queue's arguments, with those that have a setting of their own."""
        own: dict[str, JsonValue] = {}
        if self.queue_type is not None:
            own["x-queue-type"] = self.queue_type
        if self.single_active_consumer:
            own["x-single-active-consumer"] = True
        return {**self.arguments, **own}


class RabbitmqBridge:
    """Implements `core.message.Bridge` for one queue, over one connection and one channel.

    Messages that arrive wait in a buffer of at most `prefetch`; a lost channel's buffer is thrown away,
    because the broker delivers those messages again. Raises Misconfigured for a URL or TLS settings that
    cannot be used, and MissingExtra where the client is not installed.
    """

    Options = RabbitmqOptions
    capabilities = BridgeCapabilities(
        stable_ids=True,
        carries=frozenset(
            {"id", "headers", "content_type", "content_encoding", "correlation_id", "priority", "timestamp"}
        ),
    )

    def __init__(self, name: str, options: RabbitmqOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = _client()
        self._url, self._shown_url = _usable_url(options)
        self._link: AmqpLink | None = None

    async def open(self) -> None:
        await self.close()
        link = await self._connect()
        try:
            await self._declare(link)
            await self._consume(link)
        except BaseException:
            await link.close()
            raise
        self._link = link
        log.info("rabbitmq.opened", bridge=self.name, url=self._shown_url, queue=self._options.queue)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        link = self._alive()
        if not link.consuming:
            await self._consume(link)
        count = max(1, min(want.count, self._options.prefetch - len(link.unsettled)))
        await link.wait(1, 1, want.wait)
        if link.buffer:
            await link.wait(count, want.size, want.linger)
        self._alive()
        taken = link.take(count, want.size)
        return [Delivery(self._message(m), (link, m.delivery_tag)) for m in taken]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        tags: set[int] = set()
        with contextlib.suppress(Disconnected, Misconfigured):
            if (link := self._link) is not None and link.lost is None:
                owed = link.owed(receipt.delivery.handle for receipt in receipts)
                await link.acknowledge(owed)
                tags = owed
        if late := len(receipts) - len(tags):
            log.info("rabbitmq.late_acknowledgement", bridge=self.name, deliveries=late)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """Give back these and all that wait in the buffer. The consumer is cancelled first, or they would
        come straight back; the next `pull` consumes again."""
        link = self._link
        if link is None or link.lost is not None:
            return
        with contextlib.suppress(Disconnected, Misconfigured):
            await link.cancel()
            waiting = {message.delivery_tag for message in link.take_all()}
            await link.give_back(waiting | link.owed(delivery.handle for delivery in deliveries))

    async def rest(self) -> None:
        """The consumer is cancelled and what waits in the buffer goes back; the connection stays."""
        link = self._alive()
        await self.release([])
        await link.wait(1, 1, timedelta(0))  # notices a broker that has fallen silent

    async def lag(self) -> int | None:
        link = self._alive()
        declared = await link.ask(link.channel.queue_declare(self._options.queue, passive=True))
        return (declared.message_count or 0) + len(link.buffer)

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    def tap(self, most: int, kept: Mapping[str, int | None]) -> RabbitmqBridge:
        """A consumer of its own that holds so many messages and gives them back: the broker marks them as
        redelivered, and puts them where they were as far as it can. A queue with a single active consumer
        gives it nothing while a gateway reads."""
        looking = {"declare": "verify", "prefetch": min(most, 65_535), "consumer_tag": None}
        return RabbitmqBridge(f"{self.name} (tap)", self._options.model_copy(update=looking))

    async def guarantee(self) -> Guarantee:
        link = await self._connect()
        try:
            await link.ask(link.channel.queue_declare(self._options.queue, passive=True))
        except Misconfigured:
            if self._options.declare == "verify":
                raise
        finally:
            await link.close()
        return _guarantee(self._options)

    def _alive(self) -> AmqpLink:
        link = self._link
        if link is None:
            raise Disconnected("the bridge is not open")
        if link.lost is not None:
            raise Disconnected(link.lost)
        return link

    async def _connect(self) -> AmqpLink:
        tls = None
        if urlsplit(self._url).scheme == "amqps":
            tls = await asyncio.to_thread(self._options.tls.context)
        try:
            return await self._link_type.connect(
                self._url,
                name=f"hammerwork {self.name}",
                timeout=self._options.connect_timeout,
                silence=2 * self._options.heartbeat,
                tls=tls,
                server_name=self._options.tls.server_name,
            )
        except Disconnected as error:
            raise Disconnected(f"RabbitMQ at {self._shown_url} is away ({error})") from error

    async def _declare(self, link: AmqpLink) -> None:
        options, channel = self._options, link.channel
        if options.declare == "verify":
            await link.ask(channel.queue_declare(options.queue, passive=True))
            return
        if (exchange := options.exchange) is not None:
            await link.ask(
                channel.exchange_declare(exchange.name, exchange_type=exchange.type, durable=exchange.durable)
            )
        arguments: dict[str, Any] = dict(options.queue_arguments())
        await link.ask(channel.queue_declare(options.queue, durable=options.durable, arguments=arguments))
        for binding in options.bindings:
            bound: dict[str, Any] = dict(binding.arguments)
            await link.ask(
                channel.queue_bind(options.queue, binding.exchange, binding.routing_key, arguments=bound)
            )

    async def _consume(self, link: AmqpLink) -> None:
        options = self._options
        await link.consume(
            options.queue,
            prefetch=options.prefetch,
            tag=options.consumer_tag or f"hammerwork.{self.name}.{secrets.token_hex(4)}",
            arguments={} if options.consumer_priority is None else {"x-priority": options.consumer_priority},
        )

    def _message(self, delivered: Delivered) -> Message:
        _, redelivered, exchange, routing_key, properties, body = delivered
        coordinates = _place(self._options.queue, exchange, routing_key, redelivered)
        headers, truncated = json_headers(properties.headers) if properties.headers else (NO_HEADERS, False)
        said = (*ALSO_SAID(properties), truncated)
        if any(said):
            named = zip(ALSO, said, strict=True)
            coordinates = {**coordinates, **{name: value for name, value in named if value}}
        return Message(
            body=body,
            id=self._identity(properties.message_id, headers, body),
            headers=headers,
            content_type=properties.content_type or None,
            content_encoding=properties.content_encoding or None,
            priority=properties.priority,
            correlation_id=properties.correlation_id or None,
            timestamp=properties.timestamp,
            attempt=_attempt(headers) if headers else None,
            coordinates=coordinates,
        )

    def _identity(self, message_id: str | None, headers: Mapping[str, Json], body: bytes) -> str | None:
        match self._options.identity:
            case "message_id":
                return message_id or None
            case "none":
                return None
            case HeaderIdentity(header=name):
                return text_identity(headers.get(name))
            case JsonIdentity() as pointed:
                return pointed.of(body)
            case other:
                assert_never(other)


@lru_cache(maxsize=1024)
def _place(queue: str, exchange: str, routing_key: str, redelivered: bool) -> Mapping[str, Json]:
    """Where a message was. Most messages of a queue share it, so it is made once and cannot be changed."""
    return MappingProxyType(
        {
            "broker": "rabbitmq",
            "queue": queue,
            "exchange": exchange,
            "routing_key": routing_key,
            "redelivered": redelivered,
        }
    )


def _client() -> type[AmqpLink]:
    try:
        from .link import AmqpLink
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"aiormq", "pamqp", "yarl"}:
            raise MissingExtra("the RabbitMQ bridge", "rabbitmq") from error
        raise
    return AmqpLink


def _usable_url(options: RabbitmqOptions) -> tuple[str, str]:
    """The URL for the client, heartbeat added, and the same without user and password for logs."""
    try:
        parts = urlsplit(options.url.get_secret_value())
        host, port = parts.hostname, parts.port
    except ValueError:
        # The cause is cut off: its text could quote the password.
        raise Misconfigured("url cannot be read", hint=URL_HINT) from None
    if parts.scheme not in ("amqp", "amqps") or not host or parts.fragment:
        raise Misconfigured(
            f"url must be amqp:// or amqps:// with a host, not {parts.scheme!r}", hint=URL_HINT
        )
    query = dict(parse_qsl(parts.query, keep_blank_values=True))
    if unknown := sorted(query.keys() - URL_QUERY):
        raise Misconfigured(
            f"url must not carry {', '.join(unknown)}",
            hint="use the settings heartbeat, connect_timeout, tls",
        )
    if parts.scheme == "amqp" and options.tls != RabbitmqTlsOptions():
        raise Misconfigured("tls is set but the url is amqp://", hint="write amqps://")
    query["heartbeat"] = str(round(options.heartbeat.total_seconds()))
    address = f"[{host}]" if ":" in host else host
    shown = f"{parts.scheme}://{address}{f':{port}' if port else ''}{parts.path}"
    return urlunsplit(parts._replace(query=urlencode(query))), shown


def _attempt(headers: Mapping[str, Json]) -> int | None:
    """Which delivery of this message it is, as far as a quorum queue counts.

    `x-delivery-count` counts failures, `x-acquired-count` (RabbitMQ 4.3) every return; both are 0 or
    absent at first.
    """
    counted = [headers.get(name) for name in ("x-acquired-count", "x-delivery-count")]
    counts = [
        n for n in counted if isinstance(n, int) and not isinstance(n, bool) and 0 <= n <= LARGEST_COUNT
    ]
    return max(counts) + 1 if counts else None


def _guarantee(options: RabbitmqOptions) -> Guarantee:
    warnings = tuple(_warnings(options))
    match options.identity:
        case "none":
            because = "identity is none, so a message that the broker delivers twice is stored twice"
            return Guarantee(AT_LEAST_ONCE, because, warnings)
        case "message_id":
            source = "the producer sets message_id"
        case HeaderIdentity(header=name):
            source = f"the producer sets the header {name}"
        case JsonIdentity(pointer=pointer):
            source = f"the body has an identity at {pointer}"
        case other:
            assert_never(other)
    because = f"where {source}; messages without one are stored at least once"
    return Guarantee(EXACTLY_ONCE, because, warnings)


def _warnings(options: RabbitmqOptions) -> Iterator[str]:
    if options.identity == "none":
        yield "duplicates cannot be told: let the producer set message_id, or name a header or JSON pointer"
    if options.prefetch < 2 * Want().count:
        yield f"prefetch {options.prefetch} is less than two batches of {Want().count}: the broker idles"
    if options.declare == "create" and not options.durable:
        yield "the queue is not durable: it does not survive a restart of the broker"
    if options.queue_type == "quorum" and "x-dead-letter-exchange" not in options.arguments:
        yield "the quorum queue has no dead-letter exchange: RabbitMQ 4 drops a message returned 20 times"
