"""NATS JetStream in and out: a durable consumer as a source of messages, a stream for events."""

from .bridge import NatsBridge as NatsBridge
from .options import NatsOptions as NatsOptions
from .options import NatsSinkOptions as NatsSinkOptions
from .sink import NatsSink as NatsSink
