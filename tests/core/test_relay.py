"""The relay: no event is lost however transactions overlap, and none is fanned out twice."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, defaultdict
from datetime import timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Unavailable
from hammerwork.core.event import EventType
from hammerwork.core.execute.handlers import Handlers
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.job import Cancel, Dead, Job, Snooze
from hammerwork.core.publish.relay import Relay, Subscription, replay_since
from hammerwork.core.queue import Queue
from hammerwork.core.retry import Fixed

from .restored import AS_RESTORED
from .running import both_servers, running, scans_of, until, worker_of

EVERYTHING = frozenset(EventType)


def subscription(*types: EventType, **options: Any) -> Subscription:
    return Subscription(name="billing", types=frozenset(types) or EVERYTHING, **options)


async def relay_for(queue: Queue, wanted: Subscription) -> Relay:
    """A relay whose sink is registered."""
    await queue.database.fetch("register_sink", wanted.name, "test", sorted(wanted.types))
    return Relay(queue.database, wanted, kind="test")


async def drain(relay: Relay) -> int:
    """Relay until nothing is left; how many events there were."""
    taken = total = await relay.relay_once()
    while taken:
        taken = await relay.relay_once()
        total += taken
    return total


async def deliveries(connection: asyncpg.Connection, sink: str = "billing") -> list[dict[str, Any]]:
    """The CloudEvents that were fanned out, in the order in which they would be delivered."""
    rows = await connection.fetch(
        "select payload::text from hammerwork.jobs where queue = $1 order by created_at, run_at, id",
        f"sink.{sink}",
    )
    return [json.loads(row["payload"]) for row in rows]


async def test_a_position_of_another_server_is_said_and_ends_with_its_removal(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription())
    await connection.execute(AS_RESTORED)
    async with running(relay):
        await queue.enqueue(Job("orders"))

        async def held() -> bool:
            return relay.status.state == "holding"

        await until(held)
        assert "the position of sink 'billing' is ahead of this server's transactions" in relay.status.reason
        assert "`hammerwork sink remove billing`" in relay.status.reason
        await operate.remove_sink(queue.database, "billing")

        async def begins_anew() -> bool:
            return relay.status.state == "running"

        await until(begins_anew)
        await queue.enqueue(Job("orders"))

        async def delivered() -> bool:
            return len(await deliveries(connection)) == 1

        await until(delivered)


async def test_a_relay_without_events_takes_no_lock_again_and_again(dsn: str) -> None:
    before_it = await scans_of("sinks", dsn)
    async with Queue(dsn) as queue:
        relay = await relay_for(queue, subscription())
        for _ in range(50):
            await relay._turn(1.0)
        await queue.enqueue(Job("orders"))
        await relay._turn(1.0)
        assert relay.counts.events == 1
    assert await scans_of("sinks", dsn) - before_it < 20


# --- nothing is lost ------------------------------------------------------------------------------


class NaiveReader:
    """What an outbox reader looks like at first sight: `where id > position`."""

    def __init__(self, connection: asyncpg.Connection) -> None:
        self._connection = connection
        self._position = 0
        self.seen: set[str] = set()

    async def look(self) -> None:
        rows = await self._connection.fetch(
            "select id, event_id::text from hammerwork.events where id > $1 order by id", self._position
        )
        if rows:
            self._position = rows[-1]["id"]
        self.seen |= {row["event_id"] for row in rows}


class Writer:
    """An application that enqueues in transactions of its own and takes its time to commit them."""

    def __init__(self, queue: Queue, connection: asyncpg.Connection, chance: random.Random) -> None:
        self._queue = queue
        self._connection = connection
        self._chance = chance

    async def write(self, transactions: int) -> None:
        for _ in range(transactions):
            transaction = self._connection.transaction()
            await transaction.start()
            for _ in range(self._chance.randint(1, 3)):
                await self._queue.enqueue(Job("orders"), conn=self._connection)
                await asyncio.sleep(self._chance.random() * 0.004)
            if self._chance.random() < 0.1:
                await transaction.rollback()
            else:
                await transaction.commit()


@both_servers
async def test_no_event_is_lost_where_a_reader_by_id_loses_some(
    queue: Queue, dsn: str, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription(EventType.ENQUEUED))
    naive = NaiveReader(connection)
    connections = [await asyncpg.connect(dsn) for _ in range(8)]

    # For certain: the transaction that wrote first commits last, and both readers look in between.
    first, second = connections[0].transaction(), connections[1].transaction()
    await first.start()
    await second.start()
    await queue.enqueue(Job("orders"), conn=connections[0])
    await queue.enqueue(Job("orders"), conn=connections[1])
    await second.commit()
    await naive.look()
    assert await relay.relay_once() == 0  # it waits for the first
    await first.commit()

    # And as it comes: many at once, while both readers look all the time.
    chance = random.Random(20)
    writers = [Writer(queue, one, chance) for one in connections]
    writing = asyncio.gather(*(writer.write(25) for writer in writers))
    while not writing.done():
        await naive.look()
        await relay.relay_once()
        await asyncio.sleep(0)
    await writing
    await naive.look()
    await drain(relay)
    for one in connections:
        await one.close()

    committed = {row[0] for row in await connection.fetch("select event_id::text from hammerwork.events")}
    relayed = [event["id"] for event in await deliveries(connection)]
    assert len(committed) > 300
    assert set(relayed) == committed
    assert len(relayed) == len(committed)
    assert committed - naive.seen, "the reader by id was lucky: this test shows nothing"


@both_servers
async def test_a_position_and_its_deliveries_move_together_or_not_at_all(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription(EventType.ENQUEUED))
    await queue.enqueue_many([Job("orders", n) for n in range(10)])
    await connection.execute(
        """
        create function public.die() returns trigger language plpgsql as
            $$ begin perform pg_terminate_backend(pg_backend_pid()); return new; end $$;
        create trigger die before update of position_id on hammerwork.sinks
            for each row execute function public.die();
        """
    )
    try:
        for _ in range(3):
            with pytest.raises(Unavailable):
                await relay.relay_once()
            assert await deliveries(connection) == []
    finally:
        await connection.execute("drop trigger die on hammerwork.sinks")
    assert await drain(relay) == 10
    assert len({event["id"] for event in await deliveries(connection)}) == 10
    assert len(await deliveries(connection)) == 10


@both_servers
async def test_relays_of_one_sink_that_run_at_once_fan_each_event_out_once(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relays = [await relay_for(queue, subscription(EventType.ENQUEUED)) for _ in range(4)]
    for _ in range(3):
        await queue.enqueue_many([Job("orders") for _ in range(700)])
        await asyncio.gather(*(drain(relay) for relay in relays))
    relayed = Counter(event["id"] for event in await deliveries(connection))
    assert len(relayed) == 2_100
    assert set(relayed.values()) == {1}
    assert sum(relay.counts.deliveries for relay in relays) == 2_100


async def test_relays_that_run_find_events_by_themselves(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relays = [Relay(queue.database, subscription(EventType.ENQUEUED), kind="test") for _ in range(2)]

    async def registered() -> bool:
        return len(await operate.sinks(queue.database)) == 1

    async with running(relays[0]), running(relays[1]):
        await until(registered)
        await queue.enqueue_many([Job("orders") for _ in range(100)])

        async def relayed() -> bool:
            return len(await deliveries(connection)) >= 100

        await until(relayed)
        assert {relay.status.state for relay in relays} == {"running"}
    assert len(await deliveries(connection)) == 100
    assert {relay.status.state for relay in relays} == {"stopped"}


# --- what is written, and in which order ----------------------------------------------------------


@both_servers
async def test_the_events_of_a_job_tell_its_whole_life_in_order(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription())
    handlers = Handlers()

    @handlers.queue("orders", retry=Fixed(timedelta(0)))
    async def handle(job: RunningJob) -> Any:
        match job.payload, job.attempt:
            case "snoozes", _:
                return Snooze(timedelta(hours=1))
            case "fails twice", (1 | 2):
                raise ValueError("not yet")
            case "times out", 1:
                await asyncio.sleep(60)
            case "gives up", _:
                return Dead("hopeless")
            case "uses up its attempts", _:
                raise ValueError("never")
            case "cancels", _:
                return Cancel("unwanted")
        return None

    options: dict[str, dict[str, Any]] = {
        "times out": {"timeout": timedelta(milliseconds=30)},
        "uses up its attempts": {"max_attempts": 2},
        "is cancelled": {"delay": timedelta(hours=1)},
    }
    names = ["succeeds", "snoozes", "fails twice", "times out", "gives up", "uses up its attempts", "cancels"]
    jobs = {name: Job("orders", name, **options.get(name, {})) for name in [*names, "is cancelled"]}
    await queue.enqueue_many(list(jobs.values()))
    await queue.cancel(jobs["is cancelled"].id, "changed my mind")
    async with running(worker_of(queue, handlers)):

        async def all_ended() -> bool:
            return not await connection.fetchval("select count(*) from hammerwork.jobs where run_at <= now()")

        await until(all_ended)
    await queue.retry(jobs["gives up"].id)
    await drain(relay)

    lives: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    names_of = {str(job.id): name for name, job in jobs.items()}
    for event in await deliveries(connection):
        lives[names_of[event["subject"]]].append((event["sequence"], event["type"].rpartition(".")[2]))
    for life in lives.values():
        sequences = [sequence for sequence, _ in life]
        assert sequences == sorted(set(sequences))
    told = {name: " ".join(kind for _, kind in life) for name, life in lives.items()}
    assert told == {
        "succeeds": "enqueued started completed",
        "snoozes": "enqueued started snoozed",
        "fails twice": "enqueued started failed retried started failed retried started completed",
        "times out": "enqueued started timed_out retried started completed",
        "gives up": "enqueued started dead retried",
        "uses up its attempts": "enqueued started failed retried started failed dead",
        "cancels": "enqueued started cancelled",
        "is cancelled": "enqueued cancelled",
    }


async def test_the_jobs_of_sinks_write_no_events(queue: Queue, connection: asyncpg.Connection) -> None:
    relay = await relay_for(queue, subscription())
    await queue.enqueue_many([Job("orders", n) for n in range(5)])
    await drain(relay)

    def fail(job: RunningJob) -> Any:
        return Dead("refused") if job.payload["data"]["queue"] == "orders" else None

    async with running(worker_of(queue, {"sink.billing": fail})):

        async def all_dead() -> bool:
            return bool(await connection.fetchval("select count(*) = 5 from hammerwork.history"))

        await until(all_dead)
    assert await connection.fetchval("select count(*) from hammerwork.events where queue <> 'orders'") == 0
    assert await drain(relay) == 0


async def test_only_what_some_sink_wants_is_written(queue: Queue, connection: asyncpg.Connection) -> None:
    await queue.enqueue(Job("orders"))
    await relay_for(queue, subscription(EventType.CANCELLED))
    job = Job("orders")
    await queue.enqueue(job)
    await queue.cancel(job.id, "unwanted")
    rows = await connection.fetch("select type, sequence, data::text from hammerwork.events")
    assert [(row["type"], row["sequence"]) for row in rows] == [("job.cancelled", 2)]
    assert json.loads(rows[0]["data"])["error"] == "unwanted"


async def test_an_event_of_a_transaction_that_is_rolled_back_was_never_there(
    queue: Queue, dsn: str, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription())
    undone = connection.transaction()
    await undone.start()
    await queue.enqueue(Job("orders"), conn=connection)
    await undone.rollback()
    assert await drain(relay) == 0


async def test_filtered_events_are_passed_over_and_not_looked_at_again(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription(EventType.ENQUEUED, queues=("orders",)))
    await queue.enqueue_many([Job("orders"), Job("billing"), Job("billing")])
    assert await drain(relay) == 3
    assert (relay.counts.events, relay.counts.deliveries) == (3, 1)
    assert len(await deliveries(connection)) == 1
    (info,) = await operate.sinks(queue.database)
    assert info.behind == 0


# --- a sink's position ----------------------------------------------------------------------------


async def test_a_new_sink_begins_now_and_a_known_one_goes_on(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await relay_for(queue, Subscription(name="older", types=frozenset({EventType.ENQUEUED})))
    await queue.enqueue(Job("orders", "before"))
    relay = await relay_for(queue, subscription(EventType.ENQUEUED))
    await queue.enqueue(Job("orders", "after"))
    assert await drain(relay) == 1
    await queue.enqueue(Job("orders", "while it was down"))
    again = await relay_for(queue, subscription(EventType.ENQUEUED))
    assert await drain(again) == 1


async def test_a_paused_sink_holds_its_events_until_it_is_resumed(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    relay = await relay_for(queue, subscription(EventType.ENQUEUED))
    await operate.pause_sink(queue.database, "billing", "maintenance")
    await queue.enqueue_many([Job("orders") for _ in range(3)])
    assert await drain(relay) == 0
    (info,) = await operate.sinks(queue.database)
    assert (info.state, info.reason, info.behind) == ("paused", "maintenance", 3)
    await operate.resume_sink(queue.database, "billing")
    assert await drain(relay) == 3
    assert len(await deliveries(connection)) == 3


@both_servers
async def test_a_replay_delivers_again_under_the_first_ids(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    wanted = subscription(EventType.ENQUEUED, queues=("orders",))
    relay = await relay_for(queue, wanted)
    await queue.enqueue_many([Job("orders") for _ in range(600)] + [Job("billing")])
    await drain(relay)
    since = await connection.fetchval("select clock_timestamp()")
    await queue.enqueue_many([Job("orders") for _ in range(7)])
    await drain(relay)

    first = await ids_by_delivery(connection)
    assert await replay_since(queue.database, wanted, since) == 7
    assert await replay_since(queue.database, wanted, since - timedelta(hours=1)) == 607
    again = await ids_by_delivery(connection)
    assert len(again) == len(first) + 7 + 607
    assert Counter(Counter(again.values()).values()) == {2: 600, 3: 7}
    assert await drain(relay) == 0  # the position did not move


async def ids_by_delivery(connection: asyncpg.Connection) -> dict[UUID, str]:
    rows = await connection.fetch(
        "select id, payload ->> 'id' as event from hammerwork.jobs where queue = 'sink.billing'"
    )
    return {row["id"]: row["event"] for row in rows}
