"""How a message that cannot become a job is kept: reason, bytes and all that it carried."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from ..job import Json
from ..message import Message
from ..postgres.database import columns, statement
from ..postgres.store import Fetcher

DETAIL_LENGTH = 2000
REASON_LENGTH = 100
MOST_BITS = 1024
MOST_ATTEMPTS = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Burial:
    """A dead letter to be stored. `message_id` is the identity in the inbox, if the message has one."""

    id: UUID
    message: Message
    message_id: str | None
    reason: str
    detail: str


async def bury(connection: Fetcher, bridge: str, burials: Sequence[Burial], body_cap: int) -> None:
    """Store dead letters in the caller's transaction; of a body longer than `body_cap` only the start."""
    if burials:
        rows = [_row(burial, body_cap) for burial in burials]
        ids, *others = columns(rows, 12)
        await connection.fetch(statement("bury"), ids, bridge, *others)


def _row(burial: Burial, body_cap: int) -> tuple[object, ...]:
    message = burial.message
    carried = {
        "key": message.key,
        "content_encoding": message.content_encoding,
        "priority": message.priority,
        "correlation_id": message.correlation_id,
        "timestamp": None if message.timestamp is None else message.timestamp.isoformat(),
    }
    return (
        burial.id,
        burial.message_id,
        storable(burial.reason)[:REASON_LENGTH],
        storable(burial.detail)[:DETAIL_LENGTH],
        message.body[:body_cap],
        len(message.body),
        sha256(message.body).digest(),
        None if message.content_type is None else storable(message.content_type),
        json.dumps(storable(dict(message.headers)), ensure_ascii=False),
        json.dumps(storable(dict(message.coordinates)), ensure_ascii=False),
        json.dumps(storable({k: v for k, v in carried.items() if v is not None}), ensure_ascii=False),
        min(message.attempt or 0, MOST_ATTEMPTS),
    )


def storable(value: Json) -> Json:
    """The value with what Postgres refuses replaced: a dead letter is stored whatever is in it.

    NUL becomes U+2400, a lone surrogate U+FFFD, a number that is not finite its name, an integer that
    Python would not print its size.
    """
    match value:
        case str():
            return value.replace("\0", "\u2400").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case dict():
            return {storable(str(k)): storable(v) for k, v in value.items()}
        case list() | tuple():
            return [storable(v) for v in value]
        case float() if value != value or value in (float("inf"), float("-inf")):
            return str(value)
        case int() if value.bit_length() > MOST_BITS:
            return f"an integer of {value.bit_length()} bits"
        case None | bool() | int() | float():
            return value
        case _:
            return storable(str(value))
