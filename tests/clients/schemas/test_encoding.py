"""Events as Avro: what a consumer with a registry reads, and what a registry may say against it."""

from __future__ import annotations

import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import UUID

import fastavro
import pytest

from hammerwork.clients.schemas.encoding import EVENT_SCHEMA, EventEncoder, subject_of
from hammerwork.clients.schemas.options import RegistryOptions
from hammerwork.clients.schemas.registry import Registry
from hammerwork.core.errors import Disconnected, Misconfigured

from ...services import free_port
from .bodies import decoder_of, read
from .registry_server import RegistryServer

EVENT, JOB = UUID(int=1), UUID(int=2)
AT = datetime(2026, 1, 2, 3, 4, 5, 678901, UTC)


@dataclass(frozen=True, slots=True)
class Logged:
    id: UUID = EVENT
    source: str = "/hammerwork"
    type: str = "job.completed"
    at: datetime = AT
    job_id: UUID | None = JOB
    sequence: int = 3
    queue: str | None = "orders"
    text: str = '{"attempt":1,"é":[1.5,null]}'


def encoder_of(url: str, *, auto_register: bool = True) -> EventEncoder:
    return EventEncoder(Registry(RegistryOptions(url=url)), subject_of("jobs"), auto_register=auto_register)


async def test_a_consumer_reads_an_event_by_the_schema_of_its_id(registry: RegistryServer) -> None:
    encoder = encoder_of(registry.url)
    await encoder.open()
    body = encoder.value(Logged())
    schema = json.loads(registry.versions[registry.subjects["jobs-value"][0] - 1].schema)
    found = fastavro.schemaless_reader(io.BytesIO(body[5:]), fastavro.parse_schema(schema), None)
    event = Logged()
    assert found == {
        "id": event.id,
        "source": "/hammerwork",
        "type": "dev.hammerwork.job.completed",
        "time": event.at,
        "job_id": event.job_id,
        "sequence": 3,
        "queue": "orders",
        "data": event.text,
    }
    lone = encoder.value(Logged(job_id=None, queue=None))
    read_lone = await read(decoder_of(registry.url, "avro"), lone)
    assert (read_lone["job_id"], read_lone["queue"], read_lone["id"]) == (None, None, str(EVENT))


async def test_the_registry_is_asked_once(registry: RegistryServer) -> None:
    encoder = encoder_of(registry.url)
    await encoder.open()
    await encoder.open()
    assert len(registry.asked) == 1


async def test_without_auto_register_nothing_is_registered(registry: RegistryServer) -> None:
    encoder = encoder_of(registry.url, auto_register=False)
    with pytest.raises(Misconfigured, match="not registered under 'jobs-value'"):
        await encoder.open()
    assert registry.subjects == {}
    registry.avro(json.loads(EVENT_SCHEMA.text), "jobs-value")
    await encoder.open()
    assert encoder.value(Logged())[:5] == b"\0\0\0\0\1"


async def test_what_a_registry_has_against_it_is_told(registry: RegistryServer) -> None:
    registry.incompatible.add("jobs-value")
    with pytest.raises(Misconfigured, match="incompatible"):
        await encoder_of(registry.url).open()
    with pytest.raises(Disconnected, match="is away"):
        await encoder_of(f"http://127.0.0.1:{free_port()}").open()
