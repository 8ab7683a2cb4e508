"""Kafka in: topics as a source of messages, read in a consumer group from offsets that Postgres keeps."""

from .bridge import KafkaBridge as KafkaBridge
from .options import KafkaOptions as KafkaOptions
