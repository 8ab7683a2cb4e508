"""Redis Streams in and out: a consumer group as a source of messages, a stream as a destination of events."""

from .bridge import RedisBridge as RedisBridge
from .options import RedisOptions as RedisOptions
from .options import RedisSinkOptions as RedisSinkOptions
from .sink import RedisSink as RedisSink
