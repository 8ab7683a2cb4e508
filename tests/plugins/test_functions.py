"""Functions as plugins: what it means that a generator is resumed, and what becomes of one that is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta

import pytest

from hammerwork.plugins import (
    EXACTLY_ONCE,
    Bridge,
    BridgeCapabilities,
    Dead,
    Delivery,
    DeliveryAttempt,
    DeliveryReport,
    Disconnected,
    Done,
    Fate,
    Message,
    Misconfigured,
    Options,
    Outcome,
    Receipt,
    Want,
    bridge,
    sink,
)

BRIEF = Want(wait=timedelta(milliseconds=50), linger=timedelta(0))
AT_ONCE = Want(wait=timedelta(0), linger=timedelta(0))


class CountOptions(Options):
    batch: int = 1


class Source:
    """What a generator reads, and what it has told its source."""

    def __init__(self) -> None:
        self.committed: list[int] = []
        self.begun = 0
        self.ended: list[str] = []
        self.more = asyncio.Event()

    def bridge(self, *, batch: int = 1, waits: bool = False) -> Bridge:
        @bridge("counting", options=CountOptions)
        async def counting(options: CountOptions) -> AsyncIterator[Sequence[Message]]:
            """Numbers, from the first that is not committed."""
            self.begun += 1
            try:
                while True:
                    if waits:
                        await self.more.wait()
                    first = len(self.committed)
                    numbers = range(first, first + options.batch)
                    yield [Message(body=str(number).encode(), id=str(number)) for number in numbers]
                    self.committed += numbers
            except BaseException as error:
                self.ended.append(type(error).__name__)
                raise

        return counting("numbers", CountOptions(batch=batch))


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [int(delivery.message.body) for delivery in deliveries]


def stored(deliveries: Sequence[Delivery]) -> list[Receipt]:
    return [Receipt(delivery, Fate.STORED) for delivery in deliveries]


async def test_a_generator_is_resumed_only_after_its_message_is_settled() -> None:
    source = Source()
    numbered = source.bridge()
    await numbered.open()
    first = await numbered.pull(BRIEF)
    assert numbers(first) == [0]
    assert await numbered.pull(AT_ONCE) == []
    assert source.committed == []
    await numbered.settle(stored(first))
    assert numbers(await numbered.pull(BRIEF)) == [1]
    assert source.committed == [0]
    await numbered.close()


async def test_what_stands_behind_the_yield_runs_though_the_bridge_closes_at_once() -> None:
    source = Source()
    numbered = source.bridge()
    await numbered.open()
    await numbered.settle(stored(await numbered.pull(BRIEF)))
    await numbered.close()
    assert source.committed == [0]


async def test_a_list_is_stored_in_as_many_batches_as_are_wanted_and_committed_as_a_whole() -> None:
    source = Source()
    numbered = source.bridge(batch=5)
    await numbered.open()
    two = Want(count=2, wait=timedelta(milliseconds=50))
    batches = [await numbered.pull(two) for _ in range(3)]
    assert [numbers(batch) for batch in batches] == [[0, 1], [2, 3], [4]]
    for batch in batches[:2]:
        await numbered.settle(stored(batch))
    assert await numbered.pull(AT_ONCE) == []
    assert source.committed == []
    await numbered.settle(stored(batches[2]))
    assert numbers(await numbered.pull(two)) == [5, 6]
    assert source.committed == [0, 1, 2, 3, 4]
    await numbered.close()


async def test_what_is_released_comes_again_from_a_new_generator() -> None:
    source = Source()
    numbered = source.bridge(batch=2)
    await numbered.open()
    await numbered.release(await numbered.pull(BRIEF))
    assert source.ended == ["GeneratorExit"]
    assert numbers(await numbered.pull(BRIEF)) == [0, 1]
    assert source.begun == 2
    await numbered.close()


async def test_receipts_of_an_old_generator_do_not_resume_the_new_one() -> None:
    source = Source()
    numbered = source.bridge()
    await numbered.open()
    late = await numbered.pull(BRIEF)
    await numbered.close()
    await numbered.open()
    await numbered.pull(BRIEF)
    await numbered.settle(stored(late))
    assert await numbered.pull(AT_ONCE) == []
    assert source.committed == []
    await numbered.close()


async def test_a_generator_that_waits_goes_on_waiting_between_pulls_and_is_cancelled_at_the_end() -> None:
    source = Source()
    numbered = source.bridge(waits=True)
    await numbered.open()
    assert await numbered.pull(BRIEF) == []
    source.more.set()
    assert numbers(await numbered.pull(BRIEF)) == [0]
    source.more.clear()
    await numbered.close()
    await numbered.open()
    assert await numbered.pull(BRIEF) == []
    await numbered.close()
    assert source.ended == ["GeneratorExit", "CancelledError"]
    assert source.begun == 2


async def test_a_resting_bridge_holds_no_generator_unless_something_is_in_hand() -> None:
    source = Source()
    numbered = source.bridge()
    await numbered.open()
    held = await numbered.pull(BRIEF)
    await numbered.rest()
    assert source.ended == []
    await numbered.settle(stored(held))
    await numbered.rest()
    assert source.ended == ["GeneratorExit"]
    assert source.committed == [0]
    assert numbers(await numbered.pull(BRIEF)) == [1]
    await numbered.close()


async def test_what_a_generator_raises_ends_the_connection() -> None:
    @bridge("failing", options=Options)
    async def failing(options: Options) -> AsyncIterator[Message]:
        raise Disconnected("the source is gone")
        yield

    made = failing("broken", Options())
    await made.open()
    with pytest.raises(Disconnected, match="the source is gone"):
        await made.pull(BRIEF)
    await made.close()
    with pytest.raises(Disconnected, match="not open"):
        await made.pull(BRIEF)


async def test_a_generator_that_returns_leaves_the_bridge_open_and_idle() -> None:
    @bridge("finite", options=Options)
    async def finite(options: Options) -> AsyncIterator[Message]:
        yield Message(body=b"1")

    made = finite("once", Options())
    await made.open()
    await made.settle(stored(await made.pull(BRIEF)))
    assert await made.pull(BRIEF) == []
    assert await made.pull(BRIEF) == []
    await made.close()


async def test_a_function_says_what_a_class_would() -> None:
    @bridge("said", options=CountOptions, capabilities=BridgeCapabilities(stable_ids=True))
    async def said(options: CountOptions) -> AsyncIterator[Message]:
        """It says so."""
        yield Message(body=b"")

    assert said.Options is CountOptions
    assert said.__doc__ == "It says so."
    assert (await said("x", CountOptions()).guarantee()).level == EXACTLY_ONCE
    assert await said("x", CountOptions()).lag() is None


@pytest.mark.parametrize("answer", [None, Done(), Dead("no"), DeliveryReport(outcome=Done(), status=204)])
async def test_a_sink_is_a_function_that_answers_an_outcome(
    answer: DeliveryReport | Outcome | None,
) -> None:
    asked = []

    @sink("kept", options=Options)
    async def kept(options: Options, attempt: DeliveryAttempt) -> DeliveryReport | Outcome | None:
        asked.append(attempt)
        return answer

    made = kept("x", Options())
    await made.open()
    attempt = DeliveryAttempt(event_id="1", cloud_event={}, attempt=1)
    report = await made.deliver(attempt)
    await made.close()
    assert asked == [attempt]
    expected = answer.outcome if isinstance(answer, DeliveryReport) else answer or Done()
    assert report.outcome == expected


def test_a_function_of_the_wrong_sort_is_refused() -> None:
    with pytest.raises(Misconfigured, match="async generator"):

        @bridge("wrong", options=Options)  # type: ignore[arg-type]
        async def wrong(options: Options) -> Message:
            return Message(body=b"")

    with pytest.raises(Misconfigured, match="async function"):

        @sink("wrong", options=Options)  # type: ignore[arg-type]
        def also_wrong(options: Options, attempt: DeliveryAttempt) -> None:
            return None
