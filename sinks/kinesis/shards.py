"""Shards: which of them a hash key belongs to."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import md5
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types_aiobotocore_kinesis.type_defs import ShardTypeDef

HASH_KEYS = 2**128


@dataclass(frozen=True, slots=True, order=True)
class Shard:
    """An open shard, and the first hash key of its range."""

    start: int
    id: str


class Shards:
    """The open shards of a stream."""

    def __init__(self, found: Iterable[ShardTypeDef]) -> None:
        self._shards = sorted(
            Shard(int(shard["HashKeyRange"]["StartingHashKey"]), shard["ShardId"])
            for shard in found
            if "EndingSequenceNumber" not in shard["SequenceNumberRange"]
        )
        self._starts = [shard.start for shard in self._shards]
        self._ids = {shard.id for shard in self._shards}

    def __len__(self) -> int:
        return len(self._shards)

    def __contains__(self, shard_id: str) -> bool:
        return shard_id in self._ids

    def of(self, hash_key: int) -> Shard:
        return self._shards[bisect_right(self._starts, hash_key) - 1]


def hash_key_of(partition_key: str) -> int:
    """Where Kinesis puts a partition key."""
    return int.from_bytes(md5(partition_key.encode(), usedforsecurity=False).digest(), "big")
