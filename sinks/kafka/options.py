"""The options of a Kafka sink: which topic and key, what a record looks like, and what is promised."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from ...clients.kafka.options import ClusterOptions, is_topic
from ...clients.schemas.options import RegistryOptions

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
Form = Literal["cloudevents", "cloudevents-binary", "json", "avro"]

PLACEHOLDER = re.compile(r"\{(queue|type)\}")
OWN_HEADERS = ("ce_", "content-type")


class KafkaSinkOptions(ClusterOptions):
    """Where the cluster is, and how an event becomes a record."""

    topic: str
    """The topic, or one of several by `{queue}` and `{type}`: `jobs.{queue}`. Topics must exist."""
    key: str | None = None
    """A CEL expression over type, queue, job_id, sequence and data that answers text; None: the job's id, so
    that the events of a job stay in order."""
    format: Form = "cloudevents"
    """`cloudevents`: the event as one JSON object. `cloudevents-binary`: its attributes as `ce_` headers, its
    data as the value. `json`: an object of id, type, job_id, sequence, queue, time and data. `avro`: the
    same, its data as JSON text, in the wire format of Confluent's schema registry."""
    registry: RegistryOptions | None = None
    """The schema registry of `avro`."""
    subject: str | None = Field(None, min_length=1)
    """Under which the schema of `avro` is registered; None: `TOPIC-value`, or `dev.hammerwork.Event` where
    there are several topics."""
    auto_register: bool = True
    """Register the schema of `avro`; otherwise it must be there."""
    headers: dict[str, str] = Field(default_factory=dict)
    """Headers of every record, beside those of the format."""
    compression: Compression = "none"
    delivery: Literal["idempotent", "transactional"] = "idempotent"
    """`transactional`: each batch and the position in the event log are one transaction of Kafka, so that a
    consumer with isolation.level=read_committed sees every event exactly once."""
    transactional_id: str | None = Field(None, min_length=1, max_length=249)
    """Also the consumer group that keeps the position; None: `hammerwork.NAME.DEPLOYMENT`, which names the
    database (`select id from hammerwork.deployment`), so that no other deployment has it."""
    position_topic: str | None = None
    """The topic under which the position is kept; needed where `topic` is several."""
    max_record_bytes: ByteSize = Field(ByteSize(1024 * 1024), ge=1024)
    """A larger record is a dead letter. No more than the topic's max.message.bytes."""
    batch_bytes: ByteSize = Field(ByteSize(512 * 1024), ge=1024)
    """Of one partition at a time; no more than max.message.bytes."""
    request_timeout: Annotated[timedelta, Field(gt=timedelta(0), le=timedelta(seconds=19))] = timedelta(
        seconds=10
    )

    @field_validator("topic")
    @classmethod
    def _is_topic(cls, given: str) -> str:
        if not is_topic(PLACEHOLDER.sub("x", given)):
            raise ValueError(
                f"{given!r} is no topic: letters, digits, `.`, `_`, `-`, at most 249;"
                " {queue} and {type} stand for an event's own"
            )
        return given

    @field_validator("position_topic")
    @classmethod
    def _is_one_topic(cls, given: str | None) -> str | None:
        if given is not None and not is_topic(given):
            raise ValueError(f"{given!r} is no topic: letters, digits, `.`, `_`, `-`, at most 249")
        return given

    @field_validator("headers")
    @classmethod
    def _are_free(cls, given: dict[str, str]) -> dict[str, str]:
        for name in given:
            if not name or name.lower().startswith(OWN_HEADERS):
                raise ValueError(f"the header {name!r} is set by the format")
        return given

    @model_validator(mode="after")
    def _has_a_registry_for_avro(self) -> Self:
        if self.format == "avro":
            if self.registry is None:
                raise ValueError("format = 'avro' needs a registry")
        elif self.registry is not None or self.subject is not None or not self.auto_register:
            raise ValueError("registry, subject and auto_register take effect with format = 'avro'")
        return self

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.delivery == "idempotent":
            if self.transactional_id is not None or self.position_topic is not None:
                raise ValueError(
                    "transactional_id and position_topic take effect with delivery = 'transactional'"
                )
        elif self.fixed_topic is None and self.position_topic is None:
            raise ValueError("position_topic is needed where topic has placeholders")
        return self

    @property
    def fixed_topic(self) -> str | None:
        """The one topic; None where there are several."""
        return None if PLACEHOLDER.search(self.topic) else self.topic
