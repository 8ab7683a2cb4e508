"""Sidekiq's and Active Job's JSON becomes a draft of a job."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hammerwork.core.errors import BadMessage
from hammerwork.core.ingest.mapping import CallableMapping, Expressions, FieldMapping
from hammerwork.core.message import Message
from hammerwork.plugins import sidekiq

JID = "b4a577edbccf1d805744efa9"


def job(**changed: Any) -> dict[str, Any]:
    return {
        "class": "ChargeJob", "jid": JID, "args": [7, "EUR"], "queue": "billing", "retry": True,
        "created_at": 1764000000123, "enqueued_at": 1764000000456,
    } | changed  # fmt: skip


def active_job(**changed: Any) -> dict[str, Any]:
    return {
        "job_class": "ChargeJob", "job_id": "6c0cd5a3-a5b1-4d53-a7a3-52e0a1a3a4ef", "provider_job_id": None,
        "queue_name": "billing", "priority": None, "executions": 0, "locale": "en", "timezone": "UTC",
        "arguments": [{"_aj_globalid": "gid://shop/Order/7"}, {"dry": True, "_aj_ruby2_keywords": ["dry"]}],
        "enqueued_at": "2026-11-23T18:00:00.123456789Z", "scheduled_at": None,
    } | changed  # fmt: skip


def drafted(body: Any) -> Any:
    return sidekiq.to_draft(Message(body=b"", headers={"x-tenant": "a"}), body)


def test_class_and_arguments_are_the_payload_and_the_rest_is_in_the_headers() -> None:
    draft = drafted(job())
    assert draft.payload == {"task": "ChargeJob", "args": [7, "EUR"], "kwargs": {}}
    assert draft.correlation_id == JID
    assert draft.headers["queue"] == "billing"
    assert draft.headers["x-tenant"] == "a"
    assert draft.headers.keys().isdisjoint({"class", "args"})
    assert (draft.run_at, draft.max_attempts) == (None, None)


@pytest.mark.parametrize("wrapper", sorted(sidekiq.WRAPPERS))
def test_an_active_job_is_the_same_alone_and_inside_sidekiqs_wrapper(wrapper: str) -> None:
    expected = {
        "task": "ChargeJob",
        "args": [{"_aj_globalid": "gid://shop/Order/7"}],
        "kwargs": {"dry": True},
    }
    assert drafted(active_job()).payload == expected
    assert drafted(active_job()).correlation_id == active_job()["job_id"]
    wrapped = drafted(job(**{"class": wrapper, "wrapped": "ChargeJob", "args": [active_job()]}))
    assert wrapped.payload == expected
    assert wrapped.correlation_id == JID


def test_a_time_is_seconds_or_milliseconds_or_text() -> None:
    at = datetime(2026, 11, 24, 6, 0, tzinfo=UTC) + timedelta(milliseconds=500)
    assert drafted(job(at=at.timestamp())).run_at == at
    assert drafted(job(at=round(at.timestamp() * 1000))).run_at == at
    assert drafted(active_job(scheduled_at=at.isoformat())).run_at == at


@pytest.mark.parametrize(("retry", "attempts"), [(True, None), (False, 1), (0, 1), (5, 6), (None, None)])
def test_retries_are_counted_as_attempts(retry: Any, attempts: int | None) -> None:
    assert drafted(job(retry=retry)).max_attempts == attempts


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"order": 7}, "not_sidekiq"),
        ([7], "not_sidekiq"),
        (None, "not_sidekiq"),
        (job(args={"a": 1}), "not_sidekiq"),
        (job(**{"class": ""}), "not_sidekiq"),
        (active_job(arguments=None), "not_sidekiq"),
        (active_job(job_class=7), "not_sidekiq"),
        (job(at="soon"), "bad_run_at"),
        (job(at=True), "bad_run_at"),
        (job(at=1e40), "bad_run_at"),
        (job(retry="often"), "bad_max_attempts"),
        (job(retry=-1), "bad_max_attempts"),
        (job(retry=40_000), "bad_max_attempts"),
    ],
)
def test_what_is_no_job_is_refused_with_its_reason(body: Any, reason: str) -> None:
    with pytest.raises(BadMessage) as refused:
        drafted(body)
    assert refused.value.reason == reason


async def test_the_queue_follows_from_the_jobs_own_by_an_expression() -> None:
    mapping = CallableMapping(
        sidekiq.to_draft, FieldMapping(expressions=Expressions(queue="'ruby.' + headers.queue"))
    )
    made = await mapping.map(Message(body=b""), job(), "ruby")
    assert made is not None
    assert made.queue == "ruby.billing"
