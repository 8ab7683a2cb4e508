"""Deadlines: one timer for all, each block its own full time, and cancellations that stay what they are."""

from __future__ import annotations

import asyncio
import time

import pytest

from hammerwork.sinks.webhook.deadlines import Deadlines

LIMIT = 0.1


async def too_long(deadlines: Deadlines) -> float:
    """How long it was let run, in a block that never ends by itself."""
    started = time.monotonic()
    with pytest.raises(TimeoutError), deadlines.begin():
        await asyncio.Event().wait()
    return time.monotonic() - started


async def test_each_block_has_the_whole_time_whoever_began_before_it() -> None:
    deadlines = Deadlines(LIMIT)
    first = asyncio.create_task(too_long(deadlines))
    with deadlines.begin():  # one that ends in time, between those that do not
        await asyncio.sleep(LIMIT / 2)
    second = asyncio.create_task(too_long(deadlines))
    for taken in await asyncio.gather(first, second):
        assert LIMIT * 0.98 <= taken < LIMIT * 5


async def test_it_works_again_after_nothing_ran_for_a_while() -> None:
    deadlines = Deadlines(LIMIT)
    with deadlines.begin():
        pass
    await asyncio.sleep(LIMIT * 1.5)  # the timer of the first block passes, and finds none
    assert await too_long(deadlines) >= LIMIT * 0.98
    assert await too_long(deadlines) >= LIMIT * 0.98


async def test_a_cancellation_from_outside_is_no_timeout() -> None:
    deadlines = Deadlines(LIMIT)
    entered = asyncio.Event()

    async def block() -> None:
        with deadlines.begin():
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(block())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_a_block_that_goes_on_for_a_while_is_cancelled_once() -> None:
    deadlines, cancelled = Deadlines(LIMIT), 0

    async def stubborn() -> None:
        nonlocal cancelled
        with deadlines.begin():
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancelled += 1
                await too_long(deadlines)  # a later block of the same endpoint; its timer passes us again
                raise

    with pytest.raises(TimeoutError):
        await stubborn()
    assert cancelled == 1
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_an_error_of_the_block_comes_out_as_it_is_also_when_the_time_is_over() -> None:
    deadlines = Deadlines(LIMIT)

    async def failing() -> None:
        with deadlines.begin():
            try:
                await asyncio.Event().wait()
            finally:
                raise ValueError("its own")

    with pytest.raises(ValueError, match="its own"):
        await failing()
