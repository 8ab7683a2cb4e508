"""The Redis sink on a real server: transactions of entries, all or nothing, and nothing behind nothing."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.identity import new_id
from hammerwork.core.job import Done, Retry, Snooze
from hammerwork.plugins.redis import RedisSink, RedisSinkOptions

from ..services.broker import BrokerService
from ..services.proxy import FaultProxy
from ..sinks.streaming import NO_JOB, event, events
from .redis_stream import RedisStream

MARK = "1:0:log"


def sink_of(stream: RedisStream, **settings: Any) -> RedisSink:
    usual = {"url": stream.url, "stream": stream.name}
    return RedisSink("events", RedisSinkOptions.model_validate(usual | settings))


@pytest.fixture
async def sink(redis_stream: RedisStream) -> AsyncIterator[RedisSink]:
    """An open sink on the test's stream."""
    sink = sink_of(redis_stream)
    await sink.open()
    yield sink
    await sink.close()


async def entries(stream: RedisStream) -> list[dict[str, str]]:
    found = await stream.ask("XRANGE", stream.name, "-", "+")
    return [{flat[n].decode(): flat[n + 1].decode() for n in range(0, len(flat), 2)} for _, flat in found]


async def test_an_event_is_an_entry_with_its_attributes_as_fields(
    redis_stream: RedisStream, sink: RedisSink
) -> None:
    sent = [event(sequence=3), event(NO_JOB, queue=None, type="sink.disabled")]
    assert await sink.send(sent, MARK) == [Done(), Done()]
    found = await entries(redis_stream)
    assert [{**fields, "data": json.loads(fields["data"])} for fields in found] == [
        json.loads(one.cloud_event()) for one in sent
    ]
    assert (await sink.guarantee()).level == "at-least-once"


async def test_the_stream_keeps_about_as_many_as_it_may(redis_stream: RedisStream) -> None:
    sink = sink_of(redis_stream, max_length=5)
    await sink.open()
    await sink.send(events(300, 1), MARK)
    assert await redis_stream.ask("XLEN", redis_stream.name) < 300
    await sink.close()


async def test_a_server_that_is_full_takes_whole_transactions_and_nothing_behind_them(
    redis_stream: RedisStream, sink: RedisSink
) -> None:
    """The first transaction fits in, the second does not: its events come again, and the rest behind them."""
    job = new_id()
    sent = [event(job, n, data={"note": "x" * 1_000_000}) for n in range(1, 17)]
    used = (await redis_stream.ask("INFO", "memory")).decode().split("used_memory:")[1].split()[0]
    await redis_stream.ask("CONFIG", "SET", "maxmemory", int(used) + 10_000_000)
    try:
        outcomes = await sink.send(sent, MARK)
    finally:
        await redis_stream.ask("CONFIG", "SET", "maxmemory", 0)
    done = outcomes.count(Done())
    assert 0 < done < 16
    assert len(await entries(redis_stream)) == done
    refused = outcomes[done]
    assert isinstance(refused, Retry)
    assert refused.reason.startswith("command not allowed when used memory"), "more than the server said"
    assert isinstance(outcomes[-1], Snooze)
    assert await sink.send(sent[done:], MARK) == [Done()] * (16 - done)
    assert [int(fields["sequence"]) for fields in await entries(redis_stream)] == list(range(1, 17))


async def test_a_lost_answer_is_a_disconnect_and_the_batch_comes_again_under_the_same_ids(
    redis_service: BrokerService, redis_stream: RedisStream
) -> None:
    async with FaultProxy(*redis_service.address) as proxy:
        sink = sink_of(redis_stream, url=f"redis://127.0.0.1:{proxy.port}")
        await sink.open()
        sent = events(2, 2)
        proxy.cut_after(b"EXEC")
        with pytest.raises(Disconnected):
            await sink.send(sent, MARK)
        await sink.open()
        assert await sink.send(sent, MARK) == [Done()] * 4
        await sink.close()
    assert [fields["id"] for fields in await entries(redis_stream)] == [str(one.id) for one in sent] * 2


async def test_a_sink_says_what_is_in_its_way(redis_stream: RedisStream, sink: RedisSink) -> None:
    wrong = sink_of(redis_stream, url=redis_stream.url.replace("://", "://tester:wr0ng@"))
    with pytest.raises(Misconfigured) as refused:
        await wrong.open()
    assert "wr0ng" not in str(refused.value) + refused.value.hint
    with pytest.raises(Disconnected):
        await sink_of(redis_stream, url="redis://127.0.0.1:1").open()
    await redis_stream.ask("SET", redis_stream.name, "text")
    with pytest.raises(Misconfigured, match="is a string"):
        await sink_of(redis_stream).open()
    with pytest.raises(Misconfigured, match=r"^WRONGTYPE") as refused:
        await sink.send([event(data={"note": "private"})], MARK)
    assert "private" not in str(refused.value)
    await sink.close()
    with pytest.raises(Disconnected, match="not open"):
        await sink.send([event()], MARK)
