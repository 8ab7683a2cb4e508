"""How a decoded message becomes a job: settings, expressions, the application's function."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hammerwork.core.errors import BadMessage, Misconfigured, Unavailable
from hammerwork.core.identity import slot_for, slot_of
from hammerwork.core.ingest.fields import carried_trace, read_run_at
from hammerwork.core.ingest.mapping import CallableMapping, Expressions, FieldMapping, Mapper, load_transform
from hammerwork.core.job import Job, Json, Priority
from hammerwork.core.message import Message

BRIDGE = "orders-in"
TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


async def mapped(mapper: Mapper, body: Json = None, **properties: Any) -> Job:
    job = await mapper.map(Message(body=b"", **properties), body, BRIDGE)
    assert job is not None
    return job


async def refusal(mapper: Mapper, body: Json = None, **properties: Any) -> BadMessage:
    with pytest.raises(BadMessage) as caught:
        await mapper.map(Message(body=b"", **properties), body, BRIDGE)
    return caught.value


def given_by(**expressions: str) -> FieldMapping:
    queue = None if "queue" in expressions else "orders"
    return FieldMapping(queue, expressions=Expressions(**expressions))


# --- without expressions --------------------------------------------------------------------------


async def test_a_message_becomes_a_job_of_the_fixed_queue() -> None:
    body = {"a": 1}
    job = await mapped(
        FieldMapping("orders", max_attempts=9, timeout=timedelta(seconds=3)),
        body,
        id="m-1",
        correlation_id="c-1",
        priority=9,
        headers={"tenant": "acme", "traceparent": TRACE, "tracestate": "vendor=1"},
        coordinates={"queue": "in", "delivery": 7},
    )
    assert (job.queue, job.priority, job.max_attempts, job.timeout) == (
        "orders",
        Priority.NORMAL,
        9,
        timedelta(seconds=3),
    )
    assert job.payload is body
    assert job.correlation_id == "c-1"
    assert job.headers["tenant"] == "acme"
    assert (job.traceparent, job.tracestate) == (TRACE, "vendor=1")
    assert job.origin == {
        "bridge": BRIDGE,
        "message_id": "m-1",
        "coordinates": {"queue": "in", "delivery": 7},
    }


async def test_the_slot_is_the_keys_or_the_messages_and_the_same_on_redelivery() -> None:
    mapper = FieldMapping("orders")
    by_key = [await mapped(mapper, key="customer-7", id=str(n)) for n in range(3)]
    assert {slot_of(job.id) for job in by_key} == {slot_for("customer-7")}
    by_id = [await mapped(mapper, id="m-1") for _ in range(3)]
    assert {slot_of(job.id) for job in by_id} == {slot_for(BRIDGE, "m-1")}
    assert len({job.id for job in by_id}) == 3
    assert len({slot_of((await mapped(mapper)).id) for _ in range(50)}) > 10


@pytest.mark.parametrize(
    ("broker", "priority"),
    [
        (None, Priority.NORMAL),
        (0, Priority.BACKGROUND),
        (1, Priority.BACKGROUND),
        (2, Priority.LOW),
        (5, Priority.NORMAL),
        (7, Priority.HIGH),
        (8, Priority.CRITICAL),
        (9, Priority.CRITICAL),
        (255, Priority.CRITICAL),
        (-3, Priority.BACKGROUND),
    ],
)
async def test_the_brokers_priority_counts_when_asked_for(broker: int | None, priority: Priority) -> None:
    assert (await mapped(FieldMapping("orders"), priority=broker)).priority == Priority.NORMAL
    job = await mapped(FieldMapping("orders", priority_from_broker=True), priority=broker)
    assert job.priority == priority


@pytest.mark.parametrize(
    "traceparent",
    [
        "",
        "garbage",
        TRACE.upper(),
        TRACE + "-extra",
        "ff" + TRACE[2:],
        "00-" + "0" * 32 + TRACE[35:],
        TRACE[:36] + "0" * 16 + "-01",
        "00-" + "x" * 5000,
        17,
        None,
        {"a": 1},
    ],
)
async def test_a_malformed_trace_context_is_ignored(traceparent: Json) -> None:
    job = await mapped(FieldMapping("orders"), headers={"traceparent": traceparent, "tracestate": "a=1"})
    assert (job.traceparent, job.tracestate) == (None, None)


def test_a_trace_of_a_later_version_and_a_bad_state_are_read_as_the_standard_says() -> None:
    later = "01" + TRACE[2:] + "-more"
    assert carried_trace({"traceparent": later}) == (later, None)
    for state in ("=", "A=1", "a=1,,b", "a=\x00", "a=" + "1" * 600, 5):
        assert carried_trace({"traceparent": TRACE, "tracestate": state}) == (TRACE, None)
    state = "rojo=00f067aa0ba902b7, t@v=x,, congo=t61rcWkgMzE"
    assert carried_trace({"traceparent": TRACE, "tracestate": state}) == (TRACE, state)


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"headers": {"a": "x\0"}}, "nul_character"),
        ({"headers": {"a\0": 1}}, "nul_character"),
        ({"headers": {"a": ["\ud800"]}}, "lone_surrogate"),
        ({"headers": {"a": float("nan")}}, "not_finite"),
        ({"headers": {"a": b"raw"}}, "not_json"),
        ({"headers": {str(n): n for n in range(10_000)}}, "bad_headers"),
        ({"coordinates": {"routing_key": "\0"}}, "nul_character"),
        ({"id": "m\0"}, "nul_character"),
        ({"correlation_id": "c\0"}, "nul_character"),
        ({"correlation_id": "c" * 600}, "bad_correlation_id"),
    ],
)
async def test_properties_that_postgres_cannot_store_are_refused(
    properties: dict[str, Any], reason: str
) -> None:
    assert (await refusal(FieldMapping("orders"), **properties)).reason == reason


# --- expressions ----------------------------------------------------------------------------------


async def test_expressions_choose_the_fields() -> None:
    at = datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)
    mapper = given_by(
        queue="'orders.' + body.region.lowerAscii()",
        priority="body.vip ? 'high' : 'low'",
        run_at="body.not_before",
        correlation_id="body.order_id",
        payload="{'order': body.order_id, 'skus': body.lines.map(l, l.sku), 'by': [bridge, headers.tenant]}",
        max_attempts="body.vip ? 20 : 3",
        timeout="duration('90s')",
    )
    body = {
        "region": "EU",
        "vip": True,
        "order_id": 17,
        "not_before": "2027-01-02T04:04:05+01:00",
        "lines": [{"sku": "a"}, {"sku": "b"}],
    }
    job = await mapped(mapper, body, headers={"tenant": "acme"})
    assert job.queue == "orders.eu"
    assert job.priority is Priority.HIGH
    assert job.run_at == at
    assert job.correlation_id == "17"
    assert job.payload == {"order": 17, "skus": ["a", "b"], "by": [BRIDGE, "acme"]}
    assert job.max_attempts == 20
    assert job.timeout == timedelta(seconds=90)


async def test_expressions_see_the_whole_message() -> None:
    at = datetime(2026, 5, 6, tzinfo=UTC)
    mapper = given_by(payload="[key, id, priority, coordinates.offset, content_type, timestamp == null]")
    job = await mapped(
        mapper, key="k", id="i", priority=4, coordinates={"offset": 12}, content_type="a/b", timestamp=at
    )
    assert job.payload == ["k", "i", 4, 12, "a/b", False]
    job = await mapped(given_by(run_at="timestamp + duration('1h')"), timestamp=at)
    assert job.run_at == at + timedelta(hours=1)


async def test_a_null_leaves_the_fields_default() -> None:
    mapper = given_by(priority="null", run_at="null", max_attempts="null", correlation_id="null")
    job = await mapped(mapper, correlation_id="c")
    assert (job.priority, job.run_at, job.max_attempts, job.correlation_id) == (Priority.NORMAL, None, 5, "c")
    assert (await mapped(given_by(payload="null"), {"a": 1})).payload is None


async def test_a_filter_keeps_what_is_true_before_anything_else_is_looked_at() -> None:
    mapper = given_by(filter="body.kind == 'order'", queue="body.no_such_key")
    assert await mapper.map(Message(body=b""), {"kind": "noise"}, BRIDGE) is None
    assert (await refusal(mapper, {"kind": "order"})).reason == "mapping_failed"


BAD_VALUES: dict[tuple[str, str], list[Json]] = {
    ("queue", "bad_queue_name"): [
        *(None, 7, "", "Orders", "a" * 64, "../etc", "'; DROP TABLE jobs--", "a\0", "%s", "$1", "\U0001f600"),
        *("\u043erders", "a b", "orders\n", ["orders"]),
    ],
    ("queue", "queue_not_allowed"): ["sink.crm"],
    ("priority", "bad_priority"): [5, -1, True, 2.0, "urgent", "HIGH", "", 10**30, [], {}],
    ("run_at", "bad_run_at"): [
        *("2027-01-02T03:04:05", "2027-01-02", "20270102T030405Z", "tomorrow", "", 1700000000, 1.5, True, []),
        *("0000-01-01T00:00:00Z", "10000-01-01T00:00:00Z", "2027-13-01T00:00:00Z", "2027-02-30T00:00:00Z"),
        *("2027-01-02T03:04:60Z", "2027-01-02T03:04:05+25:00", "2027-01-02T03:04:05 Europe/Paris"),
        *("2127-01-01T00:00:00Z", "1926-01-01T00:00:00Z", "\uff12027-01-02T03:04:05Z", "infinity"),
    ],
    ("delay", "bad_delay"): [-1, -0.5, "5s", True, 10**30, 1e300, [], 4e8],
    ("timeout", "bad_timeout"): [0, -1, "5s", False, 10**30],
    ("max_attempts", "bad_max_attempts"): [0, -1, 32_768, 1.5, "3", True, 10**30],
    ("correlation_id", "bad_correlation_id"): ["x" * 513, True, 1.5, [], {}],
    ("filter", "mapping_failed"): ["yes", 1, None],
}


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [(field, value, reason) for (field, reason), values in BAD_VALUES.items() for value in values],
)
async def test_a_value_that_does_not_fit_is_refused(field: str, value: Json, reason: str) -> None:
    error = await refusal(given_by(**{field: "body.v"}), {"v": value})
    assert error.reason == reason
    error.detail.encode()
    assert "\0" not in error.detail


@given(
    st.sampled_from(["queue", "priority", "run_at", "delay", "timeout", "max_attempts", "correlation_id"]),
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers()),
)
async def test_no_value_of_a_message_raises_anything_but_bad_message(field: str, value: Json) -> None:
    try:
        await given_by(**{field: "body.v"}).map(Message(body=b""), {"v": value}, BRIDGE)
    except BadMessage as error:
        error.detail.encode()


@pytest.mark.parametrize(
    ("value", "at"),
    [
        ("2027-01-02T03:04:05Z", datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2027-01-02t03:04:05z", datetime(2027, 1, 2, 3, 4, 5, tzinfo=UTC)),
        ("2027-01-02 03:04:05.123456789Z", datetime(2027, 1, 2, 3, 4, 5, 123456, tzinfo=UTC)),
        ("2027-03-28T02:30:00+01:00", datetime(2027, 3, 28, 1, 30, tzinfo=UTC)),
        ("2020-01-01T00:00:00Z", datetime(2020, 1, 1, tzinfo=UTC)),
    ],
)
async def test_a_run_at_is_rfc_3339(value: str, at: datetime) -> None:
    assert (await mapped(given_by(run_at="body"), value)).run_at == at


def test_a_time_without_a_zone_is_no_run_at() -> None:
    with pytest.raises(BadMessage, match="bad_run_at"):
        read_run_at(datetime(2027, 1, 2))


async def test_delays_are_durations_or_seconds() -> None:
    assert (await mapped(given_by(delay="duration('90s')"))).delay == timedelta(seconds=90)
    assert (await mapped(given_by(delay="body"), 1.5)).delay == timedelta(seconds=1.5)
    assert (await mapped(given_by(delay="body"), 0)).delay == timedelta(0)


@pytest.mark.parametrize(
    ("expression", "body", "part"),
    [
        ("body.kind", {}, "there is no key 'kind'"),
        ("body.a + 1", {"a": "x"}, "string + int"),
        ("body.a", "text", "body.a"),
        ("body[3]", [1], "index"),
        ("int(body)", "seven", "int"),
        ("timestamp('9999-12-31T23:59:59Z') + duration(body)", "9000000h", "OverflowError"),
    ],
)
async def test_an_expression_that_fails_says_which_and_why(expression: str, body: Json, part: str) -> None:
    error = await refusal(given_by(payload=expression), body)
    assert error.reason == "mapping_failed"
    assert error.detail.startswith(f"payload = `{expression}`")
    assert part in error.detail


@pytest.mark.parametrize(
    "expression", ["b'abc'", "timestamp('2026-01-01T00:00:00Z')", "1.0/0.0", "{1: 2}", "duration('1s')"]
)
async def test_a_payload_that_is_not_json_is_refused(expression: str) -> None:
    assert (await refusal(given_by(payload=expression))).reason == "mapping_failed"


async def test_a_payload_expression_never_rounds_an_integer() -> None:
    error = await refusal(given_by(payload="{'n': body.n}"), {"n": 2**64})
    assert error.reason == "mapping_failed"
    assert "64 bits" in error.detail
    job = await mapped(given_by(payload="[body.a, body.b]"), {"a": 2**64 - 1, "b": -(2**63)})
    assert job.payload == [2**64 - 1, -(2**63)]
    body = {"n": 2**64}
    assert (await mapped(given_by(queue="'a'"), body)).payload is body


@pytest.mark.parametrize(
    ("expressions", "message", "hint"),
    [
        ({"priority": "body.a +"}, "priority, `body.a +`, does not parse at line 1, column 9", "CEL"),
        ({"queue": "orders"}, "unknown variable `orders` at column 1", "known are body"),
        ({"queue": "'boddy' + boddy.x"}, "unknown variable `boddy` at column 11", "did you mean `body`?"),
        (
            {"queue": "body.x.lowerAsci()"},
            "unknown function `lowerAsci` at column 8",
            "did you mean `lowerAscii`",
        ),
        ({"filter": "now() > timestamp"}, "unknown function `now` at column 1", ""),
        ({"queue": ""}, "does not parse", "CEL"),
        ({"run_at": "body.a", "delay": "body.b"}, "run_at or delay", ""),
    ],
)
def test_an_expression_is_checked_at_start_up(expressions: dict[str, str], message: str, hint: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        given_by(**expressions)
    assert message in str(caught.value)
    assert hint in caught.value.hint


@pytest.mark.parametrize(
    "expression",
    [
        "body.items.exists(i, i.n > 1) ? 'a' : 'b'",
        "body.items.map(item, item.n).size() > 0 ? 'a' : 'b'",
        "math.greatest([1, 2]) == 2 ? 'a' : 'b'",
        "type(body.items) == list ? 'a' : 'b'",
        "'x.map(nope, 1)' == body.s ? 'a' : 'b'",
        "has(body.none) ? 'b' : 'a'",
        "string(timestamp('2026-01-01T00:00:00Z').getFullYear()).matches('^20') ? 'a' : 'b'",
    ],
)
async def test_known_names_pass_the_check(expression: str) -> None:
    job = await mapped(given_by(queue=expression), {"items": [{"n": 2}], "s": "x.map(nope, 1)"})
    assert job.queue == "a"


@pytest.mark.parametrize(
    "build",
    [
        lambda: FieldMapping(),
        lambda: FieldMapping("a", expressions=Expressions(queue="'b'")),
        lambda: FieldMapping("Not A Queue"),
        lambda: FieldMapping("sink.crm"),
        lambda: FieldMapping("billing", allowed_queues=["orders.*"]),
        lambda: FieldMapping("a", max_attempts=0),
        lambda: FieldMapping("a", timeout=timedelta(0)),
    ],
)
def test_settings_that_cannot_work_are_misconfigured(build: Callable[[], object]) -> None:
    with pytest.raises(Misconfigured):
        build()


async def test_only_allowed_queues_can_be_chosen() -> None:
    mapper = FieldMapping(expressions=Expressions(queue="body"), allowed_queues=["orders.*", "mail"])
    assert (await mapped(mapper, "orders.eu")).queue == "orders.eu"
    assert (await mapped(mapper, "mail")).queue == "mail"
    for queue in ("mailer", "billing", "orders"):
        error = await refusal(mapper, queue)
        assert (error.reason, error.detail) == ("queue_not_allowed", queue)


def test_expressions_are_paid_for_by_those_who_use_them() -> None:
    code = (
        "import sys; from hammerwork.core.ingest.mapping import FieldMapping; FieldMapping('a');"
        " print('cel' in sys.modules)"
    )
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "False"


# --- the application's function -------------------------------------------------------------------

FIELDS = FieldMapping("orders", allowed_queues=["orders", "orders.*"])


async def test_a_dict_is_mapped_as_though_it_were_the_body() -> None:
    fields = FieldMapping(expressions=Expressions(queue="'orders.' + body.region"))
    mapper = CallableMapping(lambda message, body: {"region": body["r"], "key": message.key}, fields)
    job = await mapped(mapper, {"r": "eu"}, key="k", correlation_id="c")
    assert (job.queue, job.payload, job.correlation_id) == ("orders.eu", {"region": "eu", "key": "k"}, "c")


async def test_none_filters() -> None:
    mapper = CallableMapping(lambda message, body: None, FIELDS)
    assert await mapper.map(Message(body=b""), {}, BRIDGE) is None


async def test_a_job_keeps_its_fields_and_gets_the_messages_slot_and_origin() -> None:
    run_at = datetime.now(timezone(timedelta(hours=2))) + timedelta(days=1)

    async def transform(message: Message, body: Json) -> Job:
        await asyncio.sleep(0)
        return Job("orders.vip", {"x": body}, priority=Priority.HIGH, run_at=run_at, headers={"own": 1})

    job = await mapped(CallableMapping(transform, FIELDS), 7, id="m-1", headers={"traceparent": TRACE})
    assert (job.queue, job.payload, job.priority, job.run_at) == (
        "orders.vip",
        {"x": 7},
        Priority.HIGH,
        run_at,
    )
    assert job.headers == {"own": 1}
    assert slot_of(job.id) == slot_for(BRIDGE, "m-1")
    assert job.origin is not None
    assert job.origin["message_id"] == "m-1"
    assert job.traceparent == TRACE


def _raise(error: BaseException) -> Any:
    raise error


def _recurse(message: Message, body: Json) -> Any:
    return _recurse(message, body)


def _itself() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["self"] = value
    return value


@pytest.mark.parametrize(
    ("transform", "reason", "part"),
    [
        (lambda m, b: _raise(KeyError("sku")), "transform_failed", "KeyError: 'sku'"),
        (lambda m, b: _raise(ValueError("a\0b\ud800")), "transform_failed", "ValueError: a\\0b\\ud800"),
        (lambda m, b: _raise(ValueError("x" * 100_000)), "transform_failed", "xxx"),
        (lambda m, b: _raise(StopIteration()), "transform_failed", "StopIteration"),
        (lambda m, b: _raise(TimeoutError("upstream")), "transform_failed", "TimeoutError: upstream"),
        (_recurse, "transform_failed", "RecursionError"),
        (lambda m, b: _raise(BadMessage("unknown_version", "9")), "unknown_version", "9"),
        (lambda m, b: Job("No Queue"), "transform_failed", "Misconfigured"),
        (lambda m, b: 7, "transform_returned", "int"),
        (lambda m, b: [Job("orders")], "transform_returned", "list"),
        (lambda m, b: "orders", "transform_returned", "str"),
        (lambda m, b: {"at": datetime.now(UTC)}, "transform_returned", "datetime"),
        (lambda m, b: {"x": "\0"}, "transform_returned", "nul_character"),
        (lambda m, b: {1: 2}, "transform_returned", "key"),
        (lambda m, b: _itself(), "transform_returned", "too_deep"),
        (lambda m, b: Job("orders", object()), "transform_returned", "object"),
        (lambda m, b: Job("orders", headers={"a": b"x"}), "transform_returned", "bytes"),
        (lambda m, b: Job("orders", headers=cast(Any, ["a"])), "transform_returned", "list"),
        (lambda m, b: Job("orders", traceparent="\0"), "transform_returned", "trace"),
        (lambda m, b: Job("orders", priority=cast(Any, 9)), "bad_priority", "9"),
        (lambda m, b: Job("orders", correlation_id="\0"), "nul_character", "correlation"),
        (lambda m, b: Job("orders", run_at=datetime(2200, 1, 1, tzinfo=UTC)), "bad_run_at", "ten years"),
        (lambda m, b: Job("billing"), "queue_not_allowed", "billing"),
        (lambda m, b: Job("sink.crm"), "queue_not_allowed", "sink.crm"),
    ],
)
async def test_whatever_a_function_does_wrong_has_a_reason(transform: Any, reason: str, part: str) -> None:
    error = await refusal(CallableMapping(transform, FIELDS), {})
    assert error.reason == reason
    assert part in error.detail
    assert len(error.detail) <= 1000
    error.detail.encode()


async def test_a_function_that_hangs_is_ended() -> None:
    cancelled = asyncio.Event()

    async def hang(message: Message, body: Json) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    error = await refusal(CallableMapping(hang, FIELDS, timeout=timedelta(milliseconds=20)), {})
    assert error.reason == "transform_timeout"
    assert cancelled.is_set()


@pytest.mark.parametrize("error", [Unavailable("the catalogue is away"), MemoryError()])
async def test_what_is_wrong_with_the_world_is_no_dead_letter(error: Exception) -> None:
    with pytest.raises(type(error)):
        await CallableMapping(lambda m, b: _raise(error), FIELDS).map(Message(body=b""), {}, BRIDGE)


async def test_cancelling_the_intake_passes_through_a_function() -> None:
    entered = asyncio.Event()

    async def hang(message: Message, body: Json) -> None:
        entered.set()
        await asyncio.Event().wait()

    mapping = CallableMapping(hang, FIELDS).map(Message(body=b""), {}, BRIDGE)
    task = asyncio.create_task(mapping, name="mapping under test")
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.fixture
def application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module of an application, importable as shop_bridges, and one that does not import."""
    (tmp_path / "shop_bridges.py").write_text(
        textwrap.dedent(
            """
            VERSION = 1
            def to_job(message, body): return {"seen": body}
            def no_body(message): ...
            class Mapping:
                @staticmethod
                def to_job(message, body): return {"seen": body}
            """
        )
    )
    (tmp_path / "shop_broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "shop_bridges", raising=False)


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize("path", ["shop_bridges:to_job", "shop_bridges:Mapping.to_job"])
async def test_a_function_is_loaded_by_its_path(path: str) -> None:
    assert (await mapped(CallableMapping(path, FIELDS), 1)).payload == {"seen": 1}


@pytest.mark.usefixtures("application")
@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("shop_bridges", "does not name a function"),
        ("shop_bridges.to_job", "does not name a function"),
        ("shop_missing:to_job", "not found"),
        ("shop_bridges:nothing", "has no 'nothing'"),
        ("shop_bridges:VERSION", "is a int, not a function"),
        ("shop_bridges:no_body", "cannot be called with a message and its body"),
        ("shop_broken:to_job", "ZeroDivisionError"),
    ],
)
def test_a_path_that_does_not_load_says_what_to_do(path: str, message: str) -> None:
    with pytest.raises(Misconfigured) as caught:
        load_transform(path)
    assert message in str(caught.value)
    assert caught.value.hint
