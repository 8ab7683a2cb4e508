"""What an operator may set for SQS, what is refused and how, and what AWS's errors ask of whom."""

from __future__ import annotations

import asyncio
import builtins
import json
import os
import socket
import sys
from datetime import timedelta
from typing import Any

import pytest
import structlog
from pydantic import ValidationError

from hammerwork.bridges.sqs import SqsBridge, SqsOptions
from hammerwork.core.errors import Disconnected, Misconfigured, MissingExtra
from hammerwork.core.message import EXACTLY_ONCE, Want
from hammerwork.core.queue import Queue
from hammerwork.gateway import settings as gateway_settings
from hammerwork.gateway.catalog import bridges
from hammerwork.gateway.message_bridge import MessageBridge

from ..services.aws_proxy import AwsProxy, answering
from .rabbitmq_producer import disconnected, pull_all, pull_one, stored, until
from .sqs_producer import SqsProducer, create_queue


@pytest.mark.parametrize(
    "given",
    [
        {"queue": ""},
        {"wait": "11s"},
        {"wait": 0},
        {"wait": timedelta(milliseconds=1500)},
        {"visibility": 0},
        {"visibility": timedelta(hours=13)},
        {"endpoint_url": "localhost:4566"},
        {"endpoint_url": "http://user:s3cret@localhost:4566"},
        {"access_key_id": "AKIA", "secret_access_key": None},
        {"profile": "dev"},
        {"identity": "envelope_id"},
        {"identity": {"json": "no-pointer"}},
        {"delete_payloads": True},
        {"pollers": 0},
        {"prefetch": 9},
        {"visibilty": 30},
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_without_showing_a_secret(given: dict[str, Any]) -> None:
    base = {"queue": "q", "access_key_id": "AKIA", "secret_access_key": "s3cret"}
    with pytest.raises(ValidationError) as refused:
        SqsOptions.model_validate(base | given)
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("queue", "region"),
    [
        ("https://sqs.eu-west-1.amazonaws.com/123456789012/orders", "eu-west-1"),
        ("https://sqs.cn-north-1.amazonaws.com.cn/123456789012/orders", "cn-north-1"),
        ("http://localhost:4566/000000000000/orders", None),
        ("orders", None),
    ],
)
def test_the_region_is_read_from_the_url_of_a_queue(queue: str, region: str | None) -> None:
    assert SqsOptions(queue=queue).queue_region == region
    assert SqsOptions(queue=queue, region="us-east-1").queue_region == "us-east-1"


async def test_a_queue_may_be_given_by_its_name(sqs: SqsProducer) -> None:
    await sqs.send("by name")
    bridge = SqsBridge("orders", sqs.options(queue=sqs.url.rpartition("/")[2]))
    await bridge.open()
    assert (await pull_one(bridge)).body == b"by name"
    await bridge.close()


async def test_the_standard_chain_of_credentials_is_used(
    sqs: SqsProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in sqs.service.environment().items():
        monkeypatch.setenv(name, value)
    chain = {"access_key_id": None, "secret_access_key": None, "region": None}
    bridge = SqsBridge("orders", sqs.options(**chain))
    await bridge.open()
    await sqs.send("found")
    assert (await pull_one(bridge)).body == b"found"
    await bridge.close()


@pytest.mark.parametrize(
    ("without", "hint"),
    [("AWS_ACCESS_KEY_ID", "AWS_ACCESS_KEY_ID"), ("AWS_DEFAULT_REGION", "AWS_REGION")],
)
async def test_without_credentials_or_region_the_hint_says_where_they_go(
    sqs: SqsProducer, monkeypatch: pytest.MonkeyPatch, without: str, hint: str
) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in sqs.service.environment().items():
        if name != without:
            monkeypatch.setenv(name, value)
    chain = {"access_key_id": None, "secret_access_key": None, "region": None}
    with pytest.raises(Misconfigured) as refused:
        await SqsBridge("orders", sqs.options(**chain)).open()
    assert hint in refused.value.hint


async def test_a_profile_that_is_not_there_is_named(
    sqs: SqsProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    chain = {"access_key_id": None, "secret_access_key": None, "profile": "nobody"}
    with pytest.raises(Misconfigured, match="nobody"):
        await SqsBridge("orders", sqs.options(**chain)).open()


@pytest.mark.parametrize("queue", ["missing", "{endpoint}/123456789012/missing"])
async def test_a_queue_that_is_not_there_is_a_fault_of_the_settings(sqs: SqsProducer, queue: str) -> None:
    options = sqs.options(queue=queue.format(endpoint=sqs.endpoint))
    with pytest.raises(Misconfigured) as refused:
        await SqsBridge("orders", options).open()
    assert refused.value.hint == "create the queue, or check queue, region and account"


async def test_a_deduplication_id_needs_a_fifo_queue(sqs: SqsProducer) -> None:
    with pytest.raises(Misconfigured, match="no FIFO queue"):
        await SqsBridge("orders", sqs.options(identity="deduplication_id")).open()


@pytest.mark.parametrize(
    ("action", "status", "code", "kind"),
    [
        ("ReceiveMessage", 403, "AccessDeniedException", Misconfigured),
        ("ReceiveMessage", 403, "InvalidClientTokenId", Misconfigured),
        ("ReceiveMessage", 403, "KmsAccessDenied", Misconfigured),
        ("ReceiveMessage", 403, "ExpiredToken", Disconnected),
        ("ReceiveMessage", 403, "RequestTimeTooSkewed", Disconnected),
        ("ReceiveMessage", 400, "OverLimit", Disconnected),
        ("ReceiveMessage", 400, "SomethingNew", Disconnected),
    ],
)
async def test_an_error_of_aws_is_a_wrong_setting_or_a_broker_that_is_away(
    sqs: SqsProducer, aws_proxy: AwsProxy, action: str, status: int, code: str, kind: type[Exception]
) -> None:
    bridge = SqsBridge("orders", sqs.options())
    await bridge.open()
    aws_proxy.always(action, answering(status, code, "said by AWS"))
    with pytest.raises(kind, match=code) as raised:
        await pull_all(bridge, 1)
    if isinstance(raised.value, Misconfigured):
        assert "sqs:ReceiveMessage" not in str(raised.value)
        assert "ReceiveMessage" in raised.value.hint
    await bridge.close()


@pytest.mark.parametrize("action", ["DeleteMessageBatch", "ChangeMessageVisibilityBatch"])
async def test_a_right_that_is_missing_shows_where_it_is_used(
    sqs: SqsProducer, aws_proxy: AwsProxy, action: str
) -> None:
    await sqs.send()
    bridge = SqsBridge("orders", sqs.options(visibility=1))
    await bridge.open()
    deliveries = await pull_all(bridge, 1)
    aws_proxy.always(action, answering(403, "AccessDeniedException"))
    using = bridge.settle(stored(deliveries)) if "Delete" in action else pull_all(bridge, 1)
    with pytest.raises(Misconfigured, match=action):
        await using
    await bridge.close()


async def test_throttling_ends_the_session_and_a_new_one_goes_on(
    sqs: SqsProducer, aws_proxy: AwsProxy
) -> None:
    """The client itself tries three times before."""
    await sqs.send("kept")
    bridge = SqsBridge("orders", sqs.options())
    await bridge.open()
    aws_proxy.plan("ReceiveMessage", *[answering(400, "ThrottlingException")] * 2, answering(503, "Busy"))
    assert "Busy" in str(await disconnected(bridge))
    assert len(aws_proxy.calls["ReceiveMessage"]) == 3
    await bridge.open()
    assert (await pull_one(bridge)).body == b"kept"
    await bridge.close()


async def test_an_endpoint_that_is_away_is_a_broker_that_is_away(sqs: SqsProducer) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        options = sqs.options(endpoint_url=f"http://127.0.0.1:{closed.getsockname()[1]}")
        with pytest.raises(Disconnected):
            await SqsBridge("orders", options).open()


async def test_the_guarantee_names_the_identity_and_the_retention(sqs: SqsProducer) -> None:
    promise = await SqsBridge("orders", sqs.options(visibility=30)).guarantee()
    assert promise.level == EXACTLY_ONCE
    assert "message's id" in promise.because
    assert "4 days" in promise.because
    assert promise.warnings == ()


@pytest.mark.parametrize(("most", "word"), [("1", "maxReceiveCount is 1"), ("3", "maxReceiveCount is 3")])
async def test_a_redrive_policy_that_takes_good_messages_for_poison_is_warned_of(
    sqs: SqsProducer, most: str, word: str
) -> None:
    dead = await create_queue(sqs.client)
    found = await sqs.client.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    policy = json.dumps({"deadLetterTargetArn": found["Attributes"]["QueueArn"], "maxReceiveCount": most})
    await sqs.client.set_queue_attributes(QueueUrl=sqs.url, Attributes={"RedrivePolicy": policy})
    promise = await SqsBridge("orders", sqs.options(visibility=1, pollers=8, prefetch=20)).guarantee()
    for expected in (word, "prefetch", "visibility"):
        assert any(expected in warning for warning in promise.warnings)


async def test_without_the_client_the_extra_is_named(
    sqs: SqsProducer, monkeypatch: pytest.MonkeyPatch
) -> None:
    imported = builtins.__import__

    def without_aiobotocore(name: str, *arguments: Any, **more: Any) -> Any:
        if name.partition(".")[0] == "aiobotocore":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return imported(name, *arguments, **more)

    for module in (
        "bridges.sqs.session",
        "bridges.sqs.connection",
        "bridges.sqs.holding",
        "clients.aws.client",
    ):
        monkeypatch.delitem(sys.modules, f"hammerwork.{module}")
    monkeypatch.setattr(builtins, "__import__", without_aiobotocore)
    with pytest.raises(MissingExtra, match="`aws`"):
        SqsBridge("orders", sqs.options())


async def test_secrets_are_in_no_log_line_and_no_representation(sqs: SqsProducer) -> None:
    with structlog.testing.capture_logs() as lines:
        bridge = SqsBridge("orders", sqs.options())
        await bridge.open()
        await bridge.close()
    assert [line["queue"] for line in lines] == [sqs.url.rpartition("/")[2]]
    assert sqs.service.secret_key not in f"{lines}{sqs.options()!r}{sqs.options()}"


def test_the_quick_start_makes_a_bridge_named_sqs() -> None:
    found = gateway_settings.load(
        env={
            "HAMMERWORK_SQS_QUEUE": "https://sqs.eu-west-1.amazonaws.com/123456789012/orders",
            "HAMMERWORK_SQS_ENDPOINT_URL": "http://localhost:4566",
            "HAMMERWORK_SQS_TO_QUEUE": "orders",
            "HAMMERWORK_BRIDGES__SQS__IDENTITY__JSON": "/order/id",
            "HAMMERWORK_BRIDGES__SQS__SECRET_ACCESS_KEY": "s3cret",
            "HAMMERWORK_BRIDGES__SQS__ACCESS_KEY_ID": "AKIA",
        }
    )
    bridge = found.bridges["sqs"]
    assert (bridge.type, bridge.to_queue) == ("sqs", "orders")
    assert isinstance(bridge.options, SqsOptions)
    assert bridge.options.queue_region == "eu-west-1"
    assert "s3cret" not in repr(found)
    assert isinstance(bridges.find("sqs").build("orders", bridge.options), SqsBridge)


async def test_a_bridge_in_code_brings_messages_into_a_queue(sqs: SqsProducer, queue: Queue) -> None:
    await sqs.send('{"order": 7}')
    options = sqs.options().model_dump(exclude={"queue"}) | {"visibility": 30}
    bridge = MessageBridge().from_sqs(sqs.url, **options).to_queue("orders")
    running = asyncio.create_task(bridge.run(queue), name="bridge")
    await until(sqs.empty)
    [job] = await queue.jobs(queue="orders")
    assert job.payload == {"order": 7}
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


def test_a_bridge_in_code_is_refused_like_one_in_the_settings() -> None:
    with pytest.raises(Misconfigured, match="the sqs bridge 'sqs' cannot be: visibilty"):
        MessageBridge().from_sqs("orders", visibilty=3)


async def test_a_pull_after_a_close_is_refused(sqs: SqsProducer) -> None:
    bridge = SqsBridge("orders", sqs.options())
    with pytest.raises(Disconnected, match="not open"):
        await bridge.pull(Want())
    await bridge.close()
