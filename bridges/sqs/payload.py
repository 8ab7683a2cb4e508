"""Bodies that lie in S3: the pointers that the SQS and SNS extended clients send in place of them."""

from __future__ import annotations

import json
from dataclasses import dataclass

ENCODING = "s3-pointer"
"""The content encoding of a dead letter that is a pointer still, so that nothing takes it for the body."""

CLASSES = (
    "software.amazon.payloadoffloading.PayloadS3Pointer",
    "com.amazon.sqs.javamessaging.MessageS3Pointer",
)
MARK = b'S3Pointer"'


@dataclass(frozen=True, slots=True)
class Pointer:
    """The place of an object."""

    bucket: str
    key: str

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.key}"


def read_pointer(body: bytes) -> Pointer | None:
    """The pointer that a body is; None where it is anything else: `["…S3Pointer", {"s3BucketName": …,
    "s3Key": …}]`."""
    if MARK not in body[:120]:
        return None
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return None
    match found:
        case [str(name), {"s3BucketName": str(bucket), "s3Key": str(key)}] if name in CLASSES:
            return Pointer(bucket, key) if bucket and key else None
        case _:
            return None
