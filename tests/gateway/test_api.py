"""The REST API over HTTP on a real Postgres: what it does, what it refuses, and what its document says."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from openapi_spec_validator import validate
from pydantic import SecretStr

from hammerwork.core.errors import Misconfigured
from hammerwork.core.event import EventType
from hammerwork.core.execute.handlers import Handlers
from hammerwork.core.execute.worker import Worker
from hammerwork.core.identity import new_id
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.job import Job
from hammerwork.core.message import Message
from hammerwork.core.operate import Replayer
from hammerwork.core.postgres.database import Database
from hammerwork.core.postgres.store import row_of
from hammerwork.core.publish.relay import Relay, Subscription
from hammerwork.core.queue import Queue
from hammerwork.gateway.api.operation import PREFIX
from hammerwork.gateway.api.problems import problem_of
from hammerwork.gateway.api.server import ApiContext, api_routes, middlewares
from hammerwork.gateway.api.table import OPERATIONS

TOKEN, READ_TOKEN = "a-token-of-some-length", "a-token-that-only-looks"
SINK = Subscription(name="webhook", types=frozenset({EventType.COMPLETED}))


@dataclass(frozen=True, slots=True)
class Answer:
    """A reply as tests look at it."""

    status: int
    headers: Mapping[str, str]
    body: Any

    @property
    def problem(self) -> Any:
        assert self.headers["Content-Type"].startswith("application/problem+json")
        assert self.body["status"] == self.status
        assert {"type", "title", "detail", "code"} <= self.body.keys()
        return self.body


class Client:
    """Speaks to the API of one server."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self.url = url

    async def get(self, path: str, **options: Any) -> Answer:
        return await self._ask("GET", path, **options)

    async def post(self, path: str, body: object = None, **options: Any) -> Answer:
        if body is not None:
            options["json"] = body
        return await self._ask("POST", path, **options)

    async def _ask(self, method: str, path: str, **options: Any) -> Answer:
        async with self._session.request(method, self.url + PREFIX + path, **options) as response:
            text = await response.text()
            return Answer(response.status, response.headers, json.loads(text) if text else None)


@asynccontextmanager
async def served(context: ApiContext, token: str | None = TOKEN) -> AsyncIterator[Client]:
    app = web.Application(middlewares=middlewares(context))
    app.add_routes(api_routes(context))
    runner = web.AppRunner(app, auto_decompress=False, access_log=None, shutdown_timeout=1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        async with aiohttp.ClientSession(headers=headers) as session:
            yield Client(session, f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


class PlainReplayer:
    """What a bridge without a mapping would make of a message."""

    async def row_for(self, message: Message) -> tuple[object, ...] | None:
        return row_of(Job("replayed", Decoder().decode(message).value))


@pytest.fixture
def context(queue: Queue, database: Database) -> ApiContext:
    replayers: dict[str, Replayer] = {"orders": PlainReplayer()}
    return ApiContext(
        queue=queue,
        database=database,
        replayers=replayers,
        subscriptions={"webhook": SINK},
        token=SecretStr(TOKEN),
        read_token=SecretStr(READ_TOKEN),
    )


@pytest.fixture
async def api(context: ApiContext) -> AsyncIterator[Client]:
    async with served(context) as client:
        yield client


@pytest.fixture
async def lost() -> AsyncIterator[ApiContext]:
    """A context without a database, for requests that must be refused before one is asked."""
    queue = Queue("postgresql://nobody@127.0.0.1:1/none", patience=timedelta(0))
    yield ApiContext(
        queue=queue, database=queue.database, token=SecretStr(TOKEN), read_token=SecretStr(READ_TOKEN)
    )
    await queue.close()


@pytest.fixture
async def nowhere(lost: ApiContext) -> AsyncIterator[Client]:
    async with served(lost) as client:
        yield client


@asynccontextmanager
async def working(queue: Queue, handlers: Handlers) -> AsyncIterator[None]:
    worker = Worker(queue, handlers, poll=timedelta(milliseconds=50), drain=timedelta(0))
    running = asyncio.create_task(worker.run(), name="worker")
    try:
        yield
    finally:
        worker.stop()
        await running


async def bury(database: Database, body: bytes, size: int | None = None) -> UUID:
    """A dead letter of the bridge `orders`."""
    letter_id = new_id()
    async with database.transaction() as connection:
        await connection.execute(
            "insert into hammerwork.dead_letters (id, bridge, reason, body, body_size, body_sha256)"
            " values ($1, 'orders', 'not_json', $2, $3, sha256($2))",
            letter_id,
            body,
            len(body) if size is None else size,
        )
    return letter_id


# --- jobs ----------------------------------------------------------------------------------------


async def test_enqueued_job_can_be_read_where_the_reply_says(api: Client) -> None:
    payload = {"order": 2**70, "text": "ü\u0007", "nested": [1.5, None]}
    made = await api.post("/jobs", {"queue": "orders", "payload": payload, "priority": "high", "delay": "5m"})
    assert (made.status, made.body["outcome"]) == (201, "stored")
    job = await api.get(made.headers["Location"].removeprefix(PREFIX))
    assert job.status == 200
    assert job.body["payload"] == payload
    assert (job.body["state"], job.body["priority"]) == ("scheduled", "high")
    assert job.headers["Cache-Control"] == "no-store"


async def test_client_made_id_is_enqueued_once(api: Client) -> None:
    body = {"queue": "orders", "id": str(new_id())}
    first, second = await api.post("/jobs", body), await api.post("/jobs", body)
    assert [a.body for a in (first, second)] == [
        {"id": body["id"], "outcome": "stored"},
        {"id": body["id"], "outcome": "duplicate"},
    ]


async def test_batch_answers_one_by_one_in_order(api: Client) -> None:
    known = str(new_id())
    await api.post("/jobs", {"queue": "orders", "id": known})
    jobs = [{"queue": "a"}, {"queue": "orders", "id": known}, {"queue": "b"}]
    made = await api.post("/jobs/batch", {"jobs": jobs})
    assert made.status == 201
    assert [item["outcome"] for item in made.body["items"]] == ["stored", "duplicate", "stored"]
    assert (await api.get(f"/jobs/{made.body['items'][2]['id']}")).body["queue"] == "b"


async def test_idempotency_key_makes_jobs_once_however_often_they_are_sent(api: Client, queue: Queue) -> None:
    headers = {"Idempotency-Key": "order-42"}
    body = {"queue": "orders", "payload": {"order": 42}}
    answers = await asyncio.gather(*(api.post("/jobs", body, headers=headers) for _ in range(10)))
    assert {a.status for a in answers} == {201}
    assert len({json.dumps(a.body) for a in answers}) == 1
    assert len(await queue.jobs(queue="orders")) == 1


async def test_idempotency_key_with_another_body_is_refused_and_stores_nothing(
    api: Client, queue: Queue
) -> None:
    headers = {"Idempotency-Key": "k"}
    await api.post("/jobs/batch", {"jobs": [{"queue": "a"}, {"queue": "a"}]}, headers=headers)
    for other in ([{"queue": "b"}], [{"queue": "a"}, {"queue": "a"}, {"queue": "a"}], [{"queue": "a"}]):
        refused = await api.post("/jobs/batch", {"jobs": other}, headers=headers)
        assert (refused.status, refused.problem["code"]) == (422, "idempotency_key_reused")
    assert len(await queue.jobs()) == 2


async def test_idempotent_duplicate_answers_duplicate_again(api: Client) -> None:
    body = {"queue": "orders", "id": str(new_id())}
    await api.post("/jobs", body)
    headers = {"Idempotency-Key": "again"}
    first, second = [await api.post("/jobs", body, headers=headers) for _ in range(2)]
    assert first.body == second.body == {"id": body["id"], "outcome": "duplicate"}


async def test_list_filters_and_pages_without_skips(api: Client, queue: Queue) -> None:
    jobs = [Job("orders", n, correlation_id="c" if n % 2 else None) for n in range(5)]
    await queue.enqueue_many([*jobs, Job("other")])
    seen, cursor = [], ""
    while True:
        page = (await api.get(f"/jobs?queue=orders&limit=2{cursor}")).body
        seen += [item["payload"] for item in page["items"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    assert seen == [j.payload for j in sorted(jobs, key=lambda j: j.id, reverse=True)]
    correlated = await api.get("/jobs?correlation_id=c&state=available")
    assert len(correlated.body["items"]) == 2


async def test_cancel_and_retry_tell_the_state_when_refused(api: Client, queue: Queue) -> None:
    job_id = await queue.enqueue(Job("orders"))
    refused = await api.post(f"/jobs/{job_id}/retry")
    assert (refused.status, refused.problem["state"]) == (409, "available")
    cancelled = await api.post(f"/jobs/{job_id}/cancel", {"reason": "not wanted"})
    assert (cancelled.body["state"], cancelled.body["error"]) == ("cancelled", "not wanted")
    refused = await api.post(f"/jobs/{job_id}/cancel")
    assert (refused.status, refused.problem["state"]) == (409, "cancelled")
    assert (await api.post(f"/jobs/{job_id}/retry")).body["state"] == "available"


async def test_result_waits_for_the_end_and_tells_it(api: Client, queue: Queue) -> None:
    may_end = asyncio.Event()

    async def sum_up(job: Any) -> int:
        await may_end.wait()
        return int(sum(job.payload))

    async def fail(_job: Any) -> None:
        raise LookupError("no such order")

    handlers = Handlers({"sums": sum_up, "doomed": fail})
    job_id = await queue.enqueue(Job("sums", [1, 2, 3]))
    doomed = await queue.enqueue(Job("doomed", max_attempts=1))
    async with working(queue, handlers):
        early = await api.get(f"/jobs/{job_id}/result?wait=50ms")
        assert early.body["state"] in ("available", "running")
        assert early.body["result"] is None
        may_end.set()
        assert (await api.get(f"/jobs/{job_id}/result?wait=10s")).body == {
            "id": str(job_id), "state": "completed", "result": 6, "error": None,
        }  # fmt: skip
        dead = await api.get(f"/jobs/{doomed}/result?wait=10s")
        assert dead.body["state"] == "dead"
        assert "no such order" in dead.body["error"]
        attempts = await api.get(f"/jobs/{doomed}/attempts")
        assert [a["cause"] for a in attempts.body["items"]] == ["failed"]


async def test_result_of_a_waiting_job_comes_at_once_without_wait(api: Client, queue: Queue) -> None:
    job_id = await queue.enqueue(Job("nobody"))
    async with asyncio.timeout(5):
        assert (await api.get(f"/jobs/{job_id}/result")).body["state"] == "available"


@pytest.mark.parametrize("path", ["/jobs/{}", "/jobs/{}/result", "/jobs/{}/attempts", "/dead-letters/{}"])
async def test_what_does_not_exist_is_404(api: Client, path: str) -> None:
    missing = await api.get(path.format(new_id()))
    assert (missing.status, missing.problem["code"]) == (404, "not_found")


# --- queues, workers, dead letters, sinks --------------------------------------------------------


async def test_queue_is_paused_and_resumed(api: Client) -> None:
    assert (await api.post("/queues/orders/pause", {"reason": "deploy 41"})).body["paused"] is True
    [queue] = (await api.get("/queues")).body["items"]
    assert (queue["queue"], queue["pause_reason"]) == ("orders", "deploy 41")
    assert queue["paused_at"] is not None
    assert (await api.post("/queues/orders/resume")).body["paused"] is False


async def test_bridge_is_paused_moved_and_resumed(api: Client, database: Database) -> None:
    assert (await api.post("/bridges/log/pause", {"reason": "early"})).status == 404
    await database.fetch("register_bridge", "log", "kafka", timedelta(days=1))
    await database.fetch("take_offsets", "log", ["orders-0"])
    [bridge] = (await api.get("/bridges")).body["items"]
    assert (bridge["name"], bridge["kind"], bridge["state"]) == ("log", "kafka", "active")
    place = {"partition": "orders-0", "offset": 42}
    assert (await api.post("/bridges/log/seek", place)).status == 409
    assert (await api.post("/bridges/log/pause", {"reason": "deploy"})).body["state"] == "paused"
    assert (await api.get("/bridges")).body["items"][0]["pause_reason"] == "deploy"
    moved = await api.post("/bridges/log/seek", place)
    assert moved.body == {"name": "log", "partition": "orders-0", "next_offset": 42, "before": None}
    [kept] = (await api.get("/bridges/log/offsets")).body["items"]
    assert (kept["partition"], kept["next_offset"], kept["fence"]) == ("orders-0", 42, 2)
    assert (await api.post("/bridges/log/seek", place | {"partition": "orders-9"})).status == 404
    assert (await api.post("/bridges/log/seek", place | {"offset": -1})).status == 422
    assert (await api.post("/bridges/log/seek", place | {"offset": 2**63})).status == 422
    assert (await api.post("/bridges/log/resume")).body["state"] == "active"
    assert (await api.get("/bridges/nobody/offsets")).status == 404


async def test_workers_are_listed(api: Client, queue: Queue) -> None:
    async with working(queue, Handlers({"orders": lambda job: None})):
        async with asyncio.timeout(10):
            while not (items := (await api.get("/workers")).body["items"]):
                pass
    assert items[0]["queues"] == ["orders"]
    assert items[0]["lease"] == 30.0


async def test_dead_letter_is_shown_and_replayed_once(api: Client, database: Database, queue: Queue) -> None:
    letter_id = await bury(database, b'{"order": 7}')
    [listed] = (await api.get("/dead-letters?bridge=orders&reason=not_json")).body["items"]
    assert listed["id"] == str(letter_id)
    shown = (await api.get(f"/dead-letters/{letter_id}")).body
    assert (shown["body"], shown["body_base64"], shown["whole"]) == ('{"order": 7}', None, True)
    replayed = await api.post(f"/dead-letters/{letter_id}/replay")
    assert (await queue.get(UUID(replayed.body["job_id"]))).payload == {"order": 7}
    again = await api.post(f"/dead-letters/{letter_id}/replay")
    assert (again.status, again.problem["code"]) == (409, "state_conflict")


async def test_dead_letter_that_is_still_bad_stays_open(api: Client, database: Database) -> None:
    letter_id = await bury(database, b"\xff\x00")
    shown = (await api.get(f"/dead-letters/{letter_id}")).body
    assert (shown["body"], shown["body_base64"]) == (None, "/wA=")
    refused = await api.post(f"/dead-letters/{letter_id}/replay")
    assert (refused.status, refused.problem["code"]) == (422, "not_utf8")
    discarded = await api.post(f"/dead-letters/{letter_id}/discard")
    assert discarded.body["discarded_at"] is not None
    assert (await api.get("/dead-letters")).body["items"] == []
    assert len((await api.get("/dead-letters?closed=true")).body["items"]) == 1


async def test_sink_is_paused_resumed_and_replayed(api: Client, database: Database, queue: Queue) -> None:
    relay = Relay(database, SINK, kind="webhook")
    await database.fetch("register_sink", SINK.name, "webhook", sorted(SINK.types))
    job_id = await queue.enqueue(Job("orders"))
    async with working(queue, Handlers({"orders": lambda job: None})):
        await queue.result(job_id, timeout=timedelta(seconds=10))
    assert (await api.post("/sinks/webhook/pause", {"reason": "gone"})).body["state"] == "paused"
    [sink] = (await api.get("/sinks")).body["items"]
    assert (sink["state"], sink["reason"], sink["behind"]) == ("paused", "gone", 1)
    assert (await api.post("/sinks/webhook/resume")).body["state"] == "active"
    await relay.relay_once()
    replayed = await api.post("/sinks/webhook/replay", {"since": "2026-01-01T00:00:00Z"})
    assert replayed.body == {"name": "webhook", "deliveries": 1}
    assert len(await queue.jobs(queue="sink.webhook")) == 2
    assert (await api.get("/sinks/webhook/deliveries")).body["items"] == []
    assert (await api.get("/sinks/nobody/deliveries")).status == 404
    assert (await api.post("/sinks/nobody/pause")).status == 404


# --- strictness ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "pointer", "words"),
    [
        ({"queue": "orders", "prioritty": "high"}, "#/prioritty", "did you mean 'priority'?"),
        ({"payload": 1}, "#/queue", "is missing"),
        ({"queue": "No Good"}, "#/queue", "begin with a letter"),
        ({"queue": "sink.webhook"}, "#/queue", "must not begin with sink."),
        ({"queue": "orders", "max_attempts": "5"}, "#/max_attempts", "must be a whole number"),
        ({"queue": "orders", "delay": "soon"}, "#/delay", "must be a duration"),
        ({"queue": "orders", "delay": -1}, "#/delay", "ten years"),
        ({"queue": "orders", "run_at": "2026-11-23T18:00:00"}, "#/run_at", "time zone"),
        ({"queue": "orders", "run_at": "soon"}, "#/run_at", "must be a time such as"),
        ({"queue": 5}, "#/queue", "must be text"),
        ({"queue": "orders", "id": "42"}, "#/id", "must be an id such as"),
        ({"queue": "orders", "timeout": 0}, "#/timeout", "longer than nothing"),
        ([], "#", "must be an object"),
    ],
)
async def test_wrong_field_is_pointed_at(nowhere: Client, body: object, pointer: str, words: str) -> None:
    refused = await nowhere.post("/jobs", body)
    assert (refused.status, refused.problem["code"]) == (422, "invalid")
    [fault] = refused.problem["errors"]
    assert fault["pointer"] == pointer
    assert words in fault["message"]


async def test_every_fault_of_a_batch_is_told(nowhere: Client) -> None:
    refused = await nowhere.post("/jobs/batch", {"jobs": [{"queue": "a"}, {"queu": "b"}]})
    assert {e["pointer"]: e["message"] for e in refused.problem["errors"]} == {
        "#/jobs/1/queue": "is missing",
        "#/jobs/1/queu": "is unknown; did you mean 'queue'?",
    }


async def test_run_at_and_delay_exclude_each_other(nowhere: Client) -> None:
    soon = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    refused = await nowhere.post("/jobs", {"queue": "a", "delay": 1, "run_at": soon})
    assert refused.status == 422
    assert "not both" in refused.problem["detail"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        (b'{"queue": "a", "queue": "b"}', 422, "duplicate_key"),
        (b'{"queue": "a"} x', 422, "trailing_garbage"),
        (b'{"queue": "a", "payload": NaN}', 422, "not_finite"),
        (b'{"queue": "a", "payload": "\\u0000"}', 422, "nul_character"),
        (b'{"queue": "a", "payload": "\\ud800"}', 422, "lone_surrogate"),
        (b'{"queue": "a", "payload": ' + b"[" * 100 + b"]" * 100 + b"}", 422, "too_deep"),
        (b'{"queue": "\xff"}', 422, "not_utf8"),
        (b"", 422, "empty_body"),
        (b'{"queue": "a", "payload": "' + b"x" * 1024 * 1024 + b'"}', 413, "too_large"),
    ],
)
async def test_body_that_is_not_strict_json_is_refused_by_name(
    nowhere: Client, body: bytes, status: int, code: str
) -> None:
    refused = await nowhere.post("/jobs", data=io.BytesIO(body), headers={"Content-Type": "application/json"})
    assert (refused.status, refused.problem["code"]) == (status, code)


async def test_body_that_never_ends_is_cut_off(nowhere: Client) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(nowhere.url.rpartition(":")[2]))
    head = f"POST {PREFIX}/jobs HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
    writer.write(f"{head}Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n".encode())
    writer.writelines([b"10000\r\n", b" " * 0x10000, b"\r\n"] * 17)
    async with asyncio.timeout(5):
        assert await reader.readline() == b"HTTP/1.1 413 Request Entity Too Large\r\n"
    writer.close()


async def test_body_of_another_type_is_refused(nowhere: Client) -> None:
    refused = await nowhere.post("/jobs", data=b'{"queue": "a"}', headers={"Content-Type": "text/plain"})
    assert (refused.status, refused.problem["code"]) == (415, "unsupported_content_type")


async def test_gzip_is_unpacked_within_the_limit(api: Client) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    packed = await api.post("/jobs", data=gzip.compress(b'{"queue": "a"}'), headers=headers)
    assert packed.status == 201
    bomb = gzip.compress(b'{"queue": "a", "payload": "' + b"x" * 8_000_000 + b'"}')
    refused = await api.post("/jobs", data=bomb, headers=headers)
    assert refused.problem["code"] in ("too_large", "compression_bomb")


@pytest.mark.parametrize(
    ("query", "parameter", "words"),
    [
        ("quue=a", "quue", "did you mean 'queue'?"),
        ("limit=201", "limit", "less than or equal to 200"),
        ("state=finished", "state", "must be 'blocked'"),
        ("correlation_id=%00", "correlation_id", "must not contain NUL"),
        ("cursor=42", "cursor", "must be an id such as"),
        ("queue=a&queue=b", "queue", "twice"),
    ],
)
async def test_wrong_parameter_is_named(nowhere: Client, query: str, parameter: str, words: str) -> None:
    refused = await nowhere.get(f"/jobs?{query}")
    assert (refused.status, refused.problem["code"]) == (400, "invalid_parameter")
    [fault] = refused.problem["errors"]
    assert fault["parameter"] == parameter
    assert words in fault["message"]


async def test_unknown_paths_and_methods_are_problems_too(nowhere: Client) -> None:
    assert (await nowhere.get("/nothing")).problem["code"] == "unknown_path"
    outside = await nowhere.get("/../../nothing")
    assert (outside.status, outside.problem["code"]) == (404, "unknown_path")
    wrong = await nowhere.post("/queues", {})
    assert (wrong.status, wrong.headers["Allow"].split(",")[0]) == (405, "GET")
    assert wrong.problem["code"] == "method_not_allowed"


async def test_postgres_away_is_503_with_retry_after(nowhere: Client) -> None:
    for headers in ({}, {"Idempotency-Key": "k"}):
        refused = await nowhere.post("/jobs", {"queue": "a"}, headers=headers)
        assert (refused.status, refused.problem["code"]) == (503, "unavailable")
        assert int(refused.headers["Retry-After"]) > 0


async def test_missing_schema_is_503_not_the_callers_fault(dsn: str) -> None:
    async with Queue(dsn, patience=timedelta(0)) as queue:
        context = ApiContext(queue=queue, database=queue.database, token=SecretStr(TOKEN))
        async with served(context) as api:
            refused = await api.get("/queues")
            assert refused.status == 503
            assert "hammerwork migrate" in refused.problem["hint"]


# --- who may -------------------------------------------------------------------------------------


@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer ", f"Basic {TOKEN}", TOKEN])
async def test_without_the_token_nothing_is_answered(lost: ApiContext, authorization: str | None) -> None:
    headers = {"Authorization": authorization} if authorization is not None else {}
    async with served(lost, token=None) as api:
        for operation in OPERATIONS:
            path = operation.path.format(id=new_id(), queue="orders", bridge="log", sink="webhook")
            ask = api.get if operation.method == "GET" else api.post
            refused = await ask(path, headers=headers)
            assert (refused.status, refused.problem["code"]) == (401, "unauthorized"), operation.name
            assert refused.headers["WWW-Authenticate"].startswith("Bearer ")


async def test_read_token_looks_and_does_not_act(lost: ApiContext) -> None:
    async with served(lost, token=READ_TOKEN) as api:
        for operation in OPERATIONS:
            path = operation.path.format(id=new_id(), queue="orders", bridge="log", sink="webhook")
            answer = await (api.get(path) if operation.method == "GET" else api.post(path))
            if operation.method == "GET":
                assert answer.status in (200, 503), operation.name
            else:
                assert (answer.status, answer.problem["code"]) == (403, "forbidden"), operation.name


def test_beyond_loopback_a_token_is_needed(lost: ApiContext) -> None:
    with pytest.raises(Misconfigured, match="without a token") as refusal:
        replace(lost, token=None, read_token=None, loopback=False)
    assert "HAMMERWORK_HTTP__TOKEN" in refusal.value.hint


async def test_without_a_token_programs_of_this_machine_are_served(lost: ApiContext) -> None:
    async with served(replace(lost, token=None), token=None) as api:
        port = api.url.rpartition(":")[2]
        for host in (f"localhost:{port}", f"127.0.0.1:{port}", f"[::1]:{port}"):
            own = {"Host": host, "Sec-Fetch-Site": "same-origin", "Origin": f"http://{host}"}
            assert (await api.get("/version", headers=own)).status == 200


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Host": "evil.example"}, "unknown_host"),
        ({"Host": "localhost.evil.example:8080"}, "unknown_host"),
        ({"Sec-Fetch-Site": "cross-site"}, "cross_site"),
        ({"Sec-Fetch-Site": "same-site"}, "cross_site"),
        ({"Origin": "https://evil.example"}, "cross_site"),
        ({"Origin": "null"}, "cross_site"),
        ({"X-Forwarded-For": "203.0.113.9"}, "forwarded"),
    ],
)
async def test_without_a_token_web_pages_and_strangers_are_refused(
    lost: ApiContext, headers: Mapping[str, str], code: str
) -> None:
    async with served(replace(lost, token=None), token=None) as api:
        refused = await api.post("/jobs", {"queue": "a"}, headers=headers)
        assert (refused.status, refused.problem["code"]) == (403, code)


# --- the document --------------------------------------------------------------------------------


async def test_document_is_valid_and_holds_every_route(lost: ApiContext) -> None:
    async with served(lost, token=None) as anybody:
        document = (await anybody.get("/openapi.json")).body
    validate(document)
    assert document["openapi"].startswith("3.1")
    described = {
        (method.upper(), document["servers"][0]["url"] + path)
        for path, methods in document["paths"].items()
        for method in methods
    }
    routed = {(route.method, route.path) for route in api_routes(lost)}
    assert routed - {("GET", f"{PREFIX}/openapi.json")} == described


async def test_every_operation_states_its_permission_and_its_refusals(nowhere: Client) -> None:
    document = (await nowhere.get("/openapi.json")).body
    names = set()
    for methods in document["paths"].values():
        for described in methods.values():
            names.add(described["operationId"])
            resource, _, act = described["x-permission"].partition(":")
            assert resource
            assert act
            assert {"401", "403", "503"} <= described["responses"].keys()
    assert len(names) == len(OPERATIONS)


async def test_replies_are_what_the_document_says(api: Client, queue: Queue, database: Database) -> None:
    from openapi_schema_validator import OAS31Validator

    document = (await api.get("/openapi.json")).body
    await queue.enqueue_many([Job("orders", {"a": 1}), Job("later", delay=timedelta(hours=1))])
    await queue.pause("later", "why not")
    await bury(database, b"{")
    for path in ("/jobs", "/queues", "/dead-letters", "/version"):
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        validator = OAS31Validator({**schema, "components": document["components"]})
        answer = (await api.get(path)).body
        assert answer.get("items", True), path
        validator.validate(answer)


def test_a_value_that_cannot_be_stored_is_the_callers_to_mend_and_not_to_send_again() -> None:
    def problem(cause: Exception) -> int:
        error = Misconfigured("Postgres cannot take it")
        error.__cause__ = cause
        return problem_of(error).status

    assert problem(asyncpg.DataError("out of range")) == 422
    assert problem(asyncpg.UndefinedTableError("no jobs")) == 503
