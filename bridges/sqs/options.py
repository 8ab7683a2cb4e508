"""What an operator may set for a bridge from SQS."""

from __future__ import annotations

from datetime import timedelta
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import ByteSize, Field, field_validator, model_validator

from ...clients.aws.options import AccountOptions, http_address
from ...clients.identity import JsonIdentity
from ...clients.options import Options

MOST_A_CALL = 10
"""Messages that one call of SQS takes or brings."""

LONGEST_VISIBILITY = timedelta(hours=12)
LONGEST_WAIT = timedelta(seconds=10)
"""SQS allows 20 s. A poll must end by itself before a gateway that stops has no more time for it."""


class AttributeIdentity(Options):
    """The identity is what this message attribute says (text or number)."""

    attribute: str = Field(min_length=1, max_length=256)


Identity = Literal["message_id", "deduplication_id", "envelope_id"] | AttributeIdentity | JsonIdentity
"""`message_id`: SQS's own, the same on every redelivery. `deduplication_id`: the producer's, of a FIFO queue.
`envelope_id`: that of the SNS notification or the EventBridge event. A message without the one that is asked
for counts by its message id."""

Unwrap = Literal["none", "auto", "sns", "eventbridge"]
"""`sns`: every body must be an SNS notification; its message is the body, its attributes are headers.
`eventbridge`: every body must be an EventBridge event; its detail is the body. `auto`: bodies that are SNS
notifications are unwrapped, others are taken as they are."""


class SqsOptions(AccountOptions):
    """How to reach a queue and what to make of its messages."""

    queue: str = Field(min_length=1, max_length=1024)
    """The queue's URL, or its name in the account of the credentials."""
    region: str | None = Field(None, min_length=1)
    """None: what the queue's URL says, else what AWS_REGION, AWS_DEFAULT_REGION or the profile says."""
    pollers: int = Field(2, ge=1, le=64)
    """Long polls at a time; each brings up to 10 messages."""
    wait: timedelta = Field(timedelta(seconds=10), ge=timedelta(seconds=1), le=LONGEST_WAIT)
    """How long a poll waits for messages, in whole seconds. A poll is never cut off: it would leave messages
    hidden that nobody has."""
    prefetch: int = Field(1000, ge=10, le=20_000)
    """How many messages may be in hand, waiting ones and unsettled ones together."""
    visibility: timedelta = Field(timedelta(seconds=60), ge=timedelta(seconds=1), le=LONGEST_VISIBILITY)
    """How long a message that we hold stays hidden, in whole seconds; extended at a third for as long as we
    hold it. If the gateway is killed its messages come again after this."""
    identity: Identity = "message_id"
    """What makes a message the same message when it comes again."""
    unwrap: Unwrap = "none"
    """Which envelope bodies are taken out of: `sns`, `eventbridge`, `auto` (SNS where it is), `none`."""
    encoding: Literal["text", "base64"] = "text"
    """`base64`: bodies are base64 of the bytes that are meant; the attribute content-encoding then counts."""
    payload_buckets: tuple[str, ...] = ()
    """S3 buckets from which bodies may be fetched that a producer put there (the extended client's pointers).
    None: a pointer is a body like any other."""
    payload_bytes: ByteSize = Field(ByteSize(16 * 1024 * 1024), ge=1)
    """A larger object is not fetched but dead-lettered; `decode.max_bytes` bounds it too."""
    delete_payloads: bool = False
    """Delete the object once its message is stored as a job and deleted from the queue."""
    s3_endpoint_url: str | None = None
    """Where the buckets are; None: `endpoint_url`, else AWS."""

    @field_validator("wait", "visibility")
    @classmethod
    def _whole_seconds(cls, value: timedelta) -> timedelta:
        if value.microseconds:
            raise ValueError("must be whole seconds")
        return value

    @field_validator("s3_endpoint_url")
    @classmethod
    def _http_too(cls, value: str | None) -> str | None:
        return http_address(value)

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.identity == "envelope_id" and self.unwrap == "none":
            raise ValueError("identity = 'envelope_id' needs unwrap = 'sns', 'eventbridge' or 'auto'")
        if self.delete_payloads and not self.payload_buckets:
            raise ValueError("delete_payloads needs payload_buckets")
        return self

    @property
    def queue_region(self) -> str | None:
        """The region: as set, or as the URL of a queue of AWS names it."""
        if self.region is not None:
            return self.region
        labels = (urlsplit(self.queue).hostname or "").split(".")
        return labels[1] if len(labels) > 3 and labels[0] == "sqs" and "amazonaws" in labels else None
