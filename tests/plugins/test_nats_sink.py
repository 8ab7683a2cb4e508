"""The NATS sink on a real server: what a stream takes, drops as known, and refuses for now or for good."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from nats.js.api import DiscardPolicy

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.identity import new_id
from hammerwork.core.job import Dead, Done, Retry, Snooze
from hammerwork.plugins.nats import NatsSink, NatsSinkOptions

from ..services.broker import BrokerService
from ..services.proxy import FaultProxy
from ..sinks.streaming import event, events
from .nats_stream import NatsStream

MARK = "1:0:log"


def sink_of(place: NatsStream, **settings: Any) -> NatsSink:
    usual = {"url": place.url, "subject": f"{place.name}.{{type}}", "stream": place.name}
    return NatsSink("events", NatsSinkOptions.model_validate(usual | settings))


@pytest.fixture
async def sink(nats_stream: NatsStream) -> AsyncIterator[NatsSink]:
    """An open sink on the test's stream."""
    sink = sink_of(nats_stream)
    await sink.open()
    yield sink
    await sink.close()


async def stored(place: NatsStream) -> int:
    return int((await place.js.stream_info(place.name)).state.messages)


async def limit(place: NatsStream, **settings: Any) -> None:
    config = (await place.js.stream_info(place.name)).config
    await place.js.update_stream(config.evolve(**settings))


async def test_an_event_is_stored_once_however_often_it_is_sent(
    nats_stream: NatsStream, sink: NatsSink
) -> None:
    sent = event()
    for _ in range(3):
        assert await sink.send([sent], MARK) == [Done()]
    assert await stored(nats_stream) == 1
    message = await nats_stream.js.get_msg(nats_stream.name, 1)
    assert message.subject == f"{nats_stream.name}.job.completed"
    assert message.headers is not None
    assert message.headers["Nats-Msg-Id"] == str(sent.id)
    assert json.loads(message.data or b"") == json.loads(sent.cloud_event())
    assert (await sink.guarantee()).level == "at-least-once"


async def test_a_binary_event_has_its_attributes_as_headers(nats_stream: NatsStream) -> None:
    sink = sink_of(nats_stream, body="cloudevents-binary", subject=f"{nats_stream.name}.{{queue}}")
    await sink.open()
    sent = event(queue="mail")
    await sink.send([sent], MARK)
    message = await nats_stream.js.get_msg(nats_stream.name, 1)
    assert message.headers is not None
    assert message.headers["ce-type"] == "dev.hammerwork.job.completed"
    assert message.headers["ce-partitionkey"] == str(sent.job_id)
    assert message.headers["Content-Type"] == "application/json"
    assert (message.subject, message.data) == (f"{nats_stream.name}.mail", sent.body().encode())
    await sink.close()


async def test_a_stream_that_is_full_takes_no_later_event_of_a_job(
    nats_stream: NatsStream, sink: NatsSink
) -> None:
    await limit(nats_stream, max_msgs=4, discard=DiscardPolicy.NEW)
    sent = events(3, 2)  # three jobs: their first events, then their second ones
    outcomes = await sink.send(sent, MARK)
    assert outcomes.count(Done()) == 4
    assert isinstance(outcomes[-1], Retry)
    await limit(nats_stream, max_msgs=-1)
    left = [one for one, outcome in zip(sent, outcomes, strict=True) if outcome != Done()]
    assert await sink.send(left, MARK) == [Done()] * 2


async def test_what_one_subject_has_no_room_for_holds_its_job_back_and_no_other(
    nats_stream: NatsStream, sink: NatsSink
) -> None:
    """A stream may refuse the first event of a job and have room for the second, on another subject."""
    await sink.send([event(type="job.started")], MARK)
    await limit(nats_stream, max_msgs_per_subject=1, discard=DiscardPolicy.NEW, discard_new_per_subject=True)
    job = new_id()
    sent = [event(job, 1, type="job.started"), event(job, 2, type="job.completed"), event(type="job.dead")]
    outcomes = await sink.send(sent, MARK)
    assert [type(outcome) for outcome in outcomes] == [Retry, Snooze, Done]
    assert await stored(nats_stream) == 2


async def test_what_is_too_large_for_server_or_stream_is_dead_and_the_rest_goes_on(
    nats_stream: NatsStream, sink: NatsSink
) -> None:
    job = new_id()
    sent = [
        event(job, 1, data={"note": "x" * 2_000_000}),
        event(job, 2, data={"note": "x" * 20_000}),
        event(job, 3, data={"note": "x" * 1_048_100}),  # with its headers too large, without them not
        event(job, 4),
    ]
    await limit(nats_stream, max_msg_size=10_000)
    outcomes = await sink.send(sent, MARK)
    for outcome in outcomes[:3]:
        assert isinstance(outcome, Dead)
        assert outcome.reason.startswith("too_large: ")
    assert outcomes[3] == Done()


async def test_a_lost_answer_is_a_disconnect_and_the_repetition_is_dropped(
    nats_service: BrokerService, nats_stream: NatsStream
) -> None:
    async with FaultProxy(*nats_service.address) as proxy:
        sink = sink_of(nats_stream, url=f"nats://127.0.0.1:{proxy.port}")
        await sink.open()
        sent = events(3, 1)
        proxy.cut_after(b"Nats-Msg-Id")
        with pytest.raises(Disconnected):
            await sink.send(sent, MARK)
        await sink.open()
        assert await sink.send(sent, MARK) == [Done()] * 3
        await sink.close()
    assert await stored(nats_stream) == 3


async def test_a_sink_says_what_is_in_its_way(nats_stream: NatsStream) -> None:
    wrong = sink_of(nats_stream, url=nats_stream.url.replace("://", "://tester:wr0ng@"))
    with pytest.raises(Misconfigured) as refused:
        await wrong.open()
    assert "wr0ng" not in str(refused.value) + refused.value.hint
    with pytest.raises(Disconnected):
        await sink_of(nats_stream, url="nats://127.0.0.1:1").open()
    another = sink_of(nats_stream, stream="another")
    nobody = sink_of(nats_stream, subject="nobody.{type}", stream=None)
    for sink, kind, words in (
        (another, Misconfigured, "expected stream does not match"),
        (nobody, Disconnected, r"no stream takes nobody\.job\.completed"),
    ):
        await sink.open()
        with pytest.raises(kind, match=words):
            await sink.send([event()], MARK)
        await sink.close()
        with pytest.raises(Disconnected, match="not open"):
            await sink.send([event()], MARK)


async def test_a_subject_that_names_what_there_is_not_is_refused(nats_stream: NatsStream) -> None:
    with pytest.raises(Misconfigured, match="cannot be filled in"):
        sink_of(nats_stream, subject="events.{job}")
