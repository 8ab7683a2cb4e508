"""The calls of AWS that the bridge needs, and what their errors ask of us: reconnect, or fix a setting."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

from botocore.exceptions import ClientError

from ...clients.aws.client import client_of, code_of, mapped
from ...core.errors import BadMessage
from .options import MOST_A_CALL, SqsOptions
from .payload import Pointer

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client
    from types_aiobotocore_sqs import SQSClient
    from types_aiobotocore_sqs.type_defs import MessageTypeDef

ATTEMPTS = 3
"""Tries of one call by the client itself, with its backoff; then the framework backs off."""

GONE = frozenset({"ReceiptHandleIsInvalid", "InvalidParameterValue", "MessageNotInflight"})
"""Of one message of a batch: its receipt handle is too old. It comes again, or is deleted."""

NO_QUEUE = dict.fromkeys(
    ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"),
    "create the queue, or check queue, region and account",
)
NO_BUCKET = {"NoSuchBucket": "payload_buckets names a bucket that is not there"}
NO_OBJECT = frozenset({"NoSuchKey", "404"})

NEEDED = (
    "the credentials need sqs:GetQueueUrl, GetQueueAttributes, ReceiveMessage, DeleteMessage and"
    " ChangeMessageVisibility on the queue, and kms:Decrypt on its key where it has one"
)
NEEDED_OF_S3 = (
    "the credentials need s3:GetObject on the bucket, s3:DeleteObject for delete_payloads, and s3:ListBucket,"
    " or S3 says 403 of an object that is missing"
)


class Connection:
    """One queue over clients of our own. `close` is idempotent; everything else raises Disconnected or
    Misconfigured."""

    def __init__(self, options: SqsOptions) -> None:
        self._options = options
        self._closing = AsyncExitStack()
        self._sqs: SQSClient
        self._s3: S3Client | None = None
        self.queue_url = options.queue

    @classmethod
    async def open(cls, options: SqsOptions) -> Self:
        """Find credentials and the queue."""
        connection = cls(options)
        try:
            with mapped(NEEDED, absent=NO_QUEUE):
                await connection._enter()
        except BaseException:
            await connection.close()
            raise
        return connection

    async def close(self) -> None:
        await self._closing.aclose()

    async def attributes(self) -> Mapping[str, str]:
        """All that the queue says of itself."""
        with mapped(NEEDED, absent=NO_QUEUE):
            answer = await self._sqs.get_queue_attributes(QueueUrl=self.queue_url, AttributeNames=["All"])
        return {str(name): value for name, value in answer.get("Attributes", {}).items()}

    async def receive(self, wait: timedelta, visibility: timedelta) -> Sequence[MessageTypeDef]:
        """Up to ten messages, hidden for `visibility`. Cancelled, it may leave that many hidden unseen."""
        with mapped(NEEDED, absent=NO_QUEUE):
            answer = await self._sqs.receive_message(
                QueueUrl=self.queue_url,
                MaxNumberOfMessages=MOST_A_CALL,
                WaitTimeSeconds=int(wait.total_seconds()),
                VisibilityTimeout=int(visibility.total_seconds()),
                MessageSystemAttributeNames=["All"],
                MessageAttributeNames=["All"],
            )
        return answer.get("Messages", [])

    async def delete(self, handles: Sequence[str]) -> dict[int, str]:
        """Delete up to ten messages; the codes of those that were not deleted, by their place."""
        entries = [{"Id": str(n), "ReceiptHandle": handle} for n, handle in enumerate(handles)]
        with mapped(NEEDED, absent=NO_QUEUE):
            answer = await self._sqs.delete_message_batch(QueueUrl=self.queue_url, Entries=entries)  # type: ignore[arg-type]
        return {int(failed["Id"]): failed["Code"] for failed in answer.get("Failed", [])}

    async def hide(self, handles: Sequence[str], visibility: Sequence[int]) -> dict[int, str]:
        """Set how many seconds from now each of up to ten messages stays hidden (0: it is there at once);
        the codes of those of which it was refused, by their place."""
        entries = [
            {"Id": str(n), "ReceiptHandle": handle, "VisibilityTimeout": seconds}
            for n, (handle, seconds) in enumerate(zip(handles, visibility, strict=True))
        ]
        with mapped(NEEDED, absent=NO_QUEUE):
            answer = await self._sqs.change_message_visibility_batch(
                QueueUrl=self.queue_url,
                Entries=entries,  # type: ignore[arg-type]
            )
        return {int(failed["Id"]): failed["Code"] for failed in answer.get("Failed", [])}

    async def fetch(self, pointer: Pointer) -> bytes:
        """The object that a message points at. Raises BadMessage where it is missing or too large."""
        if self._s3 is None or pointer.bucket not in self._options.payload_buckets:
            raise BadMessage("foreign_bucket", f"{pointer} is in none of payload_buckets")
        most = self._options.payload_bytes
        with mapped(NEEDED_OF_S3, absent=NO_BUCKET):
            try:
                answer = await self._s3.get_object(Bucket=pointer.bucket, Key=pointer.key)
            except ClientError as error:
                if code_of(error) in NO_OBJECT:
                    raise BadMessage("payload_missing", f"there is no {pointer}") from error
                raise
            async with answer["Body"] as body:
                if (size := answer["ContentLength"]) > most:
                    body.close()
                    raise BadMessage("too_large", f"{pointer} has {size} bytes; {most} are allowed")
                return await body.read()

    async def delete_object(self, pointer: Pointer) -> None:
        """Delete the object that a message pointed at."""
        assert self._s3 is not None
        with mapped(NEEDED_OF_S3, absent=NO_BUCKET):
            await self._s3.delete_object(Bucket=pointer.bucket, Key=pointer.key)

    async def _enter(self) -> None:
        options = self._options
        limits: dict[str, Any] = {
            "region": options.queue_region,
            "read_timeout": options.wait + timedelta(seconds=10),
            "connections": 2 * options.pollers + 16,
            "attempts": ATTEMPTS,
        }
        enter = self._closing.enter_async_context
        self._sqs = await enter(client_of(options, "sqs", **limits))
        if options.payload_buckets:
            self._s3 = await enter(client_of(options, "s3", endpoint_url=options.s3_endpoint_url, **limits))
        if not self.queue_url.startswith(("http://", "https://")):
            self.queue_url = (await self._sqs.get_queue_url(QueueName=self.queue_url))["QueueUrl"]
