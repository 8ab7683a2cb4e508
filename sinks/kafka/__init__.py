"""Kafka out: events as records, keyed by job, at least once or together with the relay's position."""

from .options import KafkaSinkOptions as KafkaSinkOptions
from .sink import KafkaSink as KafkaSink
