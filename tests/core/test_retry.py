"""Retry strategies: their sequences, their jitter, and that they survive being stored."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hammerwork.core.errors import Misconfigured
from hammerwork.core.retry import (
    LONGEST,
    Custom,
    Exponential,
    Fibonacci,
    Fixed,
    Jitter,
    Linear,
    RetryStrategy,
    Schedule,
    delay_after,
    from_json,
    to_json,
)


def seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def delays(strategy: RetryStrategy, attempts: int) -> list[float]:
    return [delay_after(strategy, attempt).total_seconds() for attempt in range(1, attempts + 1)]


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (Fixed(seconds(3), jitter="none"), [3, 3, 3, 3]),
        (Linear(seconds(2), maximum=seconds(7), jitter="none"), [2, 4, 6, 7, 7]),
        (Exponential(seconds(1), 2.0, seconds(20), jitter="none"), [1, 2, 4, 8, 16, 20, 20]),
        (Exponential(seconds(1), 3.0, seconds(20), jitter="none"), [1, 3, 9, 20]),
        (Fibonacci(seconds(1), seconds(10), jitter="none"), [1, 1, 2, 3, 5, 8, 10, 10]),
        (Fibonacci(seconds(0.5), seconds(60), jitter="none"), [0.5, 0.5, 1, 1.5, 2.5, 4]),
        (Schedule((seconds(5), seconds(300)), jitter="none"), [5, 300, 300, 300]),
    ],
)
def test_a_strategy_gives_its_sequence(strategy: RetryStrategy, expected: list[float]) -> None:
    assert delays(strategy, len(expected)) == expected


@pytest.mark.parametrize(
    ("jitter", "lowest", "highest"),
    [("none", 10, 10), ("full", 0, 10), ("equal", 5, 10), (0.1, 9, 11), (0.5, 5, 15), (0.0, 10, 10)],
)
def test_jitter_stays_within_its_bounds_and_reaches_them(
    jitter: Jitter, lowest: float, highest: float
) -> None:
    strategy = Fixed(seconds(10), jitter=jitter)
    draws = [0.0, 0.25, 0.5, 0.999999]
    drawn = [delay_after(strategy, 1, draw=iter([d]).__next__).total_seconds() for d in draws]
    assert min(drawn) == pytest.approx(lowest, abs=1e-4)
    assert max(drawn) == pytest.approx(highest, abs=1e-4)
    assert all(lowest <= d <= highest for d in drawn)


def test_jobs_that_failed_together_do_not_return_together() -> None:
    assert len({delay_after(Exponential(jitter="full"), 5) for _ in range(50)}) > 45


@pytest.mark.parametrize("attempt", [1, 64, 1_100, 32_767])
@pytest.mark.parametrize(
    "strategy",
    [
        Linear(seconds(60), maximum=seconds(90)),
        Exponential(seconds(60), 10.0, seconds(90)),
        Fibonacci(seconds(60), seconds(90)),
        Fibonacci(seconds(0), seconds(90)),
    ],
)
def test_no_attempt_number_overflows(strategy: RetryStrategy, attempt: int) -> None:
    assert timedelta(0) <= delay_after(strategy, attempt) <= seconds(99)


@pytest.mark.parametrize(
    "strategy",
    [
        Fixed(timedelta.max),
        Linear(timedelta.max, maximum=timedelta.max),
        Exponential(timedelta.max, 2.0, timedelta.max),
        Schedule((timedelta.max,)),
    ],
)
def test_nothing_waits_longer_than_a_year(strategy: RetryStrategy) -> None:
    assert delay_after(strategy, 3) == LONGEST


def test_no_delay_is_negative() -> None:
    assert delay_after(Fixed(seconds(10), jitter=5.0), 1, draw=lambda: 0.0) == timedelta(0)
    assert delay_after(Fixed(seconds(-10)), 1) == timedelta(0)


def test_a_custom_strategy_is_found_by_name_and_sees_attempt_and_error() -> None:
    def patient(attempt: int, error: str) -> timedelta:
        return seconds(attempt * 10 + len(error))

    delay = delay_after(Custom("patient"), 3, error="four", functions={"patient": patient})
    assert delay == seconds(34)


def test_a_custom_strategy_that_is_not_registered_says_what_to_do() -> None:
    with pytest.raises(Misconfigured, match="'patient' is not registered") as caught:
        delay_after(Custom("patient"), 1)
    assert "retry_strategy" in caught.value.hint


spans = st.integers(0, 10**9).map(lambda ms: timedelta(milliseconds=ms))
jitters = st.sampled_from(["none", "full", "equal"]) | st.floats(0, 1)
strategies = st.one_of(
    st.builds(Fixed, spans, jitters),
    st.builds(Linear, spans, spans, jitters),
    st.builds(Exponential, spans, st.floats(1, 10), spans, jitters),
    st.builds(Fibonacci, spans, spans, jitters),
    st.builds(Schedule, st.lists(spans, min_size=1, max_size=5).map(tuple), jitters),
    st.builds(Custom, st.text(max_size=20), jitters),
)


@given(strategies)
def test_a_strategy_survives_being_stored_as_json(strategy: RetryStrategy) -> None:
    assert from_json(json.loads(json.dumps(to_json(strategy)))) == strategy


@pytest.mark.parametrize(
    "stored",
    [
        {},
        {"strategy": "never"},
        {"strategy": "fixed"},
        {"strategy": "fixed", "delay": "soon"},
        {"strategy": "fixed", "delay": 1, "colour": "red"},
        {"strategy": "schedule"},
        {"strategy": "schedule", "delays": 7},
        {"strategy": "exponential", "base": 1e300},
        {"strategy": ["fixed"]},
        [],
        "fixed",
        None,
    ],
)
def test_what_is_no_stored_strategy_is_refused_by_name(stored: Any) -> None:
    with pytest.raises(Misconfigured):
        from_json(stored)
