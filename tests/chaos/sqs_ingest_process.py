"""A gateway reduced to its ingest: one SQS queue into one database, until SIGTERM."""

from __future__ import annotations

import asyncio
import os
import signal

from hammerwork.bridges.sqs import SqsBridge, SqsOptions
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.intake import Intake, IntakeLimits
from hammerwork.core.ingest.mapping import FieldMapping
from hammerwork.core.postgres.database import Database


async def main() -> None:
    async with Database(os.environ["CHAOS_DSN"], size=3) as database:
        intake = Intake(
            database,
            SqsBridge("orders", SqsOptions.model_validate_json(os.environ["CHAOS_OPTIONS"])),
            Decoder(),
            FieldMapping(queue="work"),
            IntakeLimits(count=int(os.environ["CHAOS_BATCH"])),
            kind="sqs",
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, intake.stop)
        await intake.run()


if __name__ == "__main__":
    asyncio.run(main())
