"""The kit on the Kinesis sink: an emulator, of whose records a proxy throttles some."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from aiobotocore.session import get_session

from hammerwork.plugins import Json
from hammerwork.plugins.conformance import LogSinkContract, Received, SinkHarness
from hammerwork.sinks.kinesis import KinesisSink

from ..services import free_port
from ..services.aws import AwsService
from ..services.proxy import FaultProxy
from ..sinks.kinesis_faults import FaultyKinesis
from ..sinks.kinesis_reader import read_stream

SHARDS = 3
AWAY = 0.3

aws = get_session()


@dataclass(kw_only=True)
class Stream(SinkHarness):
    """A stream of the test's own. What stands between the sink and the emulator can be away, and hang; the
    emulator itself would forget its streams."""

    service: AwsService
    stream: str
    records: FaultyKinesis
    network: FaultProxy

    async def received(self) -> Sequence[Received]:
        events = [json.loads(seen.data) for seen in await read_stream(self.service, self.stream)]
        return [Received(event_id=event["id"], event=event) for event in events]

    async def fail(self, times: int) -> None:
        self.records.failing = times

    async def hang(self) -> None:
        self.network.blackhole()

    async def restart(self) -> None:
        self.network.refuse()
        await asyncio.sleep(AWAY)
        self.network.heal()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "endpoint_url": f"http://127.0.0.1:{free_port()}"}


class TestKinesis(LogSinkContract):
    plugin = KinesisSink
    kind = "kinesis"

    @pytest.fixture
    async def harness(self, aws_service: AwsService) -> AsyncIterator[SinkHarness]:
        stream = f"conformance-{secrets.token_hex(6)}"
        async with aws.create_client("kinesis", **aws_service.client_arguments()) as client:
            await client.create_stream(StreamName=stream, ShardCount=SHARDS)
            await client.get_waiter("stream_exists").wait(StreamName=stream, WaiterConfig={"Delay": 1})
        async with (
            FaultyKinesis(aws_service.endpoint).running() as records,
            FaultProxy("127.0.0.1", urlsplit(records.url).port or 0) as network,
        ):
            yield Stream(
                options={
                    "stream": stream,
                    "region": aws_service.region,
                    "endpoint_url": f"http://127.0.0.1:{network.port}",
                    "access_key_id": aws_service.access_key,
                    "secret_access_key": aws_service.secret_key,
                    "requests": 1,  # the emulator loses records of requests that come at once
                    "timeout": 2,
                },
                secrets=[aws_service.secret_key],
                answers_within=6.0,
                service=aws_service,
                stream=stream,
                records=records,
                network=network,
            )
