"""What a consumer of a Kinesis stream sees, aggregated records taken apart."""

from __future__ import annotations

from hashlib import md5
from typing import Any, NamedTuple

from aiobotocore.session import get_session

from ..services.aws import AwsService

MAGIC = b"\xf3\x89\x9a\xc2"


class Seen(NamedTuple):
    shard: str
    key: str
    data: bytes


async def read_stream(service: AwsService, stream: str) -> list[Seen]:
    """All records of a stream, shard by shard, in the order of each."""
    async with get_session().create_client("kinesis", **service.client_arguments()) as client:
        shards = (await client.list_shards(StreamName=stream))["Shards"]
        return [seen for shard in shards for seen in await _read_shard(client, stream, shard["ShardId"])]


async def _read_shard(client: Any, stream: str, shard: str) -> list[Seen]:
    answer = await client.get_shard_iterator(
        StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON"
    )
    iterator, found = answer["ShardIterator"], list[Seen]()
    while iterator is not None:
        answer = await client.get_records(ShardIterator=iterator, Limit=10_000)
        for record in answer["Records"]:
            found += taken_apart(shard, record["PartitionKey"], record["Data"])
        more = answer["MillisBehindLatest"] or answer["Records"]
        iterator = answer.get("NextShardIterator") if more else None
    return found


def taken_apart(shard: str, key: str, data: bytes) -> list[Seen]:
    """By the letter of aggregation-format.md, without the library that the sink writes with."""
    if not data.startswith(MAGIC):
        return [Seen(shard, key, data)]
    body = data[4:-16]
    assert md5(body, usedforsecurity=False).digest() == data[-16:]
    fields = list(_fields(body))
    keys = [value.decode() for number, value in fields if number == 1]
    found = []
    for number, value in fields:
        if number == 3:
            record = dict(_fields(value))
            found.append(Seen(shard, keys[record.get(1, 0)], record[3]))
    return found


def _fields(message: bytes) -> Any:
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        value: Any
        value, at = _varint(message, at)
        if tag & 7 == 2:
            value, at = message[at : at + value], at + value
        yield tag >> 3, value


def _varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
