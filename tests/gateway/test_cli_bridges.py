"""`hammerwork bridge …`, run as users run it, on a real Postgres and a real RabbitMQ."""

from __future__ import annotations

import asyncio
import gzip
import json
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import aio_pika
import pytest

from hammerwork.bridges.rabbitmq import RabbitmqBridge, RabbitmqOptions
from hammerwork.core import operate
from hammerwork.core.message import Want
from hammerwork.core.postgres.database import Database

from .command import Hammerwork, Ran, assert_one_clear_line

NOWHERE = "amqp://ana:hush-hush@127.0.0.1:1/"
ORDERS = """
[bridges.orders]
type = "rabbitmq"
url = "{url}"
queue = "{queue}"

[bridges.orders.map]
queue = "'orders.' + body.region"
filter = "!has(body.test) || !body.test"

[bridges.mail]
type = "http"
enabled = false
"""


def configured(hammerwork: Hammerwork, url: str = NOWHERE, queue: str = "orders") -> Hammerwork:
    """With two bridges in its settings."""
    file = hammerwork.folder / "hammerwork.toml"
    file.write_text(ORDERS.format(url=url, queue=queue))
    hammerwork.environment["HAMMERWORK_CONFIG"] = str(file)
    return hammerwork


async def opened(database: Database, name: str, kind: str = "rabbitmq") -> None:
    await database.fetch("register_bridge", name, kind, timedelta(days=1))


# --- list, pause, resume -------------------------------------------------------------------------


async def test_bridges_are_listed_with_what_the_database_knows(
    hammerwork: Hammerwork, database: Database
) -> None:
    configured(hammerwork)
    await opened(database, "old", "http")
    [orders, mail, old] = (await hammerwork("bridge", "list")).rows
    assert orders[:4] == ["orders", "rabbitmq", "unopened", "'orders.' + body.region"]
    assert mail[:4] == ["mail", "http", "disabled", "mail"]
    assert old[:3] == ["old", "http", "unconfigured"]
    await opened(database, "orders")
    await operate.pause_bridge(database, "orders", "too much")
    [row, *_] = json.loads((await hammerwork("bridge", "list", "--json")).out)
    assert (row["state"], row["pause_reason"], row["required"]) == ("paused", "too much", True)
    assert row["seen_at"] is not None


async def test_bridges_are_listed_without_a_database_too(bare: Hammerwork) -> None:
    ran = await configured(bare)("bridge", "list")
    assert (ran.code, [row[2] for row in ran.rows]) == (0, ["unknown", "disabled"])
    assert ran.err.startswith("note: ")


async def test_bridge_is_paused_with_a_reason_and_resumed(hammerwork: Hammerwork, database: Database) -> None:
    ran = await hammerwork("bridge", "pause", "orders")
    assert_one_clear_line(ran, "no gateway has opened")
    assert ran.code == 3
    await opened(database, "orders")
    assert (await hammerwork("bridge", "pause", "orders", "--reason", "deploy")).code == 0
    [bridge] = await operate.bridges(database)
    assert (bridge.state, bridge.pause_reason) == ("paused", "deploy")
    assert (await hammerwork("bridge", "resume", "orders")).err == "bridge orders is resumed\n"
    assert (await hammerwork("bridge", "resume", "orders")).err == "bridge orders was not paused\n"


# --- logs ----------------------------------------------------------------------------------------


async def test_a_log_goes_on_elsewhere_only_while_it_is_paused(
    hammerwork: Hammerwork, database: Database
) -> None:
    await opened(database, "log", "kafka")
    await database.fetch("take_offsets", "log", ["orders-0", "orders-1"])
    await database.fetch("begin_offsets", "log", ["orders-0"], [1], [7])
    rows = (await hammerwork("bridge", "offsets", "log")).rows
    assert [row[:2] for row in rows] == [["orders-0", "7"], ["orders-1", ""]]

    seek = ("bridge", "seek", "log", "--partition", "orders-0", "--offset")
    ran = await hammerwork(*seek, 3)
    assert_one_clear_line(ran, "is not paused")
    assert ran.code == 5
    await operate.pause_bridge(database, "log")
    assert (await hammerwork(*seek, 3)).err == "orders-0 goes on at 3, not at 7\n"
    kept = {offset.partition: offset for offset in await operate.bridge_offsets(database, "log")}
    assert (kept["orders-0"].next_offset, kept["orders-0"].fence) == (3, 2)
    assert (kept["orders-1"].next_offset, kept["orders-1"].fence) == (None, 1)

    elsewhere = await hammerwork("bridge", "seek", "log", "--partition", "order-0", "--offset", 1)
    assert_one_clear_line(elsewhere, "orders-0, orders-1")
    assert elsewhere.code == 3
    assert (await hammerwork(*seek, -1)).code == 2


# --- dry-run -------------------------------------------------------------------------------------


async def test_a_file_is_decoded_and_mapped_and_nothing_is_connected_to(bare: Hammerwork) -> None:
    file = bare.folder / "order.json"
    file.write_text('{"region": "eu", "total": 7}')
    dry_run = ("bridge", "dry-run", "orders", file)
    ran = await configured(bare)(
        *dry_run, "--id", "o-1", "--header", "x-tenant=a", "--header", "n:=[1]", "--json"
    )
    [preview] = json.loads(ran.out)
    assert (ran.code, preview["becomes"]) == (0, "job")
    assert preview["job"]["queue"] == "orders.eu"
    assert preview["job"]["payload"] == {"region": "eu", "total": 7}
    assert preview["job"]["headers"] == {"x-tenant": "a", "n": [1]}
    assert preview["message"]["body"] == '{"region": "eu", "total": 7}'


async def test_each_line_may_be_a_message_and_a_bad_one_is_a_finding(bare: Hammerwork) -> None:
    lines = '{"region": "eu"}\n\n{"region": "eu", "test": true}\n{"region": \n{"total": 7}\n'
    ran = await configured(bare)("bridge", "dry-run", "orders", "-", "--lines", given=lines)
    assert ran.code == 8
    assert [row[:2] for row in ran.rows] == [
        ["job", "orders.eu"],
        ["nothing", ""],
        ["dead letter", "not_json"],
        ["dead letter", "mapping_failed"],
    ]
    assert ran.rows[0][3] == '{"region": "eu"}'


async def test_properties_of_the_message_count(bare: Hammerwork) -> None:
    dry_run = ("bridge", "dry-run", "orders", "-")
    packed = gzip.compress(b'{"region": "eu"}')
    ran = await configured(bare)(*dry_run, "--content-encoding", "gzip", "--json", given=packed)
    [preview] = json.loads(ran.out)
    assert preview["job"]["queue"] == "orders.eu"
    assert "base64" in preview["message"]["body"]
    xml = await bare(*dry_run, "--content-type", "text/xml", given="<order/>")
    assert [row[1] for row in xml.rows] == ["unsupported_content_type"]


async def test_tasks_of_celery_are_tried_by_their_transform(bare: Hammerwork) -> None:
    transform = {"HAMMERWORK_BRIDGES__MAIL__TRANSFORM": "celery"}
    configured(bare)
    ran = await bare(
        "bridge", "dry-run", "mail", "-", "--header", "task=shop.mail", "--header", "timelimit:=[9, null]",
        "--json", given='[[7], {}, {"chain": null}]', more=transform,
    )  # fmt: skip
    [preview] = json.loads(ran.out)
    assert preview["job"]["payload"] == {"task": "shop.mail", "args": [7], "kwargs": {}}
    assert preview["job"]["timeout"] == 9


@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (["order", "-"], "did you mean 'orders'?", 3),
        (["orders", "nowhere.json"], "nowhere.json", 1),
        (["orders", "-", "--header", "x-region"], "is no header", 2),
        (["orders", "-", "--header", "n:=[1"], "is not JSON", 2),
    ],
)
async def test_what_cannot_be_tried_is_one_clear_line(
    bare: Hammerwork, arguments: list[str], words: str, code: int
) -> None:
    ran = await configured(bare)("bridge", "dry-run", *arguments)
    assert_one_clear_line(ran, words)
    assert ran.code == code


# --- tap -----------------------------------------------------------------------------------------


@dataclass
class Source:
    """A queue of the test's own."""

    channel: aio_pika.abc.AbstractChannel
    queue: aio_pika.abc.AbstractQueue

    async def send(self, *bodies: bytes, **properties: Any) -> None:
        for number, body in enumerate(bodies):
            message = aio_pika.Message(body, message_id=f"m{number}", **properties)
            await self.channel.default_exchange.publish(message, routing_key=self.queue.name)

    async def until_waiting(self, count: int) -> None:
        """Until so many messages are there that nobody holds, for ten seconds at most."""
        found = None
        for _ in range(500):
            declared = await self.channel.declare_queue(self.queue.name, passive=True)
            if (found := declared.declaration_result.message_count) == count:
                return
            await asyncio.sleep(0.02)
        pytest.fail(f"{found} messages wait, not {count}")

    async def drained(self) -> list[bytes]:
        found = []
        while (message := await self.queue.get(no_ack=True, fail=False)) is not None:
            found.append(message.body)
        return found


@pytest.fixture(params=["classic", "quorum"])
async def source(request: pytest.FixtureRequest, rabbitmq_url: str) -> AsyncIterator[Source]:
    async with await aio_pika.connect(rabbitmq_url) as connection:
        channel = await connection.channel()
        name, arguments = f"tap.{secrets.token_hex(6)}", {"x-queue-type": request.param}
        queue = await channel.declare_queue(name, durable=True, arguments=arguments)
        yield Source(channel, queue)
        await queue.delete(if_unused=False, if_empty=False)


async def tapped(hammerwork: Hammerwork, *more: object) -> Ran:
    return await hammerwork("bridge", "tap", "orders", *more)


async def test_live_messages_are_shown_and_all_of_them_stay(
    bare: Hammerwork, source: Source, rabbitmq_url: str
) -> None:
    configured(bare, rabbitmq_url, source.queue.name)
    bodies = [b'{"region": "eu"}', b"no JSON", b'{"region": "us", "test": true}', b'{"region": "us"}']
    await source.send(*bodies, headers={"x-tenant": "a"})
    ran = await tapped(bare, "--n", 3, "--json")
    assert (ran.code, ran.err) == (0, "")
    previews = json.loads(ran.out)
    assert [preview["becomes"] for preview in previews] == ["job", "dead letter", "nothing"]
    assert previews[0]["job"]["queue"] == "orders.eu"
    assert previews[0]["message"]["id"] == "m0"
    assert previews[0]["message"]["headers"]["x-tenant"] == "a"
    assert previews[1]["reason"] == "not_json"
    assert len((await tapped(bare, "--n", 100)).rows) == 4
    await source.until_waiting(4)
    assert sorted(await source.drained()) == sorted(bodies)


async def test_a_look_holds_no_more_than_it_shows(source: Source, rabbitmq_url: str) -> None:
    await source.send(*(b"{}" for _ in range(5)))
    options = RabbitmqOptions.model_validate({"url": rabbitmq_url, "queue": source.queue.name})
    bridge = RabbitmqBridge("orders", options).tap(2, {})
    await bridge.open()
    try:
        held = await bridge.pull(Want())
        assert len(held) == 2
        await source.until_waiting(3)
        await bridge.release(held)
        await source.until_waiting(5)
    finally:
        await bridge.close()


@pytest.mark.parametrize("source", ["classic"], indirect=True)
async def test_an_empty_queue_is_waited_for(bare: Hammerwork, source: Source, rabbitmq_url: str) -> None:
    configured(bare, rabbitmq_url, source.queue.name)
    assert (await tapped(bare, "--wait", "100ms")).rows == []
    looking = asyncio.create_task(tapped(bare, "--n", 1, "--wait", "20s"))
    await source.send(b'{"region": "eu"}')
    assert [row[:2] for row in (await looking).rows] == [["job", "orders.eu"]]
    await source.until_waiting(1)


async def test_what_cannot_be_tapped_is_one_clear_line(bare: Hammerwork, rabbitmq_url: str) -> None:
    configured(bare)
    http = await bare("bridge", "tap", "mail")
    assert_one_clear_line(http, "none wait anywhere", hint="dry-run mail FILE")
    away = await tapped(bare)
    assert_one_clear_line(away, "", hint="does the broker run there")
    assert "hush-hush" not in away.err
    missing = await tapped(configured(bare, rabbitmq_url, "no.such.queue"))
    assert_one_clear_line(missing, "no.such.queue", hint="create it")
