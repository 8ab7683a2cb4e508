"""MQTT 5 in: topics, read through a session that the broker keeps, as a source of messages."""

from .bridge import MqttBridge as MqttBridge
from .options import MqttOptions as MqttOptions
