"""Reading the event log: in the order of transactions however they are numbered, and only what lies ahead."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.event import EventType
from hammerwork.core.job import Job
from hammerwork.core.postgres.database import statement
from hammerwork.core.publish import relay as relay_room
from hammerwork.core.publish.relay import BATCH, Relay, Subscription, replay_since
from hammerwork.core.queue import Queue

from .running import both_servers

ENQUEUED = Subscription(name="billing", types=frozenset({EventType.ENQUEUED}))


async def relay_for(queue: Queue) -> Relay:
    """A relay whose sink is registered, and reads the log from its start."""
    await queue.database.fetch("register_sink", "billing", "test", sorted(ENQUEUED.types))
    async with queue.database.acquire() as connection:
        await connection.execute("update hammerwork.sinks set position_xid = '0', position_id = 0")
    return Relay(queue.database, ENQUEUED, kind="test")


async def note(connection: asyncpg.Connection, events: int, xid: int, type: str = "job.enqueued") -> None:
    """Events of one transaction of long ago."""
    await connection.execute(
        "insert into hammerwork.events (type, queue, sequence, xid, data)"
        " select $1, 'orders', n, $2::text::xid8, jsonb_build_object('xid', $2::text, 'n', n)"
        " from generate_series(1, $3) as n",
        type, str(xid), events,
    )  # fmt: skip


async def delivered(connection: asyncpg.Connection) -> list[tuple[str, int]]:
    rows = await connection.fetch("select payload -> 'data' as data from hammerwork.jobs order by id")
    found = [json.loads(row["data"]) for row in rows]
    return sorted((data["xid"], data["n"]) for data in found)


@both_servers
async def test_transactions_are_read_in_the_order_of_their_numbers_not_of_their_digits(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue)
    await note(connection, BATCH + 100, 99)
    await note(connection, BATCH + 100, 100)
    every = sorted([("99", n) for n in range(1, BATCH + 101)] + [("100", n) for n in range(1, BATCH + 101)])

    assert await relay.relay_once() == BATCH
    assert {xid for xid, _ in await delivered(connection)} == {"99"}
    while await relay.relay_once():
        pass
    assert await delivered(connection) == every

    await connection.execute("delete from hammerwork.jobs")
    assert await replay_since(queue.database, ENQUEUED, datetime.now(UTC) - timedelta(hours=1)) == len(every)
    assert await delivered(connection) == every


async def test_what_other_sinks_want_is_passed_over_after_a_while(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    relay = await relay_for(queue)
    await note(connection, 1000, 99, "job.completed")
    assert await relay.relay_once() == 0
    (before,) = await operate.sinks(queue.database)
    assert before.position_xid == "0"

    monkeypatch.setattr(relay_room, "PASS_OVER_EVERY", 0.0)
    assert await relay.relay_once() == 0
    (after,) = await operate.sinks(queue.database)
    assert int(after.position_xid) > 99
    await queue.enqueue(Job("orders"))
    assert await relay.relay_once() == 1


async def test_a_position_moves_past_no_transaction_that_is_still_running(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relay_room, "PASS_OVER_EVERY", 0.0)
    relay = await relay_for(queue)
    late = connection.transaction()
    await late.start()
    await queue.enqueue(Job("orders", "late"), conn=connection)
    await queue.enqueue(Job("orders", "early"))
    assert await relay.relay_once() == 0
    await late.commit()
    assert await relay.relay_once() == 2


def scans(plan: dict[str, Any]) -> list[dict[str, Any]]:
    """Every node of a plan."""
    return [plan, *(node for child in plan.get("Plans", []) for node in scans(child))]


@both_servers
async def test_a_look_reads_what_lies_ahead_as_far_as_its_batch_whatever_the_statistics_say(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await relay_for(queue)
    for xid in (97, 98, 99, 100):
        await note(connection, 5000, xid)
    await connection.execute(
        "update hammerwork.sinks set position_xid = '98', position_id = 9223372036854775807"
    )
    async with connection.transaction():
        (place,) = await connection.fetch(statement("sink_position"), "billing")
        explained = await connection.fetchval(
            "explain (analyze, format json) " + statement("read_events"),
            "billing", place["types"], place["xid"], place["id"], place["horizon"], BATCH,
        )  # fmt: skip
    nodes = scans(json.loads(explained)[0]["Plan"])
    assert not [node["Node Type"] for node in nodes if node["Node Type"] in ("Sort", "Seq Scan")]
    read = [
        node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        for node in nodes
        if node["Node Type"] == "Index Scan"
    ]
    assert sum(read) == BATCH
