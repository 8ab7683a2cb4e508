"""Expressions that answer a key: text of an event's own, and nothing else."""

from __future__ import annotations

import pytest

from hammerwork.core.errors import BadMessage, Misconfigured
from hammerwork.sinks.expression import TextOfEvent

from .streaming import event


def test_all_that_an_event_says_can_be_its_key() -> None:
    told = event(type="job.dead", queue="orders", data={"k": "7"})
    of = TextOfEvent("key", "[type, queue, job_id, string(sequence), data.k].filter(t, t != '')[1] + data.k")
    assert of(told) == "orders7"


@pytest.mark.parametrize(("source", "kind"), [("sequence", "int"), ("data", "dict"), ("''", "str")])
def test_what_is_no_text_or_empty_is_no_key(source: str, kind: str) -> None:
    with pytest.raises(BadMessage, match=f"no_key: the partition_key's expression answers {kind}, not text"):
        TextOfEvent("partition_key", source)(event())


def test_what_cannot_be_an_expression_is_a_fault_of_the_settings() -> None:
    with pytest.raises(Misconfigured, match="key"):
        TextOfEvent("key", "queue +")
