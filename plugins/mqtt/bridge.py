"""MqttBridge: MQTT topics as a source of messages, through a session that the broker keeps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
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
    MissingExtra,
    Receipt,
    Want,
    text_identity,
)
from ..connection import Address, address_of
from ..content import readable
from .options import MqttOptions, PropertyName

if TYPE_CHECKING:
    from paho.mqtt.client import MQTTMessage

    from .link import MqttLink

log = structlog.get_logger(__name__)

SCHEMES = {"mqtt": 1883, "mqtts": 8883}
RETAIN_HANDLING = {"always": 0, "new": 1, "never": 2}
ALSO = ("ResponseTopic", "MessageExpiryInterval", "PayloadFormatIndicator", "SubscriptionIdentifier")
"""Properties that are worth knowing, beside those that a Message has a place for."""


class MqttBridge:
    """Implements `core.message.Bridge` for topic filters, at QoS 1.

    The broker keeps what is not acknowledged, and sends it again when the bridge connects again; within a
    connection MQTT has no way to hand a message back, so what is released waits here. QoS 2 is not asked for:
    there the broker forgets a message when the client has it, before it can be in Postgres, and a crash in
    between loses it. What was published with QoS 2 arrives as QoS 1. Raises Misconfigured for a URL that
    cannot be used, and MissingExtra where the client is not installed.
    """

    Options = MqttOptions
    capabilities = BridgeCapabilities(
        stable_ids=True,
        shared=False,
        carries=frozenset({"id", "key", "headers", "content_type", "correlation_id"}),
    )

    def __init__(self, name: str, options: MqttOptions) -> None:
        self.name = name
        self._options = options
        self._link_type = _link_type()
        self._address: Address = address_of(options.url, options.tls, schemes=SCHEMES, secure="mqtts")
        self._client_id = options.client_id or f"hammerwork.{name}"
        self._link: MqttLink | None = None
        self._had_session = False

    async def open(self) -> None:
        await self.close()
        options = self._options
        link = await self._connect(self._client_id, options.session_expiry)
        try:
            prefix = "" if options.share is None else f"$share/{options.share}/"
            filters = [prefix + topic for topic in options.topics]
            await link.subscribe(filters, retain_handling=RETAIN_HANDLING[options.retained])
        except BaseException:
            await link.close()
            raise
        self._link = link
        if self._had_session and not link.session_present:
            log.warning("mqtt.session_lost", bridge=self.name, client_id=self._client_id)
        self._had_session = True
        log.info("mqtt.opened", bridge=self.name, url=self._address.shown, client_id=self._client_id)

    async def pull(self, want: Want) -> Sequence[Delivery]:
        link = self._alive()
        await link.wait(1, 1, want.wait)
        if link.buffer:
            await link.wait(want.count, want.size, want.linger)
        self._alive()
        return [Delivery(self._message(m), (link, m)) for m in link.take(want.count, want.size)]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        """What came on an earlier connection cannot be acknowledged: the broker sends it again."""
        link = self._link
        if link is not None and link.lost is None:
            link.acknowledge(_of(link, [receipt.delivery for receipt in receipts]))

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        if self._link is not None:
            self._link.put_back(_of(self._link, deliveries))

    async def rest(self) -> None:
        """Nothing more arrives than `receive_maximum`, because nothing is acknowledged."""
        self._alive()

    async def lag(self) -> int | None:
        self._alive()
        return None

    async def close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def guarantee(self) -> Guarantee:
        """Connects under another client id: with its own the bridge that runs would be thrown out."""
        link = await self._connect(f"{self._client_id}.check", timedelta(0))
        await link.close()
        return _guarantee(self._options)

    def _alive(self) -> MqttLink:
        link = self._link
        if link is None:
            raise Disconnected("the bridge is not open")
        if link.lost is not None:
            raise link.lost
        return link

    async def _connect(self, client_id: str, session_expiry: timedelta) -> MqttLink:
        options = self._options
        return await self._link_type.connect(
            self._address,
            client_id=client_id,
            session_expiry=session_expiry,
            receive_maximum=options.receive_maximum,
            tls=options.tls,
            timeout=options.connect_timeout,
            heartbeat=options.heartbeat,
        )

    def _message(self, delivered: MQTTMessage) -> Message:
        said = vars(delivered.properties) if delivered.properties is not None else {}
        headers, body = _headers(said.get("UserProperty", ())), bytes(delivered.payload)
        correlation = said.get("CorrelationData")
        return Message(
            body=body,
            id=self._identity(headers, body),
            key=self._key(delivered.topic, headers),
            headers=headers,
            content_type=said.get("ContentType") or None,
            correlation_id=None if correlation is None else _text(correlation),
            coordinates={
                "broker": "mqtt",
                "topic": delivered.topic,
                "qos": delivered.qos,
                "retained": bool(delivered.retain),
                "redelivered": bool(delivered.dup),
                **{name: said[name] for name in ALSO if name in said},
            },
        )

    def _identity(self, headers: Mapping[str, Json], body: bytes) -> str | None:
        match self._options.identity:
            case "none":
                return None
            case PropertyName(property=name):
                return text_identity(headers.get(name))
            case JsonIdentity() as pointed:
                return pointed.of(body)
            case other:
                assert_never(other)

    def _key(self, topic: str, headers: Mapping[str, Json]) -> str | None:
        match self._options.key:
            case None:
                return None
            case "topic":
                return topic
            case PropertyName(property=name):
                return text_identity(headers.get(name))
            case other:
                assert_never(other)


def _link_type() -> type[MqttLink]:
    try:
        from .link import MqttLink
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "paho":
            raise MissingExtra("the MQTT bridge", "mqtt") from error
        raise
    return MqttLink


def _of(link: MqttLink, deliveries: Sequence[Delivery]) -> list[MQTTMessage]:
    """The messages that came on this very link."""
    handles = [delivery.handle for delivery in deliveries]
    return [message for of, message in handles if of is link]


def _headers(properties: Iterable[tuple[str, str]]) -> dict[str, Json]:
    """User properties by their names; a list of values where a name comes more than once."""
    headers: dict[str, Json] = {}
    for name, value in properties:
        match headers.get(name):
            case None:
                headers[name] = value
            case list() as several:
                several.append(value)
            case first:
                headers[name] = [first, value]
    return headers


def _text(data: bytes) -> str:
    found = readable(data)
    return found if isinstance(found, str) else data.hex()


def _guarantee(options: MqttOptions) -> Guarantee:
    warnings = (
        "what is published with QoS 0 may be lost on its way",
        "the broker drops messages of a session that is full or has expired: see its own limits",
    )
    match options.identity:
        case "none":
            because = "MQTT gives messages no identity, so one that is delivered twice is stored twice"
            return Guarantee("at-least-once", because, warnings)
        case PropertyName(property=name):
            source = f"the producer sets the user property {name}"
        case JsonIdentity(pointer=pointer):
            source = f"the body has an identity at {pointer}"
        case other:
            assert_never(other)
    because = f"where {source}; messages without one are stored at least once"
    return Guarantee("exactly-once in effect", because, warnings)
