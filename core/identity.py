"""Ids and slots: a job id is a UUIDv7 whose low 10 bits are its slot, for ever."""

from __future__ import annotations

import os
import time
from hashlib import blake2b
from random import Random
from uuid import UUID

from asyncpg.pgproto.pgproto import UUID as DriverUUID

SLOTS = 1024
"""Fixed for ever: a job's slot routes `get`, `result` and `cancel` without a look-up once there is
more than one partition, and it cannot be added to ids that already exist."""

_VERSION_7 = 0x7 << 76 | 0x2 << 62
_RANDOM_BITS = 62

_random = Random()
"""Our own, seeded by the system: an application that seeds Python's would make the same ids twice."""
os.register_at_fork(after_in_child=_random.seed)


def slot_of(job_id: UUID) -> int:
    """The slot (0..1023) of a job id."""
    return job_id.int & (SLOTS - 1)


def slot_for(*parts: str) -> int:
    """The slot of a key: a pure function, so that a redelivered message meets its own inbox row.

    BLAKE2b rather than Python's or Postgres' hash, because neither is stable over versions.
    """
    digest = blake2b("\x1f".join(parts).encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest, "big") % SLOTS


def new_id(slot: int | None = None) -> UUID:
    """A UUIDv7 (RFC 9562 §5.7) whose low 10 bits are `slot`, a random one without it.

    The 12 bits after the milliseconds hold their fraction (§6.2, method 3: a quarter of a microsecond), so
    that ids made one after the other in a process sort in that order, which a batch of jobs stored at one
    moment relies on. The rest is random; ids need to be unique, not secret. The class is the driver's
    subclass of `uuid.UUID`, the one that rows bring too: it costs a sixth, and this is made once a job.
    """
    ticks = time.time_ns() * 4096 // 1_000_000
    value = ticks >> 12 << 80 | (ticks & 0xFFF) << 64 | _random.getrandbits(_RANDOM_BITS) | _VERSION_7
    if slot is not None:
        value = value & ~(SLOTS - 1) | slot
    return DriverUUID(value.to_bytes(16, "big"))
