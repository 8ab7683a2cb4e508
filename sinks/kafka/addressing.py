"""Addressing: the topic, key and partition of an event's record."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import suppress
from functools import lru_cache

from ...clients.kafka.options import is_topic
from ...core.errors import BadMessage
from ...core.event import LoggedEvent
from ..expression import TextOfEvent
from .options import PLACEHOLDER, KafkaSinkOptions


class Addressing:
    """Raises Misconfigured for a key's expression that cannot be used."""

    def __init__(self, options: KafkaSinkOptions) -> None:
        self._options = options
        self._fixed = options.fixed_topic
        self._key = None
        if options.key is not None:
            self._key = TextOfEvent("key", options.key)

    def topic(self, event: LoggedEvent) -> str:
        """Raises BadMessage where that of its queue and type is none."""
        return self._fixed or _filled(self._options.topic, event.queue, event.type)

    def topics(self, events: Sequence[LoggedEvent]) -> set[str]:
        """Those of these events, as far as they have one."""
        if self._fixed is not None:
            return {self._fixed}
        found = set[str]()
        for event in events:
            with suppress(BadMessage):
                found.add(self.topic(event))
        return found

    def key(self, event: LoggedEvent) -> bytes:
        """The job's id, or that of the event where there is no job: a compacted topic refuses records
        without a key. Raises BadMessage where the expression answers no text."""
        key = str(event.job_id or event.id) if self._key is None else self._key(event)
        return key.encode()


@lru_cache(maxsize=1024)
def _filled(topic: str, queue: str | None, kind: str) -> str:
    """An event without a queue goes to the topic of the queue `none`."""
    words = {"queue": queue or "none", "type": kind}
    name = PLACEHOLDER.sub(lambda found: words[found[1]], topic)
    if not is_topic(name):
        why = "Kafka takes 1 to 249 letters, digits, `.`, `_`, `-`"
        raise BadMessage("bad_topic", f"{name!r} ({len(name)} characters): {why}")
    return name


def partition_of(key: bytes, partitions: Sequence[int]) -> int:
    """Where every Kafka client's default partitioner puts this key."""
    return partitions[(murmur2(key) & 0x7FFFFFFF) % len(partitions)]


def murmur2(data: bytes) -> int:
    """MurmurHash2 as Kafka's Java client computes it (org.apache.kafka.common.utils.Utils.murmur2)."""
    length = len(data)
    words, rest = divmod(length, 4)
    h = 0x9747B28C ^ length
    for k in struct.unpack_from(f"<{words}I", data):
        k = k * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 ^ (k ^ k >> 24) * 0x5BD1E995) & 0xFFFFFFFF
    if rest:
        h = (h ^ int.from_bytes(data[-rest:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15
