"""The kit on SQS: standard queues, and the order of FIFO queues."""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

import pytest
from aiobotocore.session import get_session

from hammerwork.bridges.sqs import SqsBridge, holding
from hammerwork.plugins import Bridge, Json, Message
from hammerwork.plugins.conformance import BridgeContract, BridgeHarness
from hammerwork.plugins.conformance.choose import names_of_tests

from ..bridges.sqs_producer import attribute, create_queue, pointer
from ..services import free_port
from ..services.aws import AwsService
from ..services.aws_proxy import AwsProxy
from ..services.proxy import FaultProxy

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_sqs import SQSClient

GROUPED = {
    "test_a_stop_in_the_middle_loses_nothing",
    "test_deliveries_come_in_order_and_come_again_in_order",
    "test_every_message_becomes_a_job_and_nothing_is_left",
    "test_poison_becomes_a_dead_letter_and_blocks_nothing",
    "test_settling_late_is_no_error_and_settles_nothing_else",
    "test_two_gateways_share_the_messages",
    "test_what_is_not_settled_comes_again",
    "test_what_is_released_comes_again",
}
"""Tests in which the groups of a FIFO queue make a difference."""

VISIBILITY = 1
FITS = 200_000
AWAY = 0.3
HIDDEN = 1
"""Seconds for which what is handed back a second time stays away; five would only be waited for."""

aws = get_session()


@dataclass(kw_only=True)
class SqsHarness(BridgeHarness):
    """A queue of the test's own. Bodies are base64, as SQS takes text only; those that are empty or large lie
    in a bucket, where the extended client puts them. What stands between the bridge and the emulator can be
    cut and be away; the emulator itself would forget its queues."""

    sqs: SQSClient
    s3: S3Client
    url: str
    bucket: str
    network: FaultProxy

    async def publish(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), 10):
            few = enumerate(messages[start : start + 10])
            entries = [{"Id": str(n), **await self._entry(message)} for n, message in few]
            sent = await self.sqs.send_message_batch(QueueUrl=self.url, Entries=entries)  # type: ignore[arg-type]
            assert not sent.get("Failed"), sent

    async def _entry(self, message: Message) -> dict[str, Any]:
        attributes = dict(message.headers)
        if message.content_type is not None:
            attributes["content-type"] = message.content_type
        entry: dict[str, Any] = {
            "MessageBody": await self._body(base64.b64encode(message.body)),
            "MessageAttributes": {name: attribute(str(value)) for name, value in attributes.items()},
        }
        if self.url.endswith(".fifo"):
            entry["MessageGroupId"] = quote(message.key or f"none {secrets.token_hex(6)}", safe="")
            entry["MessageDeduplicationId"] = secrets.token_hex(8)
        return entry

    async def _body(self, text: bytes) -> str:
        if 0 < len(text) < FITS:
            return text.decode()
        name = secrets.token_hex(8)
        await self.s3.put_object(Bucket=self.bucket, Key=name, Body=text)
        return pointer(self.bucket, name)

    async def unsettled(self) -> int:
        answer = await self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        found = answer["Attributes"]
        shown, hidden = (
            found["ApproximateNumberOfMessages"],
            found["ApproximateNumberOfMessagesNotVisible"],
        )
        return int(shown) + int(hidden)

    async def restart(self) -> None:
        self.network.refuse()
        await asyncio.sleep(AWAY)
        self.network.heal()

    async def cut(self) -> None:
        self.network.cut()

    async def sever(self, bridge: Bridge) -> None:
        await bridge.close()

    async def unreachable(self) -> Mapping[str, Json]:
        return {**self.options, "endpoint_url": f"http://127.0.0.1:{free_port()}"}


@asynccontextmanager
async def sqs_harness(service: AwsService, *, fifo: bool = False) -> AsyncIterator[SqsHarness]:
    """A harness around a fresh queue."""
    arguments = service.client_arguments()
    async with (
        aws.create_client("sqs", **arguments) as sqs,
        aws.create_client("s3", **arguments) as s3,
        AwsProxy(service.endpoint) as proxy,
        FaultProxy("127.0.0.1", urlsplit(proxy.endpoint).port or 0) as network,
    ):
        bucket = f"conformance-{secrets.token_hex(6)}"
        place: Any = {"LocationConstraint": service.region}
        await s3.create_bucket(Bucket=bucket, CreateBucketConfiguration=place)
        url = await create_queue(sqs, fifo=fifo)
        yield SqsHarness(
            options={
                "queue": url,
                "region": service.region,
                "endpoint_url": f"http://127.0.0.1:{network.port}",
                "access_key_id": service.access_key,
                "secret_access_key": service.secret_key,
                "encoding": "base64",
                "payload_buckets": [bucket],
                "pollers": 2,
                "prefetch": 40,
                "wait": 1,
                "visibility": VISIBILITY,
            },
            secrets=[service.secret_key],
            lease=float(VISIBILITY),
            sqs=sqs,
            s3=s3,
            url=url,
            bucket=bucket,
            network=network,
        )
        await sqs.delete_queue(QueueUrl=url)


@pytest.fixture
def hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "FIRST_HIDING", HIDDEN)


class TestSqs(BridgeContract):
    plugin = SqsBridge
    kind = "sqs"

    @pytest.fixture
    async def harness(self, aws_service: AwsService, hidden: None) -> AsyncIterator[BridgeHarness]:
        async with sqs_harness(aws_service) as harness:
            yield harness


class Fifo(SqsBridge):
    """The same bridge, on whose queues there is an order."""

    capabilities = replace(SqsBridge.capabilities, order="key")


class TestSqsFifo(BridgeContract):
    """What groups make different."""

    plugin = Fifo
    kind = "sqs"

    @pytest.fixture
    async def harness(self, aws_service: AwsService, hidden: None) -> AsyncIterator[BridgeHarness]:
        async with sqs_harness(aws_service, fifo=True) as harness:
            yield harness


for name in set(names_of_tests(TestSqsFifo)) - GROUPED:
    setattr(TestSqsFifo, name, None)
