"""Rows that are made without a job: the ones that the job would give, and refused for the same reasons."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from hammerwork.core.errors import BadMessage
from hammerwork.core.identity import SLOTS, slot_of
from hammerwork.core.ingest.decode import Decoder
from hammerwork.core.ingest.mapping import Expressions, FieldMapping
from hammerwork.core.message import Message
from hammerwork.core.postgres import store

TRACE = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "a=1", "tenant": "ü"}
MAPPINGS = [
    FieldMapping("orders"),
    FieldMapping("orders", priority_from_broker=True, max_attempts=7, timeout=timedelta(seconds=3)),
]


@pytest.mark.parametrize("mapping", MAPPINGS)
@pytest.mark.parametrize(
    "properties",
    [
        {},
        {"id": "é-1", "coordinates": {"broker": "kafka", "topic": "a", "partition": 3, "offset": 2**40}},
        {
            "key": "k",
            "id": "1",
            "coordinates": {"nested": {"list": [1, 1.5, None, True, "ü"]}, "long": 2**300},
        },
        {"correlation_id": "c", "priority": 9, "headers": TRACE},
        {"priority": 3, "headers": {"traceparent": "no trace"}},
        {"headers": {"list": [1, {"base64": "AA=="}]}, "content_type": "application/json"},
    ],
)
async def test_a_row_is_the_one_of_its_job(mapping: FieldMapping, properties: dict[str, Any]) -> None:
    message = Message(body=b' {"n": 1.50} ', **properties)
    decoded = Decoder().decode(message)
    job = await mapping.map(message, decoded.value, "in")
    plain = mapping.plain("in")
    assert plain is not None
    assert job is not None
    row = plain.row(message, decoded.text)
    assert row[1:] == store.row_of(job, decoded.text)[1:]
    if message.key or message.id:
        assert slot_of(job.id) == int(str(row[0]).replace("-", ""), 16) % SLOTS


@pytest.mark.parametrize(
    "properties",
    [
        {"id": "\0"},
        {"correlation_id": "x" * 513},
        {"correlation_id": "\ud800"},
        {"headers": {"a": "\0"}},
        {"headers": {str(n): n for n in range(1001)}},
        {"coordinates": {"routing_key": "\0"}},
        {"coordinates": {"routing_key": "\udfff"}},
        {"coordinates": {"tag": b"\xff"}},
        {"coordinates": {1: "a"}},
        {"coordinates": {"far": 1 << 333}},
        {"coordinates": {"far": float("nan")}},
    ],
)
async def test_what_no_job_may_carry_is_refused_for_the_same_reason(properties: dict[str, Any]) -> None:
    mapping, message = FieldMapping("orders"), Message(body=b"{}", **properties)
    plain = mapping.plain("in")
    assert plain is not None
    with pytest.raises(BadMessage) as of_job:
        await mapping.map(message, {}, "in")
    with pytest.raises(BadMessage) as of_row:
        plain.row(message, "{}")
    assert (of_row.value.reason, of_row.value.detail) == (of_job.value.reason, of_job.value.detail)


def test_an_expression_needs_the_job() -> None:
    assert FieldMapping(expressions=Expressions(queue="body.queue")).plain("in") is None
