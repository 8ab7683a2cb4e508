"""Flow: what holds a bridge back, and what lets it go on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import asyncpg
import pytest

from hammerwork.core import operate
from hammerwork.core.errors import Misconfigured, NotFound
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.flow import Allowance, Circuit, FlowLimits
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.message import EXACTLY_ONCE, Delivery, Guarantee, Message, Receipt, Want
from hammerwork.core.postgres.database import Database

from .running import running, until

CLOCK = "hammerwork.core.ingest.flow.time.monotonic"


class Tap:
    """A Bridge that gives what was pushed into it, at most `want.count` at a time."""

    name = "orders"

    def __init__(self) -> None:
        self.waiting: deque[bytes] = deque()
        self.rested = 0
        self.opened = 0
        self.settled = 0
        self.stuck = False
        self.asked = 0

    def push(self, *bodies: bytes) -> None:
        self.waiting.extend(bodies)

    async def open(self) -> None:
        self.opened += 1

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if self.stuck:
            self.stuck = False
            await asyncio.get_running_loop().create_future()
        if not self.waiting:
            await asyncio.sleep(min(0.01, want.wait.total_seconds()))
        count = min(want.count, len(self.waiting))
        return [Delivery(Message(body=self.waiting.popleft())) for _ in range(count)]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        self.settled += len(receipts)

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.waiting.extendleft(delivery.message.body for delivery in reversed(deliveries))

    async def rest(self) -> None:
        self.rested += 1

    async def lag(self) -> int | None:
        self.asked += 1
        return len(self.waiting)

    async def close(self) -> None:
        return

    async def guarantee(self) -> Guarantee:
        return Guarantee(EXACTLY_ONCE, "it is a test")


@pytest.fixture
async def database(dsn: str) -> AsyncIterator[Database]:
    async with Database(dsn) as database:
        yield database


def intake_of(database: Database, tap: Tap, **limits: object) -> Intake:
    flow = FlowLimits(**limits)  # type: ignore[arg-type]
    return Intake(database, tap, Decoder(), FieldMapping("work"), flow=flow, feeds=["work"])


async def until_settled(tap: Tap, count: int) -> None:
    async def settled() -> bool:
        return tap.settled >= count

    await until(settled)


async def until_state(intake: Intake, state: str) -> None:
    async def reached() -> bool:
        return intake.status.state == state

    await until(reached)


async def test_a_bridge_that_an_operator_pauses_pulls_nothing_until_it_is_resumed(database: Database) -> None:
    tap = Tap()
    tap.push(b"1")
    intake = intake_of(database, tap)
    async with running(intake):
        await until_settled(tap, 1)
        await operate.pause_bridge(database, "orders", "their schema changes")
        await until_state(intake, "paused")
        assert intake.status.reason == "paused: their schema changes"
        (known,) = await operate.bridges(database)
        assert (known.name, known.pause_reason) == ("orders", "their schema changes")
        tap.push(b"2")
        rested = tap.rested

        async def rested_again() -> bool:
            return tap.rested > rested

        await until(rested_again)
        assert (len(tap.waiting), tap.settled, tap.opened) == (1, 1, 1)
        assert await operate.resume_bridge(database, "orders")
        await until_settled(tap, 2)
    assert intake.status.reason == ""
    assert not await operate.resume_bridge(database, "orders")


async def test_a_bridge_that_nobody_knows_cannot_be_paused(database: Database) -> None:
    with pytest.raises(NotFound):
        await operate.pause_bridge(database, "odrers")
    with pytest.raises(NotFound):
        await operate.resume_bridge(database, "odrers")


@pytest.mark.parametrize("limits", [{"depth": 10}, {"age": timedelta(minutes=5)}])
async def test_a_bridge_rests_while_its_queue_is_deep_and_goes_on_well_below_that(
    database: Database, connection: asyncpg.Connection, limits: dict[str, object]
) -> None:
    tap = Tap()
    intake = intake_of(database, tap, **limits, resume_at=0.5)
    await connection.execute(
        "insert into hammerwork.jobs (id, queue, run_at)"
        " select gen_random_uuid(), 'work', now() - interval '10 min' from generate_series(1, 10)"
    )
    async with running(intake):
        await until_state(intake, "paused")
        tap.push(b"1")
        # Below the limit, and not yet below half of it.
        await connection.execute(
            "delete from hammerwork.jobs where id in (select id from hammerwork.jobs limit 4)"
        )
        await connection.execute("update hammerwork.jobs set run_at = now() - interval '3 min'")
        rested = tap.rested

        async def rested_twice() -> bool:
            return tap.rested >= rested + 2

        await until(rested_twice)
        assert tap.settled == 0
        await connection.execute("delete from hammerwork.jobs")
        await until_settled(tap, 1)


async def test_too_many_dead_letters_pause_the_bridge_for_an_operator_to_look(
    database: Database, connection: asyncpg.Connection
) -> None:
    tap = Tap()
    tap.push(*[b"{}"] * 70, *[b"{"] * 30)
    intake = intake_of(database, tap, dead_letter_share=0.3)
    async with running(intake):
        await until_state(intake, "paused")
        assert intake.status.reason == "paused: 30 of the last 100 messages became dead letters"
        tap.push(b"{}")
        await operate.resume_bridge(database, "orders")
        await until_settled(tap, 101)
    assert await connection.fetchval("select count(*) from hammerwork.dead_letters") == 30


async def test_a_bridge_that_is_stuck_although_messages_wait_is_opened_anew(database: Database) -> None:
    tap = Tap()
    tap.stuck = True
    tap.push(b"1")
    intake = intake_of(database, tap, stall_after=timedelta(seconds=0.3))
    async with running(intake):
        await until_settled(tap, 1)
    assert (tap.opened, intake.counts.stalls) == (2, 1)


async def test_a_bridge_without_messages_is_never_taken_for_stuck(database: Database) -> None:
    tap = Tap()
    intake = intake_of(database, tap, stall_after=timedelta(seconds=0.1))
    async with running(intake):

        async def asked_for_long() -> bool:
            return tap.asked >= 20

        await until(asked_for_long)
    assert (tap.opened, intake.counts.stalls) == (1, 0)


async def test_a_rate_is_kept(database: Database) -> None:
    tap = Tap()
    tap.push(*[b"1"] * 50)
    loop = asyncio.get_running_loop()
    async with running(intake_of(database, tap, rate=20)):
        started = loop.time()
        await until_settled(tap, 50)
        # The first second's worth comes at once.
        assert loop.time() - started >= (50 - 20) / 20 - 0.1


async def test_a_bridge_that_waits_for_its_rate_is_not_taken_for_stuck(database: Database) -> None:
    tap = Tap()
    tap.push(b"1", b"2")
    intake = intake_of(database, tap, rate=1, stall_after=timedelta(seconds=0.2))
    async with running(intake):
        await until_settled(tap, 2)
    assert (tap.opened, intake.counts.stalls) == (1, 0)


def test_an_allowance_fills_with_time_and_holds_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(CLOCK, lambda: now)
    allowance = Allowance(10)
    assert allowance.left() == 10
    allowance.spend(12)
    assert allowance.left() == 0
    now += 0.25
    assert allowance.left() == 0
    now += 0.06
    assert allowance.left() == 1
    now += 60
    assert allowance.left() == 10


def test_a_circuit_forgets_what_is_long_ago(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(CLOCK, lambda: now)
    circuit = Circuit(FlowLimits(dead_letter_share=0.5, dead_letter_least=10))
    assert circuit.count(9, 9) is None
    now += 61
    assert circuit.count(9, 9) is None
    assert circuit.count(1, 0) == "9 of the last 10 messages became dead letters"
    # Whoever could not pause the bridge is told again.
    assert circuit.count(1, 0) == "9 of the last 11 messages became dead letters"
    circuit.forget()
    assert circuit.count(9, 9) is None


def test_limits_that_cannot_be_are_refused() -> None:
    with pytest.raises(Misconfigured):
        FlowLimits(resume_at=0)
    with pytest.raises(Misconfigured):
        FlowLimits(rate=0)
