"""Over the intake into Postgres: what a schema reads becomes jobs, what it refuses dead letters, and a
registry that is away holds the bridge until it is back."""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.message import Delivery, Guarantee, Message, Receipt, Want
from hammerwork.core.queue import Queue

from ...core.running import running, until
from ...services import free_port
from .bodies import avro, decoder_of, framed
from .registry_server import RegistryServer, served
from .test_avro import EVERYTHING, READ, VALUE
from .test_protobuf import ORDER, ORDERS, SHARED, order


class MemoryBroker:
    """A Bridge that delivers each body until it is settled, in order."""

    def __init__(self, bodies: Iterable[bytes], name: str = "orders") -> None:
        self.name = name
        self._waiting = deque(
            Delivery(Message(body=body, id=f"m{number}")) for number, body in enumerate(bodies)
        )
        self.receipts: list[Receipt] = []
        self.released = 0

    async def open(self) -> None:
        return

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if not self._waiting:
            await asyncio.sleep(min(0.01, want.wait.total_seconds()))
        return [self._waiting.popleft() for _ in range(min(want.count, len(self._waiting)))]

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        self.receipts += receipts

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        self.released += len(deliveries)
        self._waiting.extendleft(reversed(deliveries))

    async def rest(self) -> None:
        return

    async def lag(self) -> int | None:
        return len(self._waiting)

    async def close(self) -> None:
        return

    async def guarantee(self) -> Guarantee:
        return Guarantee("exactly-once in effect", "every message has an id")


async def stored(queue: Queue, sql: str) -> list[Any]:
    async with queue.database.transaction() as connection:
        return [row[0] for row in await connection.fetch(sql)]


PAYLOADS = "select payload::text from hammerwork.jobs order by run_at, id"
REASONS = "select reason from hammerwork.dead_letters order by id"


async def ingested(queue: Queue, decoder: Decoder, bodies: Sequence[bytes]) -> tuple[list[Any], list[str]]:
    """The payloads and the reasons that these bodies leave behind."""
    broker = MemoryBroker(bodies)
    async with running(Intake(queue.database, broker, decoder, FieldMapping("work"))):
        await until(lambda: _all_settled(broker, len(bodies)))
    payloads = [json.loads(text) for text in await stored(queue, PAYLOADS)]
    return payloads, await stored(queue, REASONS)


async def _all_settled(broker: MemoryBroker, count: int) -> bool:
    return len(broker.receipts) == count


async def test_avro_becomes_jobs_and_dead_letters(queue: Queue, registry: RegistryServer) -> None:
    schema_id = registry.avro(EVERYTHING)
    good = framed(schema_id, avro(EVERYTHING, VALUE))
    bodies = [good, good[:-3], b"{}", framed(schema_id + 1, b""), good]
    payloads, reasons = await ingested(queue, decoder_of(registry.url, "avro"), bodies)
    assert payloads == [READ, READ]
    assert reasons == ["bad_avro", "no_schema_id", "unknown_schema"]


async def test_protobuf_becomes_jobs_and_dead_letters(queue: Queue, registry: RegistryServer) -> None:
    registry.protobuf(SHARED.SerializeToString(), "shared")
    schema_id = registry.protobuf(ORDERS.SerializeToString(), "orders", shared__proto="shared")
    bodies = [framed(schema_id, ORDER + order(order_id=f"o{n}").SerializeToString()) for n in range(3)]
    decoder = decoder_of(registry.url, "protobuf")
    payloads, reasons = await ingested(queue, decoder, [*bodies, bodies[0] + b"\xff"])
    assert [payload["orderId"] for payload in payloads] == ["o0", "o1", "o2"]
    assert reasons == ["bad_protobuf"]


async def test_json_schema_becomes_jobs_and_dead_letters(queue: Queue, registry: RegistryServer) -> None:
    schema_id = registry.json({"required": ["id"]})
    bodies = [framed(schema_id, body) for body in (b'{"id": 1}', b"{}", b"nonsense")]
    payloads, reasons = await ingested(queue, decoder_of(registry.url, "json_schema"), bodies)
    assert payloads == [{"id": 1}]
    assert reasons == ["schema_violation", "not_json"]


async def test_a_registry_that_is_away_holds_the_bridge_and_nothing_is_lost(queue: Queue) -> None:
    server, port = RegistryServer(), free_port()
    known, unheard = server.avro("string"), server.avro("long")
    first = [framed(known, avro("string", f"m{n}")) for n in range(20)]
    rest = [framed(unheard, avro("long", n)) for n in range(20)] + first
    decoder = decoder_of(f"http://127.0.0.1:{port}", "avro", timeout=1)
    async with served(server, port):
        await ingested(queue, decoder, first)
    broker = MemoryBroker(first, "another")
    intake = Intake(queue.database, broker, decoder, FieldMapping("work"))
    async with running(intake):
        await until(lambda: _all_settled(broker, len(first)))  # their schema is known: no registry is needed

    broker = MemoryBroker(rest, "third")
    intake = Intake(queue.database, broker, decoder, FieldMapping("third"))

    async def held() -> bool:
        return intake.status.state == "holding" and broker.released >= len(rest)

    async with running(intake):
        await until(held)
        assert "schema registry" in intake.status.reason
        assert broker.receipts == []
        async with served(server, port):
            await until(lambda: _all_settled(broker, len(rest)))
    counted = "select count(*) from hammerwork.jobs where queue = 'third'"
    assert await stored(queue, counted) == [len(rest)]
    assert await stored(queue, REASONS) == []
