"""A plain MQTT client for the tests of the MQTT plugin: it publishes anything, until it is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from hammerwork.plugins.mqtt import MqttOptions

from ..services.mqtt import connect_packet
from .brokers import until


class MqttTopic:
    """A topic of the test's own, and the session of a bridge on all below it, thrown away at the end."""

    def __init__(self, url: str, name: str) -> None:
        self.url = url
        self.name = name
        self._client = Client(CallbackAPIVersion.VERSION2, protocol=MQTTv5)

    async def connect(self) -> None:
        await asyncio.to_thread(self._client.connect, *self.address)
        self._client.loop_start()

    @property
    def address(self) -> tuple[str, int]:
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or 1883

    async def send(
        self,
        body: bytes = b"{}",
        *,
        to: str = "new",
        qos: int = 1,
        retain: bool = False,
        user: Sequence[tuple[str, str]] = (),
        **said: Any,
    ) -> None:
        properties = Properties(PacketTypes.PUBLISH)  # type: ignore[no-untyped-call]
        if user:
            properties.UserProperty = list(user)
        for name, value in said.items():
            setattr(properties, name, value)
        await until(self._connected)
        sent = self._client.publish(f"{self.name}/{to}", body, qos=qos, retain=retain, properties=properties)
        await asyncio.to_thread(sent.wait_for_publish, 10)

    async def _connected(self) -> bool:
        return self._client.is_connected()

    def options(self, **settings: Any) -> MqttOptions:
        usual: Mapping[str, Any] = {
            "url": self.url,
            "topics": [f"{self.name}/#"],
            "client_id": self.name,
            "identity": {"property": "id"},
        }
        return MqttOptions.model_validate({**usual, **settings})

    async def close(self) -> None:
        self._client.disconnect()
        await asyncio.to_thread(self._client.loop_stop)
        reader, writer = await asyncio.open_connection(*self.address)
        writer.write(connect_packet(self.name))
        await reader.read(4)
        writer.close()
        await writer.wait_closed()
