"""A look at Kafka: it shows what the gateway reads next, and takes nothing from it."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from hammerwork.bridges.kafka import KafkaBridge
from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.ingest.preparation import Preparation
from hammerwork.core.ingest.tap import look_at, tap
from hammerwork.core.message import Want
from hammerwork.core.postgres.database import Database

from .kafka_topic import PROMPT, Topic, kept, pull_all

PATIENCE = timedelta(seconds=2)


async def shown(topic: Topic, most: int, at: Mapping[str, int | None], **options: Any) -> list[str]:
    look = look_at(KafkaBridge("orders", topic.options(**options)), most, at)
    items = await tap(look, Preparation("orders", Decoder(), FieldMapping("work")), most, PATIENCE)
    return [item.delivery.message.body.decode() for item in items]


async def test_a_look_begins_where_the_gateway_stands_and_takes_no_partition_from_it(
    topic: Topic, database: Database
) -> None:
    bridge = topic.bridge(database)
    for n in range(5):
        await topic.send(b"%d" % n)
    await bridge.open()
    try:
        await pull_all(bridge, 2, Want(count=2))
        at = await kept(database)
        stands = {partition: 2 for partition in at}
        assert await shown(topic, 2, stands) == ["2", "3"]
        assert await shown(topic, 10, stands) == ["2", "3", "4"]
        assert await kept(database) == at
        await topic.send(b"5")
        assert [d.message.body for d in await pull_all(bridge, 4, PROMPT)] == [b"2", b"3", b"4", b"5"]
    finally:
        await bridge.close()


@pytest.mark.parametrize(
    ("start", "bodies"), [("earliest", ["0", "1"]), ("group", ["0", "1"]), ("latest", [])]
)
async def test_what_was_never_read_is_shown_from_where_a_gateway_would_begin(
    topic: Topic, start: str, bodies: list[str]
) -> None:
    for n in range(2):
        await topic.send(b"%d" % n)
    assert await shown(topic, 5, {f"{topic.name}/0": None}, start=start) == bodies


async def test_what_cannot_be_looked_at_says_why(topic: Topic) -> None:
    with pytest.raises(Misconfigured, match="no topic"):
        await shown(topic, 5, {}, topics=["no.such.topic"])
    with pytest.raises(Disconnected):
        await shown(topic, 5, {}, bootstrap="127.0.0.1:1")
