"""Tombstones that cancel: which job was the latest of a key, and the end of it when its key is deleted."""

from __future__ import annotations

from collections.abc import Sequence
from uuid import UUID

from ..postgres.database import Connection, statement
from .item import Item, inbox_id

REASON = "its key was deleted at the source"


async def follow_keys(connection: Connection, bridge: str, items: Sequence[Item]) -> None:
    """In the caller's transaction and after its jobs are stored: remember the latest job of each key, and
    cancel the latest job of each key that was deleted, in the order of the items."""
    latest: dict[str, UUID | None] = {}
    deleted: list[UUID] = []
    unknown: set[str] = set()
    """Keys that were deleted before any job of theirs among these."""
    for item in items:
        if (given := item.delivery.message.key) is None:
            continue
        key = inbox_id(given) or ""
        if not item.delivery.message.tombstone:
            if item.job_id is not None:
                latest[key] = item.job_id
        elif key not in latest:
            unknown.add(key)
            latest[key] = None
        elif (job_id := latest[key]) is not None:
            deleted.append(job_id)
            latest[key] = None
    if gone := unknown | {key for key, job_id in latest.items() if job_id is None}:
        rows = await connection.fetch(statement("forget_keys"), bridge, sorted(gone))
        deleted += [row["job_id"] for row in rows if row["key"] in unknown]
    kept = sorted((key, job_id) for key, job_id in latest.items() if job_id is not None)
    if kept:
        keys, ids = zip(*kept, strict=True)
        await connection.fetch(statement("remember_keys"), bridge, list(keys), list(ids))
    if deleted:
        await connection.fetch(statement("cancel"), deleted, REASON)
