"""The options of a Kafka bridge: which topics, from where on, how much at a time, and who we are."""

from __future__ import annotations

import re
from datetime import datetime, timedelta
from typing import Annotated, Literal, Self

from pydantic import ByteSize, Field, field_validator, model_validator

from ...clients.identity import HeaderIdentity, JsonIdentity
from ...clients.kafka.options import ClusterOptions, Wait, Words, is_topic


class KafkaOptions(ClusterOptions):
    """How to reach topics and what to make of their records."""

    topics: Words = ()
    """Topics that must exist. Either these or a `pattern`."""
    pattern: str | None = None
    """A regular expression that a topic's whole name matches; topics that come later join in."""
    exclude: str | None = None
    """A regular expression for topics that the pattern leaves out."""
    group: str | None = Field(None, min_length=1)
    """The consumer group, `hammerwork.NAME` if None. All gateways of one bridge are its members."""
    instance_id: str | None = Field(None, pattern="^[a-zA-Z0-9._-]{1,249}$")
    """A name of this process that outlives it: back within `session_timeout` it causes no rebalance."""
    start: Literal["earliest", "latest", "group"] | datetime = "earliest"
    """Where a partition begins that was never read: its start, its end, where the group's commits stand (its
    start without one), or the first record of that moment or later."""
    on_gap: Literal["hold", "skip"] = "hold"
    """Records that were not read are gone (retention, or the topic was made anew): hold with the exact range,
    or log it and go on with what is there."""
    identity: Literal["offset"] | HeaderIdentity | JsonIdentity = "offset"
    """What makes a record the same message when its producer has sent it twice; `offset`: nothing does."""
    rack: str | None = None
    """Where this process is: brokers then name a replica nearby to read from."""
    session_timeout: Annotated[timedelta, Field(ge=timedelta(milliseconds=500))] = timedelta(seconds=15)
    """A member that the group has not heard of for so long has lost its partitions."""
    max_poll_interval: Wait = timedelta(minutes=5)
    """A member that takes nothing of what it fetched for so long leaves the group."""
    metadata_max_age: Wait = timedelta(minutes=1)
    """How soon new topics and partitions are found."""
    fetch_size: ByteSize = Field(ByteSize(8 * 1024 * 1024), ge=1)
    """Bytes that one fetch may bring; about three times as much is held in memory."""
    partition_fetch_size: ByteSize = Field(ByteSize(1024 * 1024), ge=1)
    """Bytes of one partition in a fetch; a larger record comes alone."""
    fetch_wait: Wait = timedelta(milliseconds=500)
    """How long a broker waits for records before it answers a fetch with none."""

    @field_validator("topics")
    @classmethod
    def _are_topics(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        for topic in given:
            if not is_topic(topic):
                raise ValueError(f"{topic!r} is no topic's name: letters, digits, `.`, `_`, `-`, at most 249")
        return given

    @field_validator("pattern", "exclude")
    @classmethod
    def _is_expression(cls, given: str | None) -> str | None:
        if given is not None:
            try:
                re.compile(given)
            except re.error as error:
                raise ValueError(f"is no regular expression: {error}") from error
        return given

    @field_validator("start")
    @classmethod
    def _has_zone(cls, given: object) -> object:
        if isinstance(given, datetime) and given.tzinfo is None:
            raise ValueError("needs a time zone: 2026-01-31T00:00:00Z")
        return given

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if bool(self.topics) == (self.pattern is not None):
            raise ValueError("needs topics or a pattern, one of the two")
        if self.exclude is not None and self.pattern is None:
            raise ValueError("exclude leaves topics out of a pattern; there is none")
        if self.max_poll_interval < self.session_timeout:
            raise ValueError("max_poll_interval must not be shorter than session_timeout")
        return self

    def matcher(self) -> re.Pattern[str] | None:
        """The pattern and what it excludes as one expression for whole names."""
        if self.pattern is None:
            return None
        excluded = f"(?!(?:{self.exclude})$)" if self.exclude is not None else ""
        return re.compile(f"{excluded}(?:{self.pattern})$")
