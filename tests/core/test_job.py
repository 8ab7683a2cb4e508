"""What a Job refuses, before anything of it is stored."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from hammerwork.core.errors import Misconfigured
from hammerwork.core.job import Job, JobState, Priority, Retry, Snooze, check_name


@pytest.mark.parametrize("name", ["a", "orders", "sink.billing", "a-b_c.d9", "q" * 63])
def test_a_good_queue_name_is_taken(name: str) -> None:
    assert Job(name).queue == name


@pytest.mark.parametrize(
    "name", ["", "Orders", "9lives", "-a", ".a", "a b", "a/b", "a\n", "ünï", "q" * 64, "a'; drop table jobs"]
)
def test_a_bad_queue_name_is_refused_with_a_hint(name: str) -> None:
    with pytest.raises(Misconfigured, match="queue name") as caught:
        Job(name)
    assert "a-z 0-9" in caught.value.hint


def test_the_kind_of_name_is_said() -> None:
    with pytest.raises(Misconfigured, match="sink name 'A' is not allowed"):
        check_name("sink", "A")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"run_at": datetime.now(UTC), "delay": timedelta(seconds=1)}, "not both"),
        ({"run_at": datetime(2030, 1, 1)}, "timezone-aware"),
        ({"delay": timedelta(seconds=-1)}, "negative"),
        ({"max_attempts": 0}, "max_attempts"),
        ({"max_attempts": 32_768}, "max_attempts"),
        ({"timeout": timedelta(0)}, "timeout"),
        ({"result_ttl": 5}, "result_ttl must be a timedelta, not 5"),
        ({"id": "nobody"}, "the id must be a UUID, not 'nobody'"),
    ],
)
def test_a_bad_option_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(Misconfigured, match=said):
        Job("orders", **options)


def test_every_job_has_an_id_of_its_own() -> None:
    assert Job("orders").id != Job("orders").id


def test_priorities_are_ordered() -> None:
    ordered = [Priority.BACKGROUND, Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL]
    assert sorted(Priority) == ordered
    assert [int(priority) for priority in ordered] == [0, 1, 2, 3, 4]


def test_the_final_states_are_those_that_leave_the_hot_table() -> None:
    assert {state for state in JobState if state.final} == {"completed", "cancelled", "dead"}


@pytest.mark.parametrize("delay", [30, "30s", None])
def test_an_outcome_with_a_delay_that_is_no_timedelta_is_refused_where_it_is_made(delay: Any) -> None:
    with pytest.raises(Misconfigured, match="timedelta"):
        Snooze(delay)
    if delay is not None:
        with pytest.raises(Misconfigured, match="timedelta"):
            Retry(delay=delay)
