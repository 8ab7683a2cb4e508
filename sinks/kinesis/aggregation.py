"""Aggregation: many events in one record, in the format of the Kinesis Producer Library."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from hashlib import md5
from typing import Any

from ...core.errors import MissingExtra

MAGIC = b"\xf3\x89\x9a\xc2"
OVERHEAD = len(MAGIC) + 16 + 64
"""Bytes of an aggregated record beside its events and their keys: magic, MD5, and some room."""
EACH = 24
"""Bytes of an event in it beside data and key, amply."""


def aggregated(records: Iterable[tuple[str, bytes]]) -> bytes:
    """One record of (partition key, data) pairs: the magic number, the message in Protobuf, its MD5
    (github.com/awslabs/amazon-kinesis-producer, aggregation-format.md)."""
    message = _type()()
    places: dict[str, int] = {}
    for key, data in records:
        if (place := places.get(key)) is None:
            place = places[key] = len(places)
            message.partition_key_table.append(key)
        record = message.records.add()
        record.partition_key_index = place
        record.data = data
    body: bytes = message.SerializeToString()
    return MAGIC + body + md5(body, usedforsecurity=False).digest()


def require() -> None:
    """Raises MissingExtra where Protobuf is not installed."""
    _type()


@cache
def _type() -> Any:
    """The class of AggregatedRecord, described here in place of generated code."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ModuleNotFoundError as error:
        raise MissingExtra("aggregate", "schema") from error
    fields = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="kinesis_aggregation.proto", syntax="proto2")

    def message(name: str, *described: tuple[str, int, int, str]) -> None:
        added = file.message_type.add(name=name)
        for field, label, kind, of in described:
            added.field.add(
                name=field, number=len(added.field) + 1, label=label, type=kind, type_name=of or None
            )

    one, some, many = fields.LABEL_REQUIRED, fields.LABEL_OPTIONAL, fields.LABEL_REPEATED
    text, number, data = fields.TYPE_STRING, fields.TYPE_UINT64, fields.TYPE_BYTES
    message("Tag", ("key", one, text, ""), ("value", some, text, ""))
    message(
        "Record",
        ("partition_key_index", one, number, ""),
        ("explicit_hash_key_index", some, number, ""),
        ("data", one, data, ""),
        ("tags", many, fields.TYPE_MESSAGE, ".Tag"),
    )
    message(
        "AggregatedRecord",
        ("partition_key_table", many, text, ""),
        ("explicit_hash_key_table", many, text, ""),
        ("records", many, fields.TYPE_MESSAGE, ".Record"),
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("AggregatedRecord"))
