"""MqttLink: a connection to an MQTT broker for as long as it lives, and the messages that arrived on it."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from typing import Any, Self

from paho.mqtt.client import Client, ConnectFlags, DisconnectFlags, MQTTMessage, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from paho.mqtt.subscribeoptions import SubscribeOptions

from .. import Disconnected, Misconfigured, TlsOptions
from ..connection import TLS_HINT, Address, distrusted

STEP = 10.0
"""Seconds that the broker may take over one answer before it counts as gone."""
FAREWELL = 5.0
NOTHING = "hammerwork/nothing"
"""A topic that nobody subscribes to."""
HINTS = {
    0x84: "a broker that speaks MQTT 5 is needed",
    0x85: "set client_id to what the broker allows",
    0x86: "check the user and the password of the url",
    0x87: "check the user and the password of the url, and what that user may do",
    0x8E: "another client has this client_id: give each process one of its own, and the same share",
    0x8F: "correct topics",
    0x9E: "this broker shares no subscriptions: leave out share, and run one process",
}
"""What to do about the broker's reasons that trying again does not change."""


class MqttLink:
    """A connection that is never made again, only replaced. `lost` is the reason once it is dead.

    The client does its own reading and writing, when the event loop says that the socket is ready for it.
    `buffer` holds what arrived and was not taken.
    """

    def __init__(self, client: Client) -> None:
        self.buffer: deque[MQTTMessage] = deque()
        self.lost: Misconfigured | Disconnected | None = None
        self.session_present = False
        self._buffered = 0
        self._client = client
        self._socket: Any = None
        self._loop = asyncio.get_running_loop()
        self._arrival = asyncio.Event()
        self._connected: asyncio.Future[None] = self._loop.create_future()
        self._subscribed: asyncio.Future[Sequence[ReasonCode]] = self._loop.create_future()
        self._unsubscribed: asyncio.Future[None] = self._loop.create_future()
        self._closed = asyncio.Event()
        self._tick: asyncio.TimerHandle | None = None
        client.on_connect = self._on_connect
        client.on_message = self._on_message
        client.on_subscribe = self._on_subscribe
        client.on_unsubscribe = self._on_unsubscribe
        client.on_disconnect = self._on_disconnect

    @classmethod
    async def connect(
        cls,
        address: Address,
        *,
        client_id: str,
        session_expiry: timedelta,
        receive_maximum: int,
        tls: TlsOptions,
        timeout: timedelta,
        heartbeat: timedelta,
    ) -> Self:
        """Connect to the session of that client, or begin it. Raises Misconfigured and Disconnected."""
        client = Client(
            CallbackAPIVersion.VERSION2,
            client_id=client_id,
            protocol=MQTTv5,
            reconnect_on_failure=False,
            manual_ack=True,
        )
        client.connect_timeout = timeout.total_seconds()
        if address.username is not None:
            client.username_pw_set(address.username, address.password)
        if address.tls:
            client.tls_set_context(await asyncio.to_thread(tls.context))
        properties = Properties(PacketTypes.CONNECT)  # type: ignore[no-untyped-call]
        properties.SessionExpiryInterval = round(session_expiry.total_seconds())
        properties.ReceiveMaximum = receive_maximum
        link = cls(client)
        keepalive = max(1, round(heartbeat.total_seconds()))
        try:
            await asyncio.to_thread(
                client.connect,
                address.host,
                address.port,
                keepalive,
                clean_start=not session_expiry,
                properties=properties,
            )
            link._begin()
            async with asyncio.timeout(timeout.total_seconds()):
                await link._connected
        except BaseException as error:
            await link.close()
            if isinstance(error, OSError | TimeoutError | ValueError):
                raise _translated(error) from error
            raise
        return link

    async def subscribe(self, filters: Iterable[str], *, retain_handling: int) -> None:
        """Read these topics, each message at most as QoS 1. Raises Misconfigured and Disconnected."""
        options = SubscribeOptions(qos=1, retainHandling=retain_handling)
        result, _ = self._client.subscribe([(topic, options) for topic in filters])
        if result is not MQTTErrorCode.MQTT_ERR_SUCCESS:
            raise self.lost or Disconnected(f"the topics cannot be subscribed: {result.name}")
        try:
            async with asyncio.timeout(STEP):
                reasons = await self._subscribed
        except TimeoutError as error:
            raise Disconnected(f"the broker did not answer within {STEP:g} s") from error
        for topic, reason in zip(filters, reasons, strict=True):
            if reason.is_failure:
                raise _refused(f"the broker refuses {topic!r}", reason)

    async def wait(self, count: int, size: int, within: timedelta) -> None:
        """Until so many messages or bytes are there, the link is lost, or the time is up."""
        try:
            async with asyncio.timeout(within.total_seconds()):
                while self.lost is None and len(self.buffer) < count and self._buffered < size:
                    self._arrival.clear()
                    await self._arrival.wait()
        except TimeoutError:
            return

    def take(self, count: int, size: int) -> list[MQTTMessage]:
        """At most `count` messages and, but for the first, `size` bytes."""
        taken: list[MQTTMessage] = []
        while self.buffer and len(taken) < count:
            length = len(self.buffer[0].payload)
            if taken and length > size:
                break
            size -= length
            self._buffered -= length
            taken.append(self.buffer.popleft())
        return taken

    def put_back(self, messages: Sequence[MQTTMessage]) -> None:
        """These are taken again before all others."""
        self.buffer.extendleft(reversed(messages))
        self._buffered += sum(len(message.payload) for message in messages)

    def acknowledge(self, messages: Iterable[MQTTMessage]) -> None:
        """In the order in which they came, as the protocol wants it."""
        for message in messages:
            self._client.ack(message.mid, message.qos)

    async def close(self) -> None:
        """Disconnect; the session stays with the broker. Idempotent; takes FAREWELL at most; never raises."""
        if self.lost is None and self._connected.done():
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL / 2):
                    await self._heard()
        self._client.disconnect()
        if self._tick is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL / 2):
                    await self._closed.wait()
            self._tick.cancel()
        self._lose(Disconnected("the connection was closed"))

    async def _heard(self) -> None:
        """Until the broker has heard all that was acknowledged. It forgets what it has not read when the same
        client connects again, and the only question that it answers and that changes nothing is this one."""
        self._client.unsubscribe(NOTHING)
        with contextlib.suppress(Misconfigured, Disconnected):
            await self._unsubscribed

    # --- the socket ---

    def _begin(self) -> None:
        """The socket is there, and what the client says first is on its way: the event loop takes over."""
        self._socket = self._client.socket()
        self._client.on_socket_close = self._on_socket_close
        self._client.on_socket_register_write = self._on_write_wanted
        self._client.on_socket_unregister_write = self._on_write_done
        self._loop.add_reader(self._socket, self._read)
        self._keep_alive()

    def _read(self) -> None:
        self._do(self._client.loop_read)
        while not self._closed.is_set() and getattr(self._socket, "pending", int)() > 0:
            self._do(self._client.loop_read)  # TLS has decoded more than was asked for

    def _on_write_wanted(self, *_: object) -> None:
        self._loop.add_writer(self._socket, self._do, self._client.loop_write)

    def _on_write_done(self, *_: object) -> None:
        self._loop.remove_writer(self._socket)

    def _keep_alive(self) -> None:
        self._tick = self._loop.call_later(1.0, self._keep_alive)
        self._do(self._client.loop_misc)

    def _do(self, what: Callable[[], MQTTErrorCode]) -> None:
        try:
            what()
        except Exception as error:  # a packet that cannot be read, above all
            self._lose(Disconnected(f"the connection broke: {type(error).__name__}: {error}"))

    def _on_socket_close(self, *_: object) -> None:
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._tick is not None:
            self._tick.cancel()
        self._closed.set()
        # Not at once: the client says why only after it has closed the socket.
        self._loop.call_soon(self._lose, Disconnected("the connection was closed"))

    # --- what the broker says ---

    def _on_connect(
        self, _: Client, __: Any, flags: ConnectFlags, reason: ReasonCode, ___: Properties | None
    ) -> None:
        self.session_present = flags.session_present
        if reason.is_failure:
            self._lose(_refused("the broker refuses the connection", reason))
        elif not self._connected.done():
            self._connected.set_result(None)

    def _on_message(self, _: Client, __: Any, message: MQTTMessage) -> None:
        self.buffer.append(message)
        self._buffered += len(message.payload)
        self._arrival.set()

    def _on_subscribe(
        self, _: Client, __: Any, ___: int, reasons: list[ReasonCode], ____: Properties | None
    ) -> None:
        if not self._subscribed.done():
            self._subscribed.set_result(reasons)

    def _on_unsubscribe(self, *_: object) -> None:
        if not self._unsubscribed.done():
            self._unsubscribed.set_result(None)

    def _on_disconnect(
        self, _: Client, __: Any, flags: DisconnectFlags, reason: ReasonCode, ___: Properties | None
    ) -> None:
        if flags.is_disconnect_packet_from_server:
            self._lose(_refused("the broker ended the connection", reason))
        else:
            self._lose(Disconnected("the connection was lost"))

    def _lose(self, reason: Misconfigured | Disconnected) -> None:
        self.lost = self.lost or reason
        for waited in (self._connected, self._subscribed, self._unsubscribed):
            if not waited.done():
                waited.set_exception(self.lost)
                waited.exception()  # nobody may be waiting
        self._arrival.set()


def _refused(what: str, reason: ReasonCode) -> Misconfigured | Disconnected:
    text = f"{what}: {str(reason).lower()}"
    if (hint := HINTS.get(reason.value)) is not None:
        return Misconfigured(text, hint=hint)
    return Disconnected(text)


def _translated(error: BaseException) -> Misconfigured | Disconnected:
    """What an error of connecting means for who runs the bridge."""
    text = str(error) or "the broker did not answer in time"
    if distrusted(error):
        return Misconfigured(text, hint=TLS_HINT)
    return Disconnected(text)
