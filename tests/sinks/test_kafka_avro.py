"""The Kafka sink with a schema registry: what a consumer decodes, and what holds the sink."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import ValidationError

from hammerwork.core.errors import Disconnected, Misconfigured
from hammerwork.core.job import Done
from hammerwork.sinks.kafka import KafkaSink, KafkaSinkOptions

from ..clients.schemas.bodies import decoder_of, read
from ..clients.schemas.registry_server import RegistryServer, served
from ..services import free_port
from ..services.kafka import KafkaService
from .kafka_reader import read_topic
from .streaming import NO_JOB, event


@pytest.fixture
async def registry() -> AsyncIterator[RegistryServer]:
    async with served(RegistryServer()) as server:
        yield server


def sink_of(topic: str, url: str, bootstrap: str = "127.0.0.1:1", **options: Any) -> KafkaSink:
    given = {"bootstrap": bootstrap, "topic": topic, "format": "avro", "registry": {"url": url}, **options}
    return KafkaSink("stream", KafkaSinkOptions.model_validate(given))


async def test_a_consumer_decodes_events_by_the_registry(
    kafka_service: KafkaService, registry: RegistryServer
) -> None:
    if not kafka_service.apache:
        pytest.skip("the light broker knows no idempotent producers")
    topic = f"events.{secrets.token_hex(6)}"
    await kafka_service.create_topic(topic)
    told, jobless = event(data={"note": "naïve ✓"}), event(NO_JOB, type="sink.disabled", queue=None)
    sink = sink_of(topic, registry.url, kafka_service.bootstrap)
    try:
        await sink.open()
        assert await sink.send([told, jobless], "mark") == [Done(), Done()]
    finally:
        await sink.close()
    assert list(registry.subjects) == [f"{topic}-value"]
    first, second = await read_topic(kafka_service.bootstrap, topic)
    assert first.key.decode() == str(told.job_id)
    decoder = decoder_of(registry.url, "avro")
    found = await read(decoder, first.value)
    assert json.loads(found.pop("data")) == {"note": "naïve ✓"}
    assert found == {
        "id": str(told.id),
        "source": "/hammerwork",
        "type": "dev.hammerwork.job.completed",
        "time": told.time,
        "job_id": str(told.job_id),
        "sequence": 1,
        "queue": "orders",
    }
    assert (await read(decoder, second.value))["job_id"] is None


async def test_a_registry_that_is_away_or_refuses_holds_the_sink(registry: RegistryServer) -> None:
    with pytest.raises(Disconnected, match=r"schema registry at .+ is away"):
        await sink_of("jobs", f"http://127.0.0.1:{free_port()}").open()
    registry.incompatible.add("jobs-value")
    with pytest.raises(Misconfigured, match="refuses a schema"):
        await sink_of("jobs", registry.url).open()
    with pytest.raises(Misconfigured, match=r"not registered under 'dev\.hammerwork\.Event'"):
        await sink_of("jobs.{queue}", registry.url, auto_register=False).open()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"format": "avro"}, "needs a registry"),
        ({"registry": {"url": "http://registry"}}, "take effect with format = 'avro'"),
        ({"auto_register": False}, "take effect with format = 'avro'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        KafkaSinkOptions.model_validate({"bootstrap": "kafka:9092", "topic": "jobs", **options})
