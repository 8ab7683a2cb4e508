"""A plain SQS client for the bridge's tests: it sends anything, and looks at what is left."""

from __future__ import annotations

import base64
import json
import secrets
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from hammerwork.bridges.sqs import SqsOptions

from ..services.aws import AwsService

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_sqs import SQSClient


@dataclass(frozen=True)
class SqsProducer:
    """A plain client of one queue of the test's own. The bridge talks to `endpoint`."""

    client: SQSClient
    service: AwsService
    url: str
    endpoint: str

    def direct(self) -> SqsProducer:
        """The same queue, with bridges that talk to the emulator itself."""
        return replace(self, endpoint=self.service.endpoint)

    def options(self, **settings: Any) -> SqsOptions:
        given = {
            "queue": self.url,
            "region": self.service.region,
            "endpoint_url": self.endpoint,
            "access_key_id": self.service.access_key,
            "secret_access_key": self.service.secret_key,
            "pollers": 1,
            "wait": 1,
        }
        return SqsOptions.model_validate(given | settings)

    async def send(self, body: str = "{}", **given: Any) -> str:
        """Send one; its message id. `attributes` are text, numbers or bytes."""
        attributes = {name: attribute(value) for name, value in given.pop("attributes", {}).items()}
        sent = await self.client.send_message(
            QueueUrl=self.url, MessageBody=body, MessageAttributes=attributes, **given
        )
        return sent["MessageId"]

    async def send_many(self, bodies: list[str], *, group: str | None = None) -> list[str]:
        """Send them in order; their message ids."""
        ids: list[str] = []
        for start in range(0, len(bodies), 10):
            entries: list[Any] = [
                {"Id": str(n), "MessageBody": body} | ({"MessageGroupId": group} if group else {})
                for n, body in enumerate(bodies[start : start + 10])
            ]
            for entry in entries if self.url.endswith(".fifo") else ():
                entry["MessageDeduplicationId"] = secrets.token_hex(8)
            sent = await self.client.send_message_batch(QueueUrl=self.url, Entries=entries)
            ids += [one["MessageId"] for one in sorted(sent["Successful"], key=lambda one: int(one["Id"]))]
        return ids

    async def receive(self, wait: int = 0) -> list[str]:
        """The bodies of up to ten visible messages, which are hidden for a moment by that."""
        received = await self.client.receive_message(
            QueueUrl=self.url, MaxNumberOfMessages=10, WaitTimeSeconds=wait, VisibilityTimeout=1
        )
        return [message["Body"] for message in received.get("Messages", [])]

    async def counts(self) -> tuple[int, int]:
        """How many messages are visible, and how many are hidden."""
        answer = await self.client.get_queue_attributes(QueueUrl=self.url, AttributeNames=["All"])
        found = answer["Attributes"]
        return int(found["ApproximateNumberOfMessages"]), int(found["ApproximateNumberOfMessagesNotVisible"])

    async def empty(self) -> bool:
        return await self.counts() == (0, 0)


async def create_queue(client: SQSClient, *, fifo: bool = False, **attributes: str) -> str:
    """A new queue; its URL."""
    name = f"test-{secrets.token_hex(6)}" + (".fifo" if fifo else "")
    wanted: Any = ({"FifoQueue": "true"} if fifo else {}) | attributes
    return (await client.create_queue(QueueName=name, Attributes=wanted))["QueueUrl"]


def attribute(value: str | int | float | bytes | tuple[str, str | bytes]) -> Any:
    """A message attribute as the client takes it; a pair names its type."""
    match value:
        case (kind, bytes() as data):
            return {"DataType": kind, "BinaryValue": data}
        case (kind, text):
            return {"DataType": kind, "StringValue": text}
        case bytes():
            return {"DataType": "Binary", "BinaryValue": value}
        case str():
            return {"DataType": "String", "StringValue": value}
        case _:
            return {"DataType": "Number", "StringValue": str(value)}


def notification(message: str, **more: Any) -> str:
    """What SNS puts into a queue without raw delivery."""
    envelope = {
        "Type": "Notification",
        "MessageId": "5f1c8a9e-0000-4000-8000-000000000001",
        "TopicArn": "arn:aws:sns:eu-central-1:123456789012:orders",
        "Message": message,
        "Timestamp": "2026-11-24T12:00:00.000Z",
        "SignatureVersion": "1",
        "Signature": base64.b64encode(b"not a signature").decode(),
        "SigningCertURL": "https://sns.example/cert.pem",
        "UnsubscribeURL": "https://sns.example/?Action=Unsubscribe",
    }
    return json.dumps(envelope | more)


def pointer(bucket: str, key: str, kind: str = "software.amazon.payloadoffloading.PayloadS3Pointer") -> str:
    """What the extended client sends in place of a body."""
    return json.dumps([kind, {"s3BucketName": bucket, "s3Key": key}])


@dataclass(frozen=True)
class Bucket:
    """An S3 bucket of the test's own."""

    client: S3Client
    name: str

    async def put(self, key: str, body: bytes) -> str:
        """Store an object; the pointer to it."""
        await self.client.put_object(Bucket=self.name, Key=key, Body=body)
        return pointer(self.name, key)

    async def keys(self) -> list[str]:
        listed = await self.client.list_objects_v2(Bucket=self.name)
        return [found["Key"] for found in listed.get("Contents", [])]
