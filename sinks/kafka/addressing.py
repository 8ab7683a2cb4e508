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

    def keys(self, events: Sequence[LoggedEvent]) -> Sequence[bytes | BadMessage]:
        """The key of each event, or why it has none: its expression answers no text. Without an expression
        it is the job's id, or that of the event where there is no job: a compacted topic refuses records
        without a key."""
        if self._key is None:
            return [str(event.job_id or event.id).encode() for event in events]
        found: list[bytes | BadMessage] = []
        for event in events:
            try:
                found.append(self._key(event).encode())
            except BadMessage as bad:
                found.append(bad)
        return found


@lru_cache(maxsize=1024)
def _filled(topic: str, queue: str | None, kind: str) -> str:
    """An event without a queue goes to the topic of the queue `none`."""
    words = {"queue": queue or "none", "type": kind}
    name = PLACEHOLDER.sub(lambda found: words[found[1]], topic)
    if not is_topic(name):
        why = "Kafka takes 1 to 249 letters, digits, `.`, `_`, `-`"
        raise BadMessage("bad_topic", f"{name!r} ({len(name)} characters): {why}")
    return name


MANY = 8
"""Keys that are cheaper to hash together than one after another."""


def partition_of(hashed: int, partitions: Sequence[int]) -> int:
    """Where every Kafka client's default partitioner puts a key with this hash."""
    return partitions[(hashed & 0x7FFFFFFF) % len(partitions)]


def murmur2(keys: Sequence[bytes]) -> Sequence[int]:
    """MurmurHash2 of each key, as Kafka's Java client computes it
    (org.apache.kafka.common.utils.Utils.murmur2)."""
    places: dict[int, list[int]] = {}
    for place, key in enumerate(keys):
        places.setdefault(len(key), []).append(place)
    found = [0] * len(keys)
    for alike in places.values():
        same = [keys[place] for place in alike]
        hashes = _side_by_side(same) if len(same) >= MANY else map(_alone, same)
        for place, hashed in zip(alike, hashes, strict=True):
            found[place] = hashed
    return found


def _alone(key: bytes) -> int:
    length = len(key)
    words, rest = divmod(length, 4)
    h = 0x9747B28C ^ length
    for k in struct.unpack_from(f"<{words}I", key):
        k = k * 0x5BD1E995 & 0xFFFFFFFF
        h = (h * 0x5BD1E995 ^ (k ^ k >> 24) * 0x5BD1E995) & 0xFFFFFFFF
    if rest:
        h = (h ^ int.from_bytes(key[-rest:], "little")) * 0x5BD1E995 & 0xFFFFFFFF
    h = (h ^ h >> 13) * 0x5BD1E995 & 0xFFFFFFFF
    return h ^ h >> 15


def _side_by_side(keys: Sequence[bytes]) -> Sequence[int]:
    """As `_alone`, of many that are equally long, as jobs' ids are, in a sixth of the time: each has 64 bits
    of one large integer, so that no product of two numbers of 32 bits runs into the next."""
    count, length, data = len(keys), len(keys[0]), b"".join(keys)

    def every(number: int) -> int:
        return int.from_bytes(number.to_bytes(8, "little") * count, "little")

    low = every(0xFFFFFFFF)
    h = every(0x9747B28C ^ length)
    for start in range(0, length, 4):
        words = bytearray(8 * count)
        end = min(start + 4, length)
        for byte in range(start, end):
            words[byte - start :: 8] = data[byte::length]
        k = int.from_bytes(words, "little")
        if end - start == 4:
            k = k * 0x5BD1E995 & low
            h = (h * 0x5BD1E995 ^ (k ^ k >> 24 & low) * 0x5BD1E995) & low
        else:
            h = (h ^ k) * 0x5BD1E995 & low
    h = (h ^ h >> 13 & low) * 0x5BD1E995 & low
    return struct.unpack(f"<{count}Q", ((h ^ h >> 15) & low).to_bytes(8 * count, "little"))
