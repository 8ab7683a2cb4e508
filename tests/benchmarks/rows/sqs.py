"""SQS to committed jobs to deleted, beside the bare client that receives, deletes and does nothing."""

from __future__ import annotations

import asyncio
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Any

from aiobotocore.config import AioConfig
from aiobotocore.session import get_session

from hammerwork.bridges.sqs import SqsBridge, SqsOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database

from ..arena import Arena
from ..measure import RATE, Measure
from ..row import Bar, Row, Side
from ..sqs_server import sqs_server

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

MESSAGES = 8_000
POLLERS = 4
REGION = "eu-central-1"
KEYS = {"access_key_id": "bench", "secret_access_key": "bench"}


async def ingest(arena: Arena) -> Measure:
    """Inbox, jobs and deletions, with four pollers in one process."""
    async with sqs_server(MESSAGES) as url, Database(arena.dsn) as database:
        given = {"queue": url, "region": REGION, "endpoint_url": url.rsplit("/", 2)[0], **KEYS}
        options = SqsOptions.model_validate(given | {"pollers": POLLERS, "wait": 1})
        intake = Intake(database, SqsBridge("bench", options), Decoder(), FieldMapping("bench"))
        async with arena.measured(MESSAGES) as measure:
            running = asyncio.create_task(intake.run(), name="intake")
            while intake.counts.received < MESSAGES:  # noqa: ASYNC110 - counted, not signalled
                await asyncio.sleep(0.005)
        intake.stop()
        await running
    return measure


async def bare_client(arena: Arena) -> Measure:
    """aiobotocore, four tasks that each receive ten and delete them, again and again."""
    async with sqs_server(MESSAGES) as url, _client(url) as client:
        tens = asyncio.Semaphore(0)
        async with arena.measured(MESSAGES) as measure:
            tasks = [asyncio.create_task(_drain(client, url, tens), name="drain") for _ in range(POLLERS)]
            for _ in range(MESSAGES // 10):
                await tens.acquire()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return measure


def _client(url: str) -> AbstractAsyncContextManager[SQSClient]:
    return get_session().create_client(
        "sqs",
        region_name=REGION,
        endpoint_url=url.rsplit("/", 2)[0],
        aws_access_key_id=KEYS["access_key_id"],
        aws_secret_access_key=KEYS["secret_access_key"],
        config=AioConfig(max_pool_connections=2 * POLLERS),
    )


async def _drain(client: SQSClient, url: str, tens: asyncio.Semaphore) -> None:
    while True:
        received = await client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageSystemAttributeNames=["All"],
            MessageAttributeNames=["All"],
        )
        handles = [message["ReceiptHandle"] for message in received.get("Messages", [])]
        entries: Any = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)]
        await client.delete_message_batch(QueueUrl=url, Entries=entries)
        tens.release()


ROWS = [
    Row(
        name="sqs-ingest",
        title="SQS to committed jobs to deleted, one process",
        sides=[Side(name="aiobotocore", run=bare_client), Side(name="hammerwork", run=ingest)],
        bars=[Bar(metric=RATE, beside="aiobotocore", least=0.75)],
    )
]
