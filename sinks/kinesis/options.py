"""The options of a Kinesis sink: which stream, and how an event becomes a record."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, model_validator

from ...clients.aws.options import AccountOptions

MOST_RECORDS = 500
MOST_BYTES = 5 * 1024 * 1024
"""Of one PutRecords, partition keys included."""


class KinesisOptions(AccountOptions):
    """Where the stream is, and how an event becomes a record."""

    stream: str = Field(min_length=1, max_length=2048)
    """The stream's name, or its ARN."""
    partition_key: str | None = None
    """A CEL expression over type, queue, job_id, sequence and data that answers text; None: the job's id, so
    that the events of a job stay in order."""
    explicit_hash_key: str | None = None
    """A CEL expression that answers the hash key, a number below 2^128 as text, in place of the MD5 of the
    partition key. Events of one partition key should have one hash key."""
    format: Literal["cloudevents", "json"] = "cloudevents"
    """`cloudevents`: the event as one JSON object. `json`: an object of id, type, job_id, sequence, queue,
    time and data."""
    aggregate: bool = False
    """Put many events into one record, in the format of the Kinesis Producer Library, which the Client
    Library takes apart by itself. Needs the extra `schema`."""
    max_record_bytes: ByteSize = Field(ByteSize(1024 * 1024), ge=1024, le=MOST_BYTES)
    """A larger record, its partition key included, is a dead letter. No more than the stream allows."""
    requests: Annotated[int, Field(ge=1, le=50)] = 4
    """PutRecords at a time."""
    timeout: Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(seconds=19))] = timedelta(seconds=10)
    """For one request, its tries included."""

    @model_validator(mode="after")
    def _one_way_to_a_shard(self) -> Self:
        if self.aggregate and self.explicit_hash_key is not None:
            raise ValueError(
                "aggregate chooses the hash keys of its records, so it takes no explicit_hash_key"
            )
        return self

    @property
    def named(self) -> dict[str, str]:
        """The argument of every call that says which stream."""
        return {"StreamARN" if self.stream.startswith("arn:") else "StreamName": self.stream}
