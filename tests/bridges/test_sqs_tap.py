"""A look at SQS: no more is received than is shown, and all of it is given back."""

from __future__ import annotations

from datetime import timedelta

from hammerwork.bridges.sqs import SqsBridge
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.ingest.preparation import Preparation
from hammerwork.core.ingest.tap import look_at, tap

from .sqs_producer import SqsProducer


async def test_a_look_receives_no_more_than_it_shows_and_gives_all_of_it_back(sqs: SqsProducer) -> None:
    await sqs.send_many([f'{{"n": {n}}}' for n in range(25)])
    look = look_at(SqsBridge("orders", sqs.options(pollers=4, wait=10, prefetch=1000)), 3, {})
    held: list[tuple[int, int]] = []

    class Watched(Preparation):
        async def prepare(self, deliveries):  # type: ignore[no-untyped-def]
            held.append(await sqs.counts())
            return await super().prepare(deliveries)

    items = await tap(look, Watched("orders", Decoder(), FieldMapping("work")), 3, timedelta(seconds=5))
    assert [item.row is not None for item in items] == [True] * 3
    assert held == [(15, 10)]
    assert await sqs.counts() == (25, 0)
