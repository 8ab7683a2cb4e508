"""`make demo`: two brokers, a gateway, workers, a webhook receiver; 2,000 messages, two kills, one sum."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import sys
import time
from base64 import b64encode
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import asyncpg

sys.path.insert(0, str(Path(__file__).parent.parent))

from demo.log import EVENTS, ORDERS, publish_kafka, read_events
from demo.parts import (
    Child,
    Parcel,
    Receiver,
    declare_amqp,
    parcels,
    publish_amqp,
    publish_http,
)
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.schema import migrate
from hammerwork.gateway.embedded import EmbeddedPostgres
from tests.services import ServiceMissing, StartFailed, free_port
from tests.services.kafka import KafkaService, find_kafka
from tests.services.rabbitmq import RabbitmqService, find_rabbitmq

PUBLISHED, DUPLICATES, POISON = 2000, 60, 40
RATE = 400
DEADLINE = 120.0
FOLDER = Path(".demo")
STANDING = """
    select (select count(*) from hammerwork.jobs where queue = 'orders')
             + (select count(*) from hammerwork.history where queue = 'orders') as jobs,
           (select count(*) from hammerwork.history
            where queue = 'orders' and state = 'completed') as completed,
           (select count(*) from bookings) as bookings,
           (select count(*) - count(distinct order_number) from bookings) as double_bookings,
           (select count(*) from hammerwork.dead_letters) as dead_letters
"""
REASONS = "select reason, count(*) as letters from hammerwork.dead_letters group by 1 order by 2 desc, 1"
KILL_WORKER_AT, KILL_GATEWAY_AT = 0.35, 0.5


@dataclass(frozen=True, slots=True)
class Standing:
    """What the database and the receiver say at this moment."""

    jobs: int
    completed: int
    bookings: int
    double_bookings: int
    dead_letters: int
    webhooks: int

    def line(self, note: str) -> str:
        return (
            f"  jobs {self.jobs:>5}  completed {self.completed:>5}  dead letters {self.dead_letters:>3}"
            f"  webhooks {self.webhooks:>5}   {note}"
        )


class Demo:
    """Builds the stack, publishes, kills, waits, and counts."""

    def __init__(
        self, dsn: str, receiver: Receiver, broker: RabbitmqService | None, kafka: KafkaService | None
    ) -> None:
        self._dsn = dsn
        self._receiver = receiver
        self._broker = broker
        self._kafka = kafka
        self._told: Counter[str] = Counter()
        self._token = secrets.token_urlsafe(24)
        self._port = free_port()
        self._messages = parcels(PUBLISHED, DUPLICATES, POISON)
        self._expected = len({parcel.id for parcel in self._messages}) - POISON
        config = str(self._write_config())
        environment = {"HAMMERWORK_CONFIG": config}
        worker = ["worker", "run", "demo.handlers:handlers", "--concurrency", "8", "--lease", "5"]
        self._gateway = Child("gateway", ["run"], FOLDER, environment)
        self._workers = [Child(f"worker-{n}", worker, FOLDER, environment) for n in (1, 2)]

    async def run(self) -> int:
        started = time.monotonic()
        await self._prepare()
        children = [self._gateway, *self._workers]
        try:
            await asyncio.gather(*(child.start() for child in children))
            publishing = asyncio.create_task(self._publish(), name="publish")
            try:
                await self._watch(publishing, started)
            finally:
                publishing.cancel()
                await asyncio.gather(publishing, return_exceptions=True)
            return await self._count(time.monotonic() - started)
        finally:
            await asyncio.gather(*(child.stop() for child in children))

    async def _prepare(self) -> None:
        async with Database(self._dsn) as database:
            await migrate(database)
            async with database.acquire() as connection:
                await connection.execute(
                    "create table bookings (job_id uuid not null, order_number bigint not null)"
                )
        if self._broker is not None:
            await declare_amqp(self._broker.url, "orders")
        if self._kafka is not None:
            await self._kafka.create_topic(ORDERS, 3)
            await self._kafka.create_topic(EVENTS, 3)

    async def _publish(self) -> None:
        """Half of the orders by Kafka, where there is one; a duplicate goes the way of its original."""
        logged = [p for p in self._messages if self._kafka is not None and p.number % 2]
        queued = [p for p in self._messages if p not in logged]
        rate = RATE // 2 if logged else RATE
        async with asyncio.TaskGroup() as publishing:
            if self._kafka is not None:
                publishing.create_task(publish_kafka(self._kafka.bootstrap, logged, rate))
            if self._broker is not None:
                publishing.create_task(publish_amqp(self._broker.url, "orders", queued, rate))
            else:
                url = f"http://127.0.0.1:{self._port}/in/orders"
                publishing.create_task(publish_http(url, self._token, queued, rate))

    async def _watch(self, publishing: asyncio.Task[None], started: float) -> None:
        """Show progress, kill half-way, and return when everything has arrived or time is up."""
        worker_killed = gateway_killed = False
        connection = await asyncpg.connect(self._dsn)
        try:
            while time.monotonic() - started < DEADLINE:
                await asyncio.sleep(0.25)
                now = await self._standing(connection)
                note = ""
                if not worker_killed and now.completed > self._expected * KILL_WORKER_AT:
                    worker_killed = True
                    note = await self._kill(self._workers[0], "its jobs are rescued when its lease is over")
                elif not gateway_killed and now.jobs > self._expected * KILL_GATEWAY_AT:
                    gateway_killed = True
                    note = await self._kill(self._gateway, "unacknowledged messages come again")
                print(now.line(note), flush=True)
                self._complain()
                if publishing.done():
                    publishing.result()
                    if worker_killed and gateway_killed and self._adds_up(now):
                        return
        finally:
            await connection.close()

    async def _kill(self, child: Child, effect: str) -> str:
        pid = child.pid
        await child.kill()
        await child.start()
        return f"<- kill -9 {child.name} ({pid}); {effect}"

    def _complain(self) -> None:
        for child in [self._gateway, *self._workers]:
            if complaint := child.complaint():
                raise RuntimeError(complaint)

    def _adds_up(self, now: Standing) -> bool:
        return (
            now.jobs == now.completed == now.bookings == now.webhooks == self._expected
            and now.double_bookings == 0
            and now.dead_letters == POISON
        )

    async def _standing(self, connection: asyncpg.Connection) -> Standing:
        row = await connection.fetchrow(STANDING)
        assert row is not None
        return Standing(**row, webhooks=len(self._receiver.seen))

    async def _count(self, seconds: float) -> int:
        if self._kafka is not None:
            self._told = await read_events(self._kafka.bootstrap, self._expected)
        connection = await asyncpg.connect(self._dsn)
        try:
            now = await self._standing(connection)
            reasons = await connection.fetch(REASONS)
            known = await connection.fetch("select distinct message_id from hammerwork.inbox")
        finally:
            await connection.close()
        lost = len({parcel.id for parcel in self._messages} - {row["message_id"] for row in known})
        lost += self._expected - now.completed if now.completed < self._expected else 0
        print(_table(now, self._messages, reasons, self._receiver, self._stream_line(), seconds))
        print(
            f"demo: published={len(self._messages)} jobs={now.jobs} completed={now.completed}"
            f" duplicates_dropped={len(self._messages) - now.jobs - now.dead_letters}"
            f" dead_letters={now.dead_letters} webhooks={now.webhooks} lost={lost}"
        )
        good = lost == 0 and self._adds_up(now) and self._receiver.forged == 0 and self._streamed_once()
        return 0 if good else 1

    def _streamed_once(self) -> bool:
        """Whether Kafka has every job's completion, each once."""
        return self._kafka is None or (
            len(self._told) == self._expected and self._told.total() == self._expected
        )

    def _stream_line(self) -> tuple[str, int, str] | None:
        if self._kafka is None:
            return None
        repeated = self._told.total() - len(self._told)
        return ("jobs told by Kafka", len(self._told), f"{repeated} twice, read as committed")

    def _write_config(self) -> Path:
        """The file that a user would write; secrets stand in it because it lives as long as the demo."""
        if self._broker is not None:
            bridge = f'type = "rabbitmq"\nurl = "{self._broker.url}"\nqueue = "orders"'
        else:
            bridge = f'type = "http"\npath = "/in/orders"\ntoken = "{self._token}"'
        kafka = ""
        if self._kafka is not None:
            kafka = f"""
[bridges.orders_by_kafka]
type = "kafka"
bootstrap = ["{self._kafka.bootstrap}"]
topics = ["{ORDERS}"]
identity = {{ header = "id" }}
to_queue = "orders"

[sinks.stream]
type = "kafka"
bootstrap = ["{self._kafka.bootstrap}"]
topic = "{EVENTS}"
delivery = "transactional"
events = ["job.completed"]
"""
        text = f"""\
[database]
url = "{self._dsn}"

[worker]
lease = "5s"

[http]
port = {self._port}

[bridges.orders]
{bridge}
to_queue = "orders"

[sinks.receiver]
type = "webhook"
url = "http://127.0.0.1:{self._receiver.port}/events"
secrets = ["{self._receiver.secret}"]
events = ["job.completed"]
allow_http = true
allow_networks = ["127.0.0.0/8"]
retry = ["200ms", "500ms", "1s", "2s", "5s", "5s", "5s"]
{kafka}"""
        path = FOLDER / "hammerwork.toml"
        path.touch(mode=0o600)
        path.write_text(text)
        return path


def _table(
    now: Standing,
    messages: list[Parcel],
    reasons: list[asyncpg.Record],
    receiver: Receiver,
    streamed: tuple[str, int, str] | None,
    seconds: float,
) -> str:
    distinct = Counter(
        parcel.id.partition("-")[0] for parcel in {parcel.id: parcel for parcel in messages}.values()
    )
    rows = [
        ("messages published", len(messages), "with confirms"),
        ("  distinct orders", distinct["order"], "each must become one job"),
        ("  poison", distinct["poison"], "each must become one dead letter"),
        ("jobs in Postgres", now.jobs, ""),
        ("jobs completed", now.completed, "after kill -9 of a worker and of the gateway"),
        ("bookings by handlers", now.bookings, f"{now.double_bookings} double"),
        ("dead letters", now.dead_letters, ", ".join(f"{r['reason']} {r['letters']}" for r in reasons)),
        ("jobs told by webhook", now.webhooks, f"{receiver.calls} calls, {receiver.forged} bad signatures"),
        *filter(None, [streamed]),
    ]
    lines = [f"  {name:<22} {count:>6}  {remark}" for name, count, remark in rows]
    return "\n".join(["", *lines, f"  in {seconds:.1f} s", ""])


async def main() -> int:
    receiver = Receiver("whsec_" + b64encode(secrets.token_bytes(32)).decode())
    broker, kafka = await asyncio.gather(asyncio.to_thread(_broker), asyncio.to_thread(_kafka))
    try:
        async with EmbeddedPostgres(FOLDER / "postgres") as postgres, receiver.serving():
            print(f"demo: {PUBLISHED} messages, {DUPLICATES} of them twice, {POISON} poison", flush=True)
            return await Demo(postgres.dsn, receiver, broker, kafka).run()
    finally:
        for service in filter(None, [broker, kafka]):
            await asyncio.to_thread(service.close)


def _broker() -> RabbitmqService | None:
    try:
        return find_rabbitmq()
    except (ServiceMissing, StartFailed) as missing:
        print(f"demo: over the HTTP bridge instead of RabbitMQ ({missing})", flush=True)
        return None


def _kafka() -> KafkaService | None:
    """Apache Kafka: the light broker knows no transactions."""
    try:
        found = find_kafka()
    except (ServiceMissing, StartFailed) as missing:
        print(f"demo: without Kafka ({missing})", flush=True)
        return None
    if found.apache:
        return found
    found.close()
    print("demo: without Kafka (Apache's own needs java and mvn)", flush=True)
    return None


if __name__ == "__main__":
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(mode=0o755)
    sys.exit(asyncio.run(main()))
