"""What a sink wants: types, queues and a condition; and the CloudEvent that it is given."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from hammerwork.core.errors import Misconfigured
from hammerwork.core.event import Event, EventType
from hammerwork.core.expression import Condition
from hammerwork.core.identity import new_id, slot_of
from hammerwork.core.publish.relay import FILTER_VARIABLES, Subscription

EVERYTHING = frozenset(EventType)


def event(**changes: Any) -> Event:
    fields: dict[str, Any] = {
        "id": new_id(),
        "type": EventType.COMPLETED,
        "job_id": new_id(5),
        "sequence": 3,
        "queue": "orders.eu",
        "at": datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC),
        "data": {"attempt": 2, "correlation_id": "c-1", "ran_ms": 12.5},
    }
    return Event(**(fields | changes))


def condition(source: str) -> Condition:
    return Condition(source, variables=FILTER_VARIABLES)


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, True),
        ({"types": frozenset({EventType.DEAD})}, False),
        ({"queues": ("orders.*",)}, True),
        ({"queues": ("billing", "orders.eu")}, True),
        ({"queues": ("orders",)}, False),
        ({"condition": condition("data.attempt > 1")}, True),
        ({"condition": condition("data.attempt > 2")}, False),
        ({"condition": condition("queue.startsWith('orders') && type == 'job.completed'")}, True),
        ({"condition": condition("data.no_such_thing > 2")}, True),  # better one too many than one lost
        ({"condition": condition("data.attempt")}, True),
        ({"queues": ("billing",), "condition": condition("true")}, False),
    ],
)
def test_a_sink_is_given_what_it_wants(options: dict[str, Any], wanted: bool) -> None:
    assert Subscription(name="billing", **options).wants(event()) is wanted


def test_an_event_without_a_queue_is_for_sinks_that_take_all_queues() -> None:
    operators = event(type=EventType.SINK_DISABLED, queue=None, job_id=None, data={"sink": "crm"})
    assert Subscription(name="ops", types=EVERYTHING).wants(operators)
    assert not Subscription(name="ops", types=EVERYTHING, queues=("orders",)).wants(operators)


def test_a_subscription_that_cannot_work_is_refused() -> None:
    with pytest.raises(Misconfigured, match="wants no events"):
        Subscription(name="billing", types=frozenset())
    with pytest.raises(Misconfigured, match="sink name"):
        Subscription(name="Billing!")
    with pytest.raises(Misconfigured, match="unknown variable") as caught:
        condition("queu == 'orders'")
    assert "queue" in caught.value.hint
    with pytest.raises(Misconfigured, match="does not parse"):
        condition("queue ==")


def test_a_delivery_carries_a_cloud_event_and_the_slot_of_its_job() -> None:
    told = event()
    delivery = Subscription(name="billing", source="/shop", max_attempts=4).delivery(told)
    assert told.job_id is not None
    assert (delivery.queue, delivery.max_attempts, delivery.correlation_id) == ("sink.billing", 4, "c-1")
    assert slot_of(delivery.id) == slot_of(told.job_id)
    assert delivery.payload == {
        "specversion": "1.0",
        "id": str(told.id),
        "source": "/shop",
        "type": "dev.hammerwork.job.completed",
        "time": "2026-01-02T03:04:05.678000Z",
        "datacontenttype": "application/json",
        "sequence": "0000000003",
        "subject": str(told.job_id),
        "partitionkey": str(told.job_id),
        "data": {
            "job_id": str(told.job_id),
            "queue": "orders.eu",
            "attempt": 2,
            "correlation_id": "c-1",
            "ran_ms": 12.5,
        },
    }
