"""The Kinesis sink on an emulator: what a record is, what is taken, what dies, and what is put again."""

from __future__ import annotations

import asyncio
import json
import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiobotocore.session import get_session

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.job import Dead, Done
from hammerwork.sinks.kinesis import KinesisOptions, KinesisSink
from hammerwork.sinks.kinesis.options import MOST_BYTES, MOST_RECORDS

from ..services.aws import AwsService
from .kinesis_faults import FaultyKinesis
from .kinesis_reader import read_stream
from .streaming import NO_JOB, assert_in_order, event, events, send_all


@pytest.fixture
async def stream(aws_service: AwsService) -> str:
    name = f"events-{secrets.token_hex(6)}"
    async with get_session().create_client("kinesis", **aws_service.client_arguments()) as client:
        await client.create_stream(StreamName=name, ShardCount=3)
        await client.get_waiter("stream_exists").wait(StreamName=name, WaiterConfig={"Delay": 1})
    return name


@asynccontextmanager
async def opened(service: AwsService, stream: str, **options: Any) -> AsyncIterator[KinesisSink]:
    given = {
        "stream": stream,
        "endpoint_url": service.endpoint,
        "region": service.region,
        "access_key_id": service.access_key,
        "secret_access_key": service.secret_key,
        "requests": 1,  # the emulator loses records of requests that come at once
        **options,
    }
    sink = KinesisSink("stream", KinesisOptions.model_validate(given))
    try:
        await sink.open()
        yield sink
    finally:
        await sink.close()


async def test_a_record_is_a_cloudevent_under_its_jobs_key(aws_service: AwsService, stream: str) -> None:
    told, jobless = event(), event(NO_JOB, 0, type="sink.disabled", queue=None)
    async with opened(aws_service, stream) as sink:
        assert await sink.send([told, jobless], "mark") == [Done(), Done()]
    seen = {record.key: json.loads(record.data) for record in await read_stream(aws_service, stream)}
    assert seen == {
        str(told.job_id): json.loads(told.cloud_event()),
        str(jobless.id): json.loads(jobless.cloud_event()),
    }


async def test_keys_by_expression_and_explicit_hash_keys_choose_the_shard(
    aws_service: AwsService, stream: str
) -> None:
    options = {
        "format": "json",
        "partition_key": "queue",
        "explicit_hash_key": "data.vip ? '0' : '340282366920938463463374607431768211000'",
    }
    sent = [event(queue="orders", data={"vip": n % 2 == 0}) for n in range(6)]
    async with opened(aws_service, stream, **options) as sink:
        assert set((await send_all(sink, sent)).values()) == {Done()}
    seen = await read_stream(aws_service, stream)
    assert {record.key for record in seen} == {"orders"}
    shards = {record.shard: json.loads(record.data)["data"]["vip"] for record in seen}
    assert len(shards) == 2
    assert shards[min(shards)] is True


@pytest.mark.filterwarnings("ignore:Sending a large body directly")
async def test_requests_keep_the_limits_and_hold_one_record_of_a_key(
    aws_service: AwsService, stream: str
) -> None:
    sent = events(700, 2) + [event(data={"text": "x" * 900_000}) for _ in range(7)]
    async with (
        FaultyKinesis(aws_service.endpoint).running() as proxy,
        opened(aws_service, stream, endpoint_url=proxy.url) as sink,
    ):
        assert set((await send_all(sink, sent)).values()) == {Done()}
    assert max(map(len, proxy.requests)) <= MOST_RECORDS
    assert all(len(set(keys)) == len(keys) for keys in proxy.requests)
    big = [len([k for k in keys if k in {str(e.job_id) for e in sent[1400:]}]) for keys in proxy.requests]
    assert max(big) <= MOST_BYTES // 900_000
    assert len(await read_stream(aws_service, stream)) == 1407


@pytest.mark.parametrize("aggregate", [False, True])
async def test_jobs_stay_in_order_when_a_part_of_each_request_is_throttled(
    aws_service: AwsService, stream: str, aggregate: bool
) -> None:
    sent = events(40, 6)
    async with FaultyKinesis(aws_service.endpoint, partial=0.3).running() as proxy:
        options = {"aggregate": aggregate, "max_record_bytes": 4096}
        async with opened(aws_service, stream, endpoint_url=proxy.url, **options) as sink:
            assert set((await send_all(sink, sent)).values()) == {Done()}
    assert proxy.counts["partial"] > 5
    told = [json.loads(record.data) for record in await read_stream(aws_service, stream)]
    assert sorted(e["id"] for e in told) == sorted(str(e.id) for e in sent)
    assert_in_order((e["subject"], int(e["sequence"])) for e in told)


async def test_many_events_share_an_aggregated_record(aws_service: AwsService, stream: str) -> None:
    sent = events(50, 4)
    async with (
        FaultyKinesis(aws_service.endpoint).running() as proxy,
        opened(aws_service, stream, endpoint_url=proxy.url, aggregate=True) as sink,
    ):
        assert await sink.send(sent, "mark") == [Done()] * 200
    assert [len(keys) for keys in proxy.requests] == [3]  # one a shard
    told = await read_stream(aws_service, stream)
    assert len(told) == 200
    assert all(record.key == json.loads(record.data)["subject"] for record in told)
    assert_in_order((r.key, int(json.loads(r.data)["sequence"])) for r in told)


@pytest.mark.parametrize("aggregate", [False, True])
async def test_what_is_too_large_or_without_a_key_dies_and_its_neighbours_live(
    aws_service: AwsService, stream: str, aggregate: bool
) -> None:
    sent = [event(data={"k": "a"}), event(data={"k": "x" * 3000}), event(data={}), event(data={"k": "b"})]
    options = {"partition_key": "data.k.size() > 2000 ? 'big' : data.k", "max_record_bytes": 2048}
    async with opened(aws_service, stream, aggregate=aggregate, **options) as sink:
        outcomes = await sink.send(sent, "mark")
    assert [type(outcome) for outcome in outcomes] == [Done, Dead, Dead, Done]
    large, keyless = outcomes[1], outcomes[2]
    assert isinstance(large, Dead)
    assert isinstance(keyless, Dead)
    assert large.reason.startswith("too_large: ")
    assert keyless.reason.startswith("mapping_failed: partition_key = ")
    assert len(await read_stream(aws_service, stream)) == 2


async def test_a_hash_key_is_put_as_kinesis_writes_it_or_its_event_dies(
    aws_service: AwsService, stream: str
) -> None:
    """One record that Kinesis cannot read would have it refuse the request, again and again."""
    given = ["007", "9" * 5000, "\u0661\u0662", str(2**128), "-1", str(2**127)]
    sent = [event(data={"hash": hash_key}) for hash_key in given]
    async with opened(aws_service, stream, explicit_hash_key="data.hash") as sink:
        entries = sink._single(sink._written(sent, [Done()] * len(sent)))
        outcomes = await sink.send(sent, "mark")
    assert [entry.hash_key for entry in entries] == ["7", str(2**127)]
    assert [type(outcome) for outcome in outcomes] == [Done, Dead, Dead, Dead, Dead, Done]


async def test_a_stream_that_is_split_is_looked_at_anew(aws_service: AwsService, stream: str) -> None:
    async with (
        FaultyKinesis(aws_service.endpoint).running() as proxy,
        opened(aws_service, stream, endpoint_url=proxy.url) as sink,
    ):
        assert set((await send_all(sink, events(10, 2))).values()) == {Done()}
        async with get_session().create_client("kinesis", **aws_service.client_arguments()) as client:
            shard = (await client.list_shards(StreamName=stream))["Shards"][0]
            middle = int(shard["HashKeyRange"]["EndingHashKey"]) // 2
            await client.split_shard(
                StreamName=stream, ShardToSplit=shard["ShardId"], NewStartingHashKey=str(middle)
            )
        proxy.successor = (shard["ShardId"], "shardId-000000000003")
        assert set((await send_all(sink, events(30, 2))).values()) == {Done()}
        assert set((await send_all(sink, events(10, 2))).values()) == {Done()}
        assert len(sink._shards) == 4
    assert len(await read_stream(aws_service, stream)) == 100


async def test_a_stream_that_is_deleted_holds_the_sink(aws_service: AwsService, stream: str) -> None:
    async with opened(aws_service, stream) as sink:
        async with get_session().create_client("kinesis", **aws_service.client_arguments()) as client:
            await client.delete_stream(StreamName=stream)
        with pytest.raises(Misconfigured, match="ResourceNotFoundException") as refused:
            await sink.send([event()], "mark")
        assert "create the stream" in refused.value.hint
        await sink.close()
        with pytest.raises(Misconfigured, match="ListShards: ResourceNotFoundException"):
            await sink.open()
    with pytest.raises(Misconfigured, match="ResourceNotFoundException"):
        await sink.guarantee()


async def test_a_request_that_is_throttled_as_a_whole_is_no_wrong_setting(
    aws_service: AwsService, stream: str
) -> None:
    async with (
        FaultyKinesis(aws_service.endpoint, whole=1).running() as proxy,
        opened(aws_service, stream, endpoint_url=proxy.url) as sink,
    ):
        with pytest.raises(Disconnected, match="ProvisionedThroughputExceededException"):
            await sink.send([event()], "mark")


async def test_nobody_listening_is_disconnected(aws_service: AwsService) -> None:
    with pytest.raises(Disconnected, match="AWS does not answer"):
        async with opened(aws_service, "stream", endpoint_url="http://127.0.0.1:1"):
            pass


async def test_without_credentials_the_hint_says_where_they_come_from(
    monkeypatch: pytest.MonkeyPatch, aws_service: AwsService
) -> None:
    for name, value in aws_service.environment().items():
        if "ACCESS_KEY" in name:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)
    with pytest.raises(Misconfigured) as refused:
        async with opened(aws_service, "stream", access_key_id=None, secret_access_key=None):
            pass
    assert "AWS_ACCESS_KEY_ID" in refused.value.hint


async def test_a_profile_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, aws_service: AwsService
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    chain = {"access_key_id": None, "secret_access_key": None, "profile": "nobody"}
    with pytest.raises(Misconfigured, match="nobody"):
        async with opened(aws_service, "stream", **chain):
            pass


async def test_the_standard_chain_finds_the_keys_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, aws_service: AwsService, stream: str
) -> None:
    for name, value in aws_service.environment().items():
        monkeypatch.setenv(name, value)
    async with opened(aws_service, stream, access_key_id=None, secret_access_key=None, region=None) as sink:
        assert await sink.send([event()], "mark") == [Done()]
        promised = await sink.guarantee()
    assert promised.level == "at-least-once"
    assert "3 shards" in promised.because


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"stream": ""}, "at least 1 character"),
        ({"format": "cloudevents-binary"}, "'cloudevents' or 'json'"),
        ({"aggregate": True, "explicit_hash_key": "'1'"}, "takes no explicit_hash_key"),
        ({"max_record_bytes": "10MiB"}, "less than or equal"),
        ({"endpoint_url": "kinesis.local"}, "must be http"),
        ({"access_key_id": "AKIA"}, "together or not at all"),
    ],
)
def test_options_that_cannot_be_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        KinesisOptions.model_validate({"stream": "jobs", **options})


def test_the_secret_key_is_in_no_text() -> None:
    options = KinesisOptions.model_validate(
        {"stream": "jobs", "access_key_id": "AKIA", "secret_access_key": "hunter2"}
    )
    assert "hunter2" not in repr(options) + str(options.model_dump())


async def test_a_closed_sink_sends_nothing(aws_service: AwsService, stream: str) -> None:
    async with opened(aws_service, stream) as sink:
        await asyncio.gather(sink.close(), sink.close())
        with pytest.raises(Disconnected):
            await sink.send([event()], "mark")
