"""One AMQP connection with one consuming channel: what arrives, what is owed, and when it is lost.

Built on aiormq, the client underneath aio-pika, for all that the two sides say to each other but the
deliveries: those are taken off the wire (wire.py) before it sees them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections import deque
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, Self, TypeVar

import aiormq
from aiormq import exceptions as refused
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage

from ...core.errors import Disconnected, Misconfigured
from .deliveries import Delivered
from .wire import Wire

Answer = TypeVar("Answer")

STEP = timedelta(seconds=10)
"""How long the broker may take over one request before it counts as gone."""
FAREWELL = timedelta(seconds=5)
"""How long giving back and closing may take; then the socket is dropped."""
GONE = (refused.AMQPError, refused.ChannelInvalidStateError, RuntimeError, OSError, EOFError)


class AmqpLink:
    """A channel and the deliveries on it, as long as it lives; never reconnected, only replaced.

    `buffer` holds what arrived and was not taken; `unsettled` the delivery tags that were taken and are
    owed an answer, oldest first; `lost` the reason once the link is dead.
    """

    def __init__(
        self,
        connection: AbstractConnection,
        channel: AbstractChannel,
        wire: Wire,
        *,
        silence: timedelta,
    ) -> None:
        self.channel = channel
        self.buffer: deque[Delivered] = deque()
        self.unsettled: dict[int, None] = {}
        self.lost: str | None = None
        self._buffered = 0
        self._connection = connection
        self._wire = wire
        self._silence = silence.total_seconds()
        self._consumer: str | None = None
        self._arrival = asyncio.Event()
        self._wanted = (1, 1)
        self._closing = False
        wire.receive = self._on_messages
        channel.on_consumer_cancel_callbacks.add(self._on_cancelled)
        for closing in (channel.closing, connection.closing):
            closing.add_done_callback(self._on_closed)

    @classmethod
    async def connect(
        cls,
        url: str,
        *,
        name: str,
        timeout: timedelta,
        silence: timedelta,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> Self:
        """Connect and open a channel within `timeout`, or raise Misconfigured or Disconnected.

        A link that heard nothing for `silence` is lost.
        """
        wire = Wire(server_name=server_name)
        connection = aiormq.Connection(
            url, context=tls, transport_factory=wire, client_properties={"connection_name": name}
        )
        try:
            await _answer(connection.connect(), timeout, wire)
            wire.limit_frames(connection.connection_tune.frame_max)
            channel = await _answer(connection.channel(publisher_confirms=False), timeout, wire)
        except BaseException:
            with contextlib.suppress(*GONE, asyncio.CancelledError):
                await connection.close()
            wire.cut()
            raise
        return cls(connection, channel, wire, silence=silence)

    async def ask(self, request: Awaitable[Answer]) -> Answer:
        """The broker's answer to a request, or Misconfigured (it refuses) or Disconnected (it is gone)."""
        return await _answer(request, STEP, self._wire)

    @property
    def consuming(self) -> bool:
        return self._consumer is not None

    async def consume(self, queue: str, *, prefetch: int, tag: str, arguments: Mapping[str, Any]) -> None:
        await self.ask(self.channel.basic_qos(prefetch_count=prefetch))
        self._consumer = tag
        await self.ask(
            self.channel.basic_consume(queue, _unexpected, consumer_tag=tag, arguments=dict(arguments))
        )

    async def cancel(self) -> None:
        """Stop the consumer. What was under way has arrived in the buffer when this returns."""
        tag, self._consumer = self._consumer, None
        if tag is not None and self.lost is None:
            await self.ask(self.channel.basic_cancel(tag))

    async def wait(self, count: int, size: int, within: timedelta) -> None:
        """Until the buffer holds `count` messages or `size` bytes, the link is lost, or the time is up."""
        self._wanted = (count, size)
        if self._enough() or self.lost is not None:
            return
        self._arrival.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within.total_seconds()):
                await self._arrival.wait()
        self._listen()

    def take(self, count: int, size: int) -> list[Delivered]:
        """At most `count` messages and, but for the first, `size` bytes: they are owed an answer now."""
        taken: list[Delivered] = []
        while self.buffer and len(taken) < count:
            length = len(self.buffer[0].body)
            if taken and length > size:
                break
            size -= length
            self._buffered -= length
            message = self.buffer.popleft()
            self.unsettled[message.delivery_tag] = None
            taken.append(message)
        return taken

    def take_all(self) -> list[Delivered]:
        return self.take(len(self.buffer), self._buffered)

    def owed(self, handles: Iterable[tuple[object, int]]) -> set[int]:
        """The tags among `handles`, (link, tag) pairs, that this very link still owes an answer."""
        return {tag for link, tag in handles if link is self and tag in self.unsettled}

    async def acknowledge(self, tags: set[int]) -> None:
        """Ack `tags`: in one frame as far as nothing older is owed an answer, the rest one by one."""
        upto, rest = self._settle(tags)
        if upto:
            await self.ask(self.channel.basic_ack(upto, multiple=True))
        for tag in rest:
            await self.ask(self.channel.basic_ack(tag))

    async def give_back(self, tags: set[int]) -> None:
        """Nack `tags` into the queue: "we are busy", where a reject would say "it failed"."""
        upto, rest = self._settle(tags)
        if upto:
            await self.ask(self.channel.basic_nack(upto, multiple=True, requeue=True))
        for tag in rest:
            await self.ask(self.channel.basic_nack(tag, requeue=True))

    async def close(self) -> None:
        """Give back what is held and disconnect. Idempotent; takes FAREWELL at most; never raises."""
        if self._closing:
            return
        self._closing = True
        with contextlib.suppress(TimeoutError, Disconnected, Misconfigured, *GONE):
            async with asyncio.timeout(FAREWELL.total_seconds()):
                if self.lost is None:
                    await self.cancel()
                    self.take_all()
                    await self.give_back(set(self.unsettled))
                await _answer(self._connection.close(), FAREWELL, self._wire)
        self._wire.cut()
        self.lost = self.lost or "closed"

    def _settle(self, tags: set[int]) -> tuple[int, list[int]]:
        """Forget `tags`; answer the highest (0: none) below which all are among them, and the others."""
        upto = 0
        for tag in self.unsettled:
            if tag not in tags:
                break
            upto = tag
        for tag in tags:
            self.unsettled.pop(tag, None)
        return upto, sorted(tag for tag in tags if tag > upto)

    def _enough(self) -> bool:
        count, size = self._wanted
        return len(self.buffer) >= count or self._buffered >= size > 0

    def _listen(self) -> None:
        silent = asyncio.get_running_loop().time() - self._wire.heard_at
        if silent > self._silence:
            self._lose(f"nothing was heard from the broker for {silent:.0f} s")

    def _on_messages(self, messages: Sequence[Delivered]) -> None:
        self.buffer.extend(messages)
        self._buffered += sum(len(message.body) for message in messages)
        if self._enough():
            self._arrival.set()

    def _on_cancelled(self, _: object) -> None:
        self._lose("the broker cancelled the consumer: the queue was deleted or has moved")

    def _on_closed(self, closing: asyncio.Future[Any]) -> None:
        error = None if closing.cancelled() else closing.exception()
        self._lose(f"the connection was closed: {_text(error)}" if error else "the connection was closed")

    def _lose(self, reason: str) -> None:
        self.lost = self.lost or reason
        self._arrival.set()


async def _answer(request: Awaitable[Answer], within: timedelta, wire: Wire) -> Answer:
    try:
        async with asyncio.timeout(within.total_seconds()):
            return await request
    except TimeoutError as error:
        raise Disconnected(f"the broker did not answer within {within.total_seconds():g} s") from error
    except asyncio.CancelledError as error:
        # aiormq rejects what is pending on a dying connection by cancelling it.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise Disconnected("the connection was closed") from error
    except GONE as error:
        raise _translated(error, wire) from error


def _translated(error: BaseException, wire: Wire) -> Misconfigured | Disconnected:
    """What an error means for who runs the bridge: a setting to fix, or a broker to wait for."""
    match error:
        case refused.ChannelNotFoundEntity():
            hint = "create it, correct the name, or let the bridge create it with declare = 'create'"
        case refused.ChannelAccessRefused():
            hint = "give the user of the url the permissions it needs, or close the exclusive consumer"
        case refused.ChannelPreconditionFailed():
            hint = "make durable, queue_type and arguments those of what exists, or use declare = 'verify'"
        case refused.ChannelLockedResource():
            hint = "another connection holds the queue for itself alone"
        case refused.ProbableAuthenticationError() | refused.AuthenticationError():
            hint = "check the user and the password of the url"
        case ssl.SSLCertVerificationError():
            hint = "set tls.ca_file to the authority of the broker, tls.server_name to the name it bears"
        case refused.InvalidFrameError() if refusal := wire.refusal:
            return Misconfigured(refusal, hint="check the vhost of the url and the user's access to it")
        case _:
            return Disconnected(_text(error))
    return Misconfigured(_text(error), hint=hint)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


async def _unexpected(message: DeliveredMessage) -> None:
    """The client's own consumer. It is registered so that the client tells a cancel; the wire takes all
    deliveries before the client sees them."""
