"""The relay to log sinks: nothing skipped, jobs in order, positions that move behind what was taken."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Disconnected, Misconfigured, Unavailable
from hammerwork.core.event import EventType, LoggedEvent
from hammerwork.core.job import Dead, Job, Outcome, Retry
from hammerwork.core.publish import log_relay
from hammerwork.core.publish.log_relay import LogRelay
from hammerwork.core.publish.relay import Subscription
from hammerwork.core.queue import Queue

from ..services.postgres import PostgresService
from ..services.proxy import FaultProxy
from .memory_sink import MemorySink
from .restored import AS_RESTORED
from .running import both_servers, running, until

WANTED = Subscription(name="stream", types=frozenset(EventType), from_log=True)
SHORT = timedelta(seconds=3)


def relay_to(queue: Queue, sink: MemorySink, **options: Any) -> LogRelay:
    return LogRelay(queue.database, WANTED, sink, kind="memory", **{"hold": SHORT, **options})


@asynccontextmanager
async def relaying(queue: Queue, sink: MemorySink, **options: Any) -> AsyncIterator[LogRelay]:
    relay = relay_to(queue, sink, **options)
    async with running(relay):

        async def opened() -> bool:
            return sink.opened > 0

        await until(opened)
        yield relay


async def register(queue: Queue) -> None:
    """The sink is known, so events are kept for it from now on."""
    await queue.database.fetch("register_sink", "stream", "memory", sorted(WANTED.types))


async def live(queue: Queue, jobs: int, events_each: int) -> list[Job]:
    """Jobs with so many events each, written in as many transactions."""
    made = [Job("orders", n, delay=timedelta(hours=1)) for n in range(jobs)]
    await queue.enqueue_many(made)
    for turn in range(events_each - 1):
        async with queue.database.transaction() as connection:
            await connection.execute(
                """
                with told as (
                    update hammerwork.jobs set sequence = sequence + 1 returning id, sequence, queue
                )
                insert into hammerwork.events (job_id, sequence, type, queue, data)
                select id, sequence, 'job.snoozed', queue, jsonb_build_object('turn', $1::integer) from told
                """,
                turn,
            )
    return made


async def logged(connection: asyncpg.Connection) -> list[Any]:
    return [row[0] for row in await connection.fetch("select event_id from hammerwork.events")]


async def until_seen(sink: MemorySink, count: int) -> None:
    async def seen() -> bool:
        return len(set(sink.ids())) >= count

    await until(seen)


async def until_caught_up(queue: Queue) -> None:
    async def caught_up() -> bool:
        try:
            return (await operate.sinks(queue.database))[0].behind == 0
        except Unavailable:  # the pool's connections were cut, too
            return False

    await until(caught_up)


# --- the whole log, in order ----------------------------------------------------------------------


@both_servers
async def test_every_event_is_taken_once_and_in_its_jobs_order(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await register(queue)
    await live(queue, jobs=100, events_each=6)
    sink = MemorySink()
    async with relaying(queue, sink, batch=70) as relay:
        await until_seen(sink, 600)
        await until_caught_up(queue)
    assert sorted(sink.ids()) == sorted(await logged(connection))
    sink.assert_in_order()
    assert len(sink.sends) > 4
    assert (relay.counts.events, relay.counts.taken) == (600, 600)
    assert relay.counts.batches == len(sink.sends)
    assert relay.status.state == "stopped"
    assert sink.closed == 1


async def test_a_stop_and_a_start_send_nothing_twice(queue: Queue) -> None:
    await register(queue)
    sink = MemorySink()
    for turn in range(1, 4):
        await live(queue, jobs=10, events_each=1)
        async with relaying(queue, sink):
            await until_seen(sink, 10 * turn)
    assert len(sink.ids()) == 30
    (info,) = await operate.sinks(queue.database)
    assert info.behind == 0


async def test_what_overlapping_transactions_wrote_is_put_in_order(queue: Queue, dsn: str) -> None:
    await register(queue)
    job = Job("orders", delay=timedelta(hours=1))
    await queue.enqueue(job)
    early, late = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    write = """
        with told as (update hammerwork.jobs set sequence = sequence + 1 where id = $1 returning id, sequence)
        insert into hammerwork.events (job_id, sequence, type) select id, sequence, 'job.snoozed' from told
    """
    began = early.transaction()
    await began.start()
    await early.fetch("select pg_current_xact_id()")  # its number is the smaller one, its event the later
    await late.execute(write, job.id)
    await early.execute(write, job.id)
    await began.commit()
    await early.close()
    await late.close()
    sink = MemorySink()
    async with relaying(queue, sink):
        await until_seen(sink, 3)
    assert [event.sequence for event in sink.log] == [1, 2, 3]


async def test_only_wanted_events_are_sent_and_the_others_passed_over(queue: Queue) -> None:
    wanted = Subscription(name="stream", types=frozenset(EventType), queues=("billing",), from_log=True)
    await register(queue)
    await queue.enqueue_many([Job("orders"), Job("billing"), Job("orders")])
    sink = MemorySink()
    relay = LogRelay(queue.database, wanted, sink, kind="memory", hold=SHORT)
    async with running(relay):
        await until_seen(sink, 1)
        await until_caught_up(queue)
    assert [event.queue for event in sink.log] == ["billing"]


async def test_a_backlog_is_read_ahead_by_one_batch_while_another_is_sent(queue: Queue) -> None:
    await register(queue)
    await live(queue, jobs=50, events_each=1)
    sink = MemorySink()
    sink.flowing.clear()
    async with relaying(queue, sink, batch=10) as relay:

        async def holds_one() -> bool:
            return relay.counts.events == 10

        await until(holds_one)
        assert relay.lag > 0
        sink.flowing.set()
        await until_seen(sink, 50)
        await until_caught_up(queue)
        assert relay.lag == 0


# --- what is not taken ----------------------------------------------------------------------------


async def test_what_fails_goes_first_and_later_events_of_its_job_wait(queue: Queue) -> None:
    await register(queue)
    jobs = await live(queue, jobs=20, events_each=5)
    failures = Counter({jobs[3].id: 2, jobs[7].id: 4})

    def refuse_sometimes(event: LoggedEvent) -> Outcome | None:
        if event.sequence == 2 and event.job_id is not None and failures[event.job_id] > 0:
            failures[event.job_id] -= 1
            return Retry("throttled", timedelta(milliseconds=5))
        return None

    sink = MemorySink(judge=refuse_sometimes)
    async with relaying(queue, sink) as relay:
        await until_seen(sink, 100)
    sink.assert_in_order()
    assert len(sink.ids()) == 100
    assert [len(sent) for sent in sink.sends] == [100, 8, 8, 4, 4]
    assert relay.counts.retried == 6


async def test_the_position_waits_for_what_is_not_taken_and_the_reason_is_said(queue: Queue) -> None:
    await register(queue)
    await live(queue, jobs=5, events_each=1)
    held = True
    sink = MemorySink(judge=lambda event: Retry("shard is busy") if held and event.log_id % 2 else None)
    async with relaying(queue, sink, batch=2) as relay:

        async def holding() -> bool:
            return relay.status.reason == "shard is busy"

        await until(holding)
        (info,) = await operate.sinks(queue.database)
        assert info.behind >= 4
        assert info.failing_since is not None
        assert info.lag is not None
        held = False
        await until_seen(sink, 5)
        await until_caught_up(queue)
        assert relay.status.state == "running"
    assert (await operate.sinks(queue.database))[0].failing_since is None


@both_servers
async def test_what_is_refused_for_ever_becomes_a_dead_letter_that_can_be_replayed(queue: Queue) -> None:
    await register(queue)
    jobs = await live(queue, jobs=4, events_each=3)
    refuses = True

    def too_large(event: LoggedEvent) -> Outcome | None:
        bad = refuses and event.job_id == jobs[1].id and event.sequence == 2
        return Dead("too_large: 2000000 bytes") if bad else None

    sink = MemorySink(judge=too_large)
    async with relaying(queue, sink) as relay:
        await until_seen(sink, 11)
        await until_caught_up(queue)
        (letter,) = await operate.dead_letters(queue.database, queue="sink.stream")
        assert (letter.reason, letter.detail, letter.attempts) == ("too_large", "2000000 bytes", 1)
        kept = await operate.dead_letter(queue.database, letter.id)
        assert kept.whole
        assert f'"subject":"{jobs[1].id}"' in kept.body.decode()
        assert relay.counts.dead == 1

        refuses = False
        assert await operate.replay(queue.database, letter.id, {}) is None
        await until_seen(sink, 12)
    assert str(sink.log[-1].id) == letter.message_id
    assert (sink.log[-1].sequence, sink.log[-1].queue) == (2, "orders")
    assert sink.log[-1].data == {"turn": 0}
    assert await operate.dead_letters(queue.database, queue="sink.stream") == []


async def test_a_letter_that_was_replayed_dies_anew(queue: Queue) -> None:
    await register(queue)
    await live(queue, jobs=1, events_each=1)
    sink = MemorySink(judge=lambda _: Dead("refused"))
    async with relaying(queue, sink):
        for turn in range(1, 3):

            async def buried(turn: int = turn) -> bool:
                return len(await operate.dead_letters(queue.database, closed=True)) == turn

            await until(buried)
            (letter,) = await operate.dead_letters(queue.database)
            if turn == 1:
                await operate.replay(queue.database, letter.id, {})


# --- what goes wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", [Disconnected("gone"), RuntimeError("a bug")])
async def test_a_sink_that_fails_is_opened_again_and_the_batch_sent_again(
    queue: Queue, connection: asyncpg.Connection, fault: Exception
) -> None:
    await register(queue)
    await live(queue, jobs=10, events_each=2)
    sink = MemorySink()
    sink.faults = [fault]
    async with relaying(queue, sink) as relay:
        await until_caught_up(queue)
        assert (sink.opened, sink.closed) == (2, 1)
        assert relay.counts.reopened == 1
    assert Counter(sink.ids()) == dict.fromkeys(await logged(connection), 2)
    sink.assert_in_order()


async def test_a_sink_that_keeps_the_position_is_sent_nothing_twice(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await register(queue)
    await live(queue, jobs=10, events_each=4)
    sink = MemorySink(keeps_mark=True)
    sink.faults = [Disconnected("gone"), Disconnected("gone")]
    async with relaying(queue, sink, batch=15):
        await until_seen(sink, 40)
        await until_caught_up(queue)
    assert sorted(sink.ids()) == sorted(await logged(connection))
    assert sink.opened == 3


async def test_the_mark_of_another_log_is_not_believed(queue: Queue) -> None:
    await register(queue)
    await live(queue, jobs=3, events_each=1)
    sink = MemorySink(keeps_mark=True)
    sink.mark = "99999999:0:7000000000000000000.00000001"
    async with relaying(queue, sink):
        await until_seen(sink, 3)


async def test_a_dead_event_is_kept_before_a_sink_that_keeps_the_position_goes_on(queue: Queue) -> None:
    await register(queue)
    jobs = await live(queue, jobs=5, events_each=1)
    sink = MemorySink(
        judge=lambda e: Dead("too_large: much") if e.job_id == jobs[2].id else None, keeps_mark=True
    )
    seen_first: list[int] = []
    send = sink.send

    async def watched(events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
        seen_first.append(len(await operate.dead_letters(queue.database)))
        return await send(events, mark)

    sink.send = watched  # type: ignore[method-assign]
    async with relaying(queue, sink):
        await until_seen(sink, 4)
    assert seen_first == [0, 1]


async def test_a_send_that_hangs_is_cut_and_the_sink_opened_again(queue: Queue) -> None:
    await register(queue)
    await live(queue, jobs=3, events_each=1)
    sink = MemorySink()
    sink.flowing.clear()
    async with relaying(queue, sink, hold=timedelta(seconds=0.6)) as relay:

        async def reopened() -> bool:
            return sink.opened > 1

        await until(reopened)
        assert "no answer within 0.4 s" in relay.status.reason or relay.status.state == "running"
        sink.flowing.set()
        await until_seen(sink, 3)


async def test_a_sink_whose_client_cancels_its_own_call_is_opened_again(queue: Queue) -> None:
    class Cancelling(MemorySink):
        async def send(self, events: Sequence[LoggedEvent], mark: str) -> Sequence[Outcome]:
            if self.opened == 1:
                raise asyncio.CancelledError
            return await super().send(events, mark)

    await register(queue)
    await live(queue, jobs=3, events_each=1)
    sink = Cancelling()
    async with relaying(queue, sink):
        await until_seen(sink, 3)
    assert sink.opened == 2


async def test_a_relay_that_cannot_register_is_held_and_goes_on_when_it_can(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await connection.execute("alter table hammerwork.sinks rename to elsewhere")
    sink = MemorySink()
    relay = relay_to(queue, sink)
    async with running(relay) as task:

        async def held() -> bool:
            return task.done() or "run `hammerwork migrate`" in relay.status.reason

        await until(held)
        await connection.execute("alter table hammerwork.elsewhere rename to sinks")
    assert relay.status.state == "stopped"


async def test_a_stop_while_postgres_is_away_is_no_fault(postgres_service: PostgresService, dsn: str) -> None:
    async with FaultProxy(*postgres_service.address) as proxy:
        url = postgres_service.dsn(dsn.rpartition("/")[2].partition("?")[0], port=proxy.port)
        async with Queue(url) as fragile:
            relay = relay_to(fragile, MemorySink())
            proxy.refuse()
            async with running(relay):

                async def held() -> bool:
                    return relay.status.state == "holding"

                await until(held)


async def test_a_wrong_setting_holds_the_sink_with_its_hint(queue: Queue) -> None:
    class Wrong(MemorySink):
        async def open(self) -> str | None:
            self.opened += 1
            raise Misconfigured("there is no topic 'jobs'", hint="create it")

    await register(queue)
    async with relaying(queue, Wrong()) as relay:

        async def held() -> bool:
            return relay.status.reason == "there is no topic 'jobs'. create it"

        await until(held)


@both_servers
async def test_nothing_is_sent_again_when_postgres_is_cut_off_meanwhile(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await register(queue)
    await live(queue, jobs=200, events_each=5)
    sink = MemorySink()
    async with relaying(queue, sink, batch=20):
        for turn in range(1, 6):
            await until_seen(sink, 150 * turn)
            await connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
        await until_caught_up(queue)
    assert sorted(sink.ids()) == sorted(await logged(connection))
    sink.assert_in_order()


async def test_of_two_relays_one_sends_and_the_other_takes_over(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await register(queue)
    first, second = MemorySink(), MemorySink()
    async with relaying(queue, first) as relay, running(relay_to(queue, second)):
        await live(queue, jobs=20, events_each=1)
        await until_seen(first, 20)
        assert second.opened == 0
        relay.stop()
        await live(queue, jobs=5, events_each=1)
        await until_seen(second, 1)
        await until_caught_up(queue)
    assert sorted(first.ids() + second.ids()) == sorted(await logged(connection))


async def test_a_relay_whose_position_somebody_else_moved_begins_anew(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await register(queue)
    sink = MemorySink()
    sink.flowing.clear()
    async with relaying(queue, sink) as relay:
        await live(queue, jobs=3, events_each=1)

        async def holds_them() -> bool:
            return relay.counts.events == 3

        await until(holds_them)
        await connection.execute(
            "update hammerwork.sinks set position_id = 1,"
            " position_xid = pg_snapshot_xmax(pg_current_snapshot())"
        )
        sink.flowing.set()

        async def noticed() -> bool:
            return sink.opened == 2

        await until(noticed)
        await live(queue, jobs=1, events_each=1)
        await until_seen(sink, 4)
    assert len(sink.ids()) == 4


async def test_a_position_of_another_server_is_said_and_ends_with_its_removal(
    queue: Queue, connection: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_relay, "MISCONFIGURED_RETRY", 0.1)
    await register(queue)
    await connection.execute(AS_RESTORED)
    sink = MemorySink()
    relay = relay_to(queue, sink)
    async with running(relay):
        await live(queue, jobs=1, events_each=1)

        async def held() -> bool:
            return relay.status.state == "holding"

        await until(held)
        assert "the position of sink 'stream' is ahead of this server's transactions" in relay.status.reason
        assert "`hammerwork sink remove stream`" in relay.status.reason
        assert sink.opened == 0
        since = await connection.fetchval("select min(at) from hammerwork.events")
        await operate.remove_sink(queue.database, "stream")

        async def opened() -> bool:
            return sink.opened > 0

        await until(opened)
        await live(queue, jobs=1, events_each=1)
        await until_seen(sink, 1)
        await operate.replay_sink_since(queue.database, WANTED, since)
        await until_seen(sink, 2)


# --- an operator's acts ---------------------------------------------------------------------------


async def test_a_paused_sink_is_closed_and_goes_on_where_it_stopped(queue: Queue) -> None:
    await register(queue)
    sink = MemorySink()
    async with relaying(queue, sink):
        await operate.pause_sink(queue.database, "stream", "maintenance")

        async def closed() -> bool:
            return sink.closed == 1

        await until(closed)
        await live(queue, jobs=3, events_each=1)
        assert sink.log == []
        await operate.resume_sink(queue.database, "stream")
        await until_seen(sink, 3)
    assert len(sink.ids()) == 3


async def test_a_replay_goes_through_the_log_to_this_sink_alone(
    queue: Queue, connection: asyncpg.Connection
) -> None:
    await register(queue)
    other = Subscription(name="other", types=frozenset(EventType), from_log=True)
    await queue.database.fetch("register_sink", "other", "memory", sorted(other.types))
    sink, bystander = MemorySink(), MemorySink("other")
    async with relaying(queue, sink), running(LogRelay(queue.database, other, bystander, kind="memory")):
        await live(queue, jobs=6, events_each=1)
        await until_seen(sink, 6)
        since = await connection.fetchval("select clock_timestamp()")
        await live(queue, jobs=4, events_each=1)
        await until_seen(sink, 10)
        assert await operate.replay_sink_since(queue.database, WANTED, since) == 4
        assert await operate.replay_sink_since(queue.database, WANTED, since) == 4

        async def again() -> bool:
            return len(sink.ids()) == 18

        await until(again)
        await until_seen(bystander, 10)
    assert Counter(Counter(sink.ids()).values()) == {1: 6, 3: 4}
    assert len(bystander.ids()) == 10
