"""A gateway reduced to one log sink: the events of one database to Kafka, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal
from datetime import timedelta

from hammerwork.core.event import EventType
from hammerwork.core.postgres.database import Database
from hammerwork.core.publish.log_relay import LogRelay
from hammerwork.core.publish.relay import Subscription
from hammerwork.sinks.kafka import KafkaSink, KafkaSinkOptions


async def main() -> None:
    options = KafkaSinkOptions.model_validate_json(os.environ["CHAOS_SINK"])
    async with Database(os.environ["CHAOS_DSN"], size=5) as database:
        relay = LogRelay(
            database,
            Subscription(name="stream", types=frozenset(EventType), from_log=True),
            KafkaSink("stream", options),
            kind="kafka",
            batch=int(os.environ["CHAOS_BATCH"]),
            hold=timedelta(seconds=6),
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, relay.stop)
        await relay.run()


if __name__ == "__main__":
    asyncio.run(main())
