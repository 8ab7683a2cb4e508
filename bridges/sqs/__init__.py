"""SQS in: one queue, standard or FIFO, as a source of messages."""

from .bridge import SqsBridge as SqsBridge
from .options import SqsOptions as SqsOptions
