"""SQS delivers twice, expires, fails and throttles, and gateways are killed amid it: every message is stored
once, and the groups of a FIFO queue in their order."""

from __future__ import annotations

import json
import random
import secrets
import signal
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from aiobotocore.session import get_session
from aiohttp import web
from botocore.exceptions import ClientError

from hammerwork.bridges.sqs import SqsBridge, SqsOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database

from ..services.aws import AwsService
from ..services.aws_proxy import (
    AwsProxy,
    Fault,
    Forward,
    Json,
    answering,
    failing_entries,
    losing_the_answer,
    rewriting,
)
from .conftest import Spawn
from .ledger import Ledger, until
from .publisher import Parcel, parcels, with_repeats
from .running import running

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

pytestmark = pytest.mark.chaos

BATCH = 20
GROUPS = ("a", "b", "c")


@dataclass(frozen=True)
class Source:
    """A queue of the test's own behind a proxy, and what goes into it. An attribute is every message's id."""

    client: SQSClient
    service: AwsService
    proxy: AwsProxy
    url: str

    @property
    def fifo(self) -> bool:
        return self.url.endswith(".fifo")

    def settings(self) -> dict[str, Any]:
        """Visibility of a second, so that what a dead gateway held comes again soon. Not with a FIFO queue:
        of a group that expires moto gives out the last message first, so there `expire` does it."""
        return {
            "queue": self.url,
            "region": self.service.region,
            "endpoint_url": self.proxy.endpoint,
            "access_key_id": self.service.access_key,
            "secret_access_key": self.service.secret_key,
            "pollers": 2,
            "wait": 1,
            "visibility": 60 if self.fifo else 1,
            "identity": {"attribute": "id"},
        }

    def intake(self, database: Database, **more: Any) -> Intake:
        return Intake(
            database,
            SqsBridge("orders", SqsOptions.model_validate(self.settings() | more)),
            Decoder(),
            FieldMapping(queue="work"),
            IntakeLimits(count=BATCH),
            kind="sqs",
        )

    async def send(self, stream: Sequence[Parcel], ledger: Ledger) -> None:
        """All of them, in order; an id names its group before the dash."""
        for start in range(0, len(stream), 10):
            entries = [self._entry(n, parcel) for n, parcel in enumerate(stream[start : start + 10])]
            sent = await self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
            assert not sent.get("Failed")
        ledger.acknowledged |= {parcel.id for parcel in stream}
        ledger.poison |= {parcel.id for parcel in stream if parcel.poison}

    def _entry(self, number: int, parcel: Parcel) -> Any:
        grouped = {"MessageGroupId": parcel.id.partition("-")[0], "MessageDeduplicationId": parcel.id}
        return {
            "Id": str(number),
            "MessageBody": parcel.body.decode(),
            "MessageAttributes": {"id": {"DataType": "String", "StringValue": parcel.id}},
        } | (grouped if self.fifo else {})

    async def expire(self) -> None:
        """What the passing of time does: all that is hidden is there again, of a FIFO queue in its order."""
        for handle in self.proxy.handed_out.values() if self.fifo else ():
            with suppress(ClientError):  # deleted
                await self.client.change_message_visibility(
                    QueueUrl=self.url, ReceiptHandle=handle, VisibilityTimeout=0
                )

    async def empty(self) -> bool:
        found = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        left = found["Attributes"]
        counts = left["ApproximateNumberOfMessages"], left["ApproximateNumberOfMessagesNotVisible"]
        return counts == ("0", "0")


@pytest.fixture(params=["standard", "fifo"])
async def source(aws_service: AwsService, request: pytest.FixtureRequest) -> AsyncIterator[Source]:
    fifo = request.param == "fifo"
    name = f"chaos-{secrets.token_hex(6)}" + (".fifo" if fifo else "")
    attributes: Any = {"FifoQueue": "true"} if fifo else {}
    client_of = get_session().create_client("sqs", **aws_service.client_arguments())
    async with client_of as client, AwsProxy(aws_service.endpoint) as proxy:
        url = (await client.create_queue(QueueName=name, Attributes=attributes))["QueueUrl"]
        yield Source(client, aws_service, proxy, url)
        await client.delete_queue(QueueUrl=url)


def stream(count: int, seed: int, *, repeats: bool) -> list[Parcel]:
    """Messages of three groups, every seventh of them poison; some twice, as a producer sends that was not
    told that it had sent."""
    found = parcels((f"{GROUPS[n % 3]}-{n}" for n in range(count)), poison_every=7)
    return with_repeats(found, 0.2, seed) if repeats else found


async def assert_groups_in_order(ledger: Ledger) -> None:
    """Jobs sort by their ids as their messages were sent, within each group."""
    rows = await ledger.fetch("select payload ->> 'id' as id from hammerwork.jobs order by jobs.id")
    for group in GROUPS:
        numbers = [int(row["id"].partition("-")[2]) for row in rows if row["id"].startswith(group)]
        assert numbers
        assert numbers == sorted(numbers), group


async def test_gateways_killed_around_commit_and_delete_lose_and_repeat_nothing(
    source: Source, ledger: Ledger, spawn: Spawn
) -> None:
    await source.send(stream(120, 1, repeats=not source.fifo), ledger)
    given = {
        "CHAOS_DSN": ledger.dsn,
        "CHAOS_BATCH": str(BATCH),
        "CHAOS_OPTIONS": json.dumps(source.settings()),
    }
    for point in ("intake.before_commit=kill@2", "intake.committed=kill@1"):
        gateway = spawn("sqs_ingest_process", given, point)
        assert await gateway.ended(30) == -signal.SIGKILL, gateway.output
        await source.expire()
    gateway = spawn("sqs_ingest_process", given)
    await until(source.empty, 30, "every message is stored and deleted")
    await gateway.stop()

    account = await ledger.assert_clean()
    assert account.ok == 120
    if source.fifo:
        await assert_groups_in_order(ledger)


async def _nothing(asked: Json) -> web.Response:
    return web.Response()


class Weather:
    """Faults by a seeded die. Counts those that landed."""

    def __init__(self, source: Source, seed: int) -> None:
        self.landed: Counter[str] = Counter()
        self._dice = random.Random(seed)
        lose = losing_the_answer()

        async def lose_and_expire(asked: Json, forward: Forward) -> Any:
            await forward(asked)
            await source.expire()
            return await lose({}, _nothing)

        polls = {
            "lost": lose_and_expire,
            "throttled": answering(400, "ThrottlingException"),
            "broken": answering(503, "ServiceUnavailable"),
        }
        deletes = {
            "half failed": failing_entries("InternalError", *range(0, 10, 2)),
            "said failed": failing_entries("InternalError", 1, 3, done=True),
            "expired": failing_entries("ReceiptHandleIsInvalid", 0, done=source.fifo),
            "lost": lose,
        }
        self._over(source.proxy, "ReceiveMessage", polls, 0.1)
        self._over(source.proxy, "DeleteMessageBatch", deletes, 0.7)
        self._over(source.proxy, "ChangeMessageVisibilityBatch", {"broken": polls["broken"]}, 0.5)

    def _over(self, proxy: AwsProxy, action: str, faults: Mapping[str, Fault], share: float) -> None:
        async def one_of_them(asked: Json, forward: Forward) -> Any:
            if self._dice.random() > share:
                return await forward(asked)
            name = self._dice.choice(sorted(faults))
            self.landed[f"{action} {name}"] += 1
            return await faults[name](asked, forward)

        proxy.always(action, one_of_them)


async def test_every_fault_of_sqs_at_once_loses_and_repeats_nothing(
    source: Source, ledger: Ledger, database: Database
) -> None:
    """With two gateways on the queue."""
    weather = Weather(source, seed=7)
    await source.send(stream(90, 2, repeats=not source.fifo), ledger)
    first, second = source.intake(database), source.intake(database)
    async with running(first), running(second):
        await until(source.empty, 40, "every message is stored and deleted")

    account = await ledger.assert_clean()
    assert account.ok == 90
    assert weather.landed.total() >= 10, weather.landed
    if source.fifo:
        await assert_groups_in_order(ledger)


@pytest.mark.parametrize("source", ["standard"], indirect=True)
async def test_messages_that_expire_before_their_commit_are_stored_once(
    source: Source, ledger: Ledger, database: Database
) -> None:
    """Nothing is extended, and Postgres holds up the first gateway's transaction: the second gateway gets the
    same messages meanwhile."""
    received: list[Json] = []

    def count(answer: Json) -> Json:
        received.extend(answer.get("Messages", []))
        return answer

    async def received_are(many: int) -> bool:
        return len(received) >= many

    source.proxy.always("ChangeMessageVisibilityBatch", answering(503, "ServiceUnavailable"))
    source.proxy.always("ReceiveMessage", rewriting(count))
    await source.send(stream(10, 3, repeats=False), ledger)
    first = source.intake(database, prefetch=10, pollers=1)  # no room for the second copies
    second = source.intake(database)
    locker = await asyncpg.connect(ledger.dsn)
    await locker.execute("begin; lock table hammerwork.inbox in share mode")
    async with running(first):
        await until(lambda: received_are(10), 10, "the first gateway holds them all")
        async with running(second):
            await until(lambda: received_are(20), 15, "they were handed out a second time")
            await locker.execute("commit")
            await until(source.empty, 20, "every message is stored and deleted")
    await locker.close()
    account = await ledger.assert_clean()
    assert account.ok == 10
    assert first.counts.duplicates + second.counts.duplicates == 9, "the tenth is poison, twice"
