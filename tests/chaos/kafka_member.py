"""A gateway reduced to its ingest: one member of a Kafka group into one database, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal

from hammerwork.bridges.kafka import KafkaBridge, KafkaOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database


async def main() -> None:
    settings = {
        "bootstrap": os.environ["CHAOS_KAFKA"],
        "topics": os.environ["CHAOS_TOPIC"],
        "session_timeout": float(os.environ["CHAOS_SESSION"]),
        "fetch_wait": 0.05,
    }
    async with Database(os.environ["CHAOS_DSN"], size=3) as database:
        intake = Intake(
            database,
            KafkaBridge("orders", KafkaOptions.model_validate(settings)),
            Decoder(),
            FieldMapping(queue="work"),
            IntakeLimits(count=int(os.environ["CHAOS_BATCH"])),
            kind="kafka",
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, intake.stop)
        await intake.run()


if __name__ == "__main__":
    asyncio.run(main())
