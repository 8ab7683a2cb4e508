"""What a cluster says about the topics of a bridge: whether they are there, and what is worth a warning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType

from ...clients.identity import HeaderIdentity, JsonIdentity
from ...clients.kafka.login import login_arguments
from ...core.errors import Misconfigured
from ...core.message import EXACTLY_ONCE, Guarantee
from .connection import as_ours
from .options import KafkaOptions

SHORT_RETENTION = timedelta(days=1)


async def topics_of(consumer: AIOKafkaConsumer, options: KafkaOptions) -> list[str]:
    """The topics that the options name and the cluster has."""
    try:
        there = await consumer.topics()
    except Exception as error:
        raise as_ours(error) from error
    matcher = options.matcher()
    return sorted(t for t in there if (matcher.match(t) if matcher is not None else t in options.topics))


async def require_topics(consumer: AIOKafkaConsumer, options: KafkaOptions) -> list[str]:
    """The topics; raises Misconfigured where one that is named does not exist."""
    found = await topics_of(consumer, options)
    if missing := sorted(set(options.topics) - set(found)):
        raise Misconfigured(
            f"there is no topic {', '.join(missing)}, or we may not see it",
            hint="create it, or check topics and the user's right to describe it",
        )
    return found


async def guarantee(consumer: AIOKafkaConsumer, options: KafkaOptions, group: str) -> Guarantee:
    """What holds for these topics as they are."""
    topics = await require_topics(consumer, options)
    partitions, settings = await described(options, topics)
    warnings = (*_warnings(options, partitions), *_topic_warnings(settings))
    read = ", ".join(f"{topic} ({count} partitions)" for topic, count in partitions.items()) or "no topic yet"
    because = f"offsets are kept in the transaction of the jobs; group {group} reads {read}"
    match options.identity:
        case HeaderIdentity(header=name):
            because += f"; a record sent twice is known by its header {name}"
        case JsonIdentity(pointer=pointer):
            because += f"; a record sent twice is known by {pointer} in its body"
        case "offset":
            because += "; a record that its producer sent twice is two messages"
    return Guarantee(EXACTLY_ONCE, because, warnings)


async def described(
    options: KafkaOptions, topics: list[str]
) -> tuple[Mapping[str, int], Mapping[str, Mapping[str, Any]]]:
    """How many partitions each topic has, and its settings, as far as the user may read them."""
    if not topics:
        return {}, {}
    admin = AIOKafkaAdminClient(bootstrap_servers=list(options.bootstrap), **await login_arguments(options))
    settings: dict[str, dict[str, Any]] = {}
    try:
        await admin.start()
        described = await admin.describe_topics(topics)
        wanted = [ConfigResource(ConfigResourceType.TOPIC, topic) for topic in topics]
        for answer in await admin.describe_configs(wanted):
            for error, _, _, topic, entries in answer.resources:
                if not error:
                    settings[topic] = {entry[0]: entry[1] for entry in entries}
    except Exception as error:
        raise as_ours(error) from error
    finally:
        await admin.close()
    return {topic["topic"]: len(topic["partitions"]) for topic in described}, settings


def _warnings(options: KafkaOptions, partitions: Mapping[str, int]) -> Iterator[str]:
    if not partitions:
        yield f"no topic matches {options.pattern!r} yet"
    for topic, count in partitions.items():
        if count == 1:
            yield f"{topic} has one partition: one gateway reads it, the others stand by"
    if options.start == "latest":
        yield "start = 'latest': what a new partition holds before it is first seen is never read"
    if options.on_gap == "skip":
        yield "on_gap = 'skip': records that are gone before they were read are passed over, with a log line"
    if options.sasl is not None and options.tls is False:
        yield "sasl without tls: whoever listens on the network can read the login or the records"


def _topic_warnings(settings: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    for topic, said in settings.items():
        policy = str(said.get("cleanup.policy", ""))
        if "compact" in policy:
            yield f"{topic} is compacted: of records with one key that come fast, only the last may be read"
        milliseconds = int(said.get("retention.ms") or -1)
        if "delete" in policy and 0 <= milliseconds < SHORT_RETENTION.total_seconds() * 1000:
            kept = timedelta(milliseconds=milliseconds)
            yield f"{topic} keeps records for {kept}: an outage of ours that is longer loses some"
