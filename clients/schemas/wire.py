"""Confluent's wire format: a zero byte and the schema's id before a body, and Protobuf's message indexes."""

from __future__ import annotations

from ...core.errors import BadMessage

MAGIC = 0
HEADER = 5
"""Bytes: the zero, and the id as a big-endian 32-bit number."""

MOST_INDEXES = 64


def schema_id_of(body: bytes) -> int | None:
    """The id that a body begins with; None where there is none."""
    if len(body) < HEADER or body[0] != MAGIC:
        return None
    return int.from_bytes(body[1:HEADER], "big")


def with_schema_id(schema_id: int, body: bytes) -> bytes:
    """The body in the wire format."""
    return bytes([MAGIC]) + schema_id.to_bytes(HEADER - 1, "big") + body


def message_indexes(body: bytes) -> tuple[tuple[int, ...], int]:
    """Which message of its file a Protobuf body is (the first, the third in the second, …), and where it
    begins. The indexes are a count and as many numbers, each a zigzag varint; a lone zero stands for [0].

    Raises BadMessage.
    """
    count, at = _varint(body, 0)
    if count == 0:
        return (0,), at
    if not 0 < count <= MOST_INDEXES:
        raise BadMessage("bad_protobuf", f"{count} message indexes")
    indexes = []
    for _ in range(count):
        index, at = _varint(body, at)
        indexes.append(index)
    return tuple(indexes), at


def _varint(body: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift, byte in enumerate(body[at : at + 10]):
        value |= (byte & 0x7F) << (7 * shift)
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at + shift + 1
    raise BadMessage("bad_protobuf", "the message indexes end before their end")
