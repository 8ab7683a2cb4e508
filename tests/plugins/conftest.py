"""The fixtures of the tests of the extras."""

from .places import mqtt_topic as mqtt_topic
from .places import nats_stream as nats_stream
from .places import redis_stream as redis_stream
