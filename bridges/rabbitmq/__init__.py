"""RabbitMQ in: one queue, classic or quorum, as a source of messages."""

from .bridge import RabbitmqBridge as RabbitmqBridge
from .bridge import RabbitmqOptions as RabbitmqOptions
