"""When to try again: strategies as data, persisted with the job, computed by pure functions."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, Protocol, assert_never, cast

from .errors import Misconfigured

Jitter = Literal["none", "full", "equal"] | float
"""How a delay is spread, so that jobs that failed together do not return together.

`"full"` draws from 0..delay, `"equal"` from delay/2..delay (both as in Marc Brooker's "Exponential
Backoff And Jitter", AWS Architecture Blog, 2015); a number p draws from delay·(1-p)..delay·(1+p).
"""

LONGEST = timedelta(days=365)
"""No strategy waits longer than this, whatever its numbers say."""


@dataclass(frozen=True, slots=True)
class Fixed:
    """The same delay every time."""

    delay: timedelta
    jitter: Jitter = 0.1


@dataclass(frozen=True, slots=True)
class Linear:
    """step, 2·step, 3·step, … up to `maximum`."""

    step: timedelta
    maximum: timedelta = timedelta(hours=1)
    jitter: Jitter = 0.1


@dataclass(frozen=True, slots=True)
class Exponential:
    """base, base·factor, base·factor², … up to `maximum`."""

    base: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    maximum: timedelta = timedelta(minutes=10)
    jitter: Jitter = 0.1


@dataclass(frozen=True, slots=True)
class Fibonacci:
    """unit × 1, 1, 2, 3, 5, 8, … up to `maximum`."""

    unit: timedelta = timedelta(seconds=1)
    maximum: timedelta = timedelta(minutes=10)
    jitter: Jitter = 0.1


@dataclass(frozen=True, slots=True)
class Schedule:
    """The listed delays in turn, the last one again and again; what webhook senders use."""

    delays: tuple[timedelta, ...]
    jitter: Jitter = 0.2


@dataclass(frozen=True, slots=True)
class Custom:
    """A function registered by name on the worker that runs the job (`Handlers.retry_strategy`).

    Only the name travels with the job, so every worker of the queue must register it.
    """

    name: str
    jitter: Jitter = "none"


RetryStrategy = Fixed | Linear | Exponential | Fibonacci | Schedule | Custom


class RetryFunction(Protocol):
    """A custom strategy: the delay after the given attempt (1 for the first), from the error's text."""

    def __call__(self, attempt: int, error: str) -> timedelta: ...


def delay_after(
    strategy: RetryStrategy,
    attempt: int,
    *,
    error: str = "",
    functions: Mapping[str, RetryFunction] | None = None,
    draw: Callable[[], float] = random.random,
) -> timedelta:
    """How long to wait after attempt number `attempt` (1 for the first) failed.

    `draw` gives numbers in [0, 1) for the jitter. Raises Misconfigured when a custom strategy's name
    is not in `functions`.
    """
    n = max(attempt, 1)
    match strategy:
        case Fixed():
            seconds = strategy.delay.total_seconds()
        case Linear():
            seconds = min(strategy.step.total_seconds() * n, strategy.maximum.total_seconds())
        case Exponential():
            seconds = _exponential(strategy, n)
        case Fibonacci():
            seconds = _fibonacci(strategy, n)
        case Schedule():
            seconds = strategy.delays[min(n, len(strategy.delays)) - 1].total_seconds()
        case Custom():
            seconds = _custom(strategy, functions or {}, n, error)
        case _:
            assert_never(strategy)
    spread = _jittered(seconds, strategy.jitter, draw)
    return timedelta(seconds=max(0.0, min(spread, LONGEST.total_seconds())))


def _exponential(strategy: Exponential, attempt: int) -> float:
    ceiling = strategy.maximum.total_seconds()
    try:
        return min(strategy.base.total_seconds() * strategy.factor ** (attempt - 1), ceiling)
    except OverflowError:
        return ceiling


def _fibonacci(strategy: Fibonacci, attempt: int) -> float:
    ceiling, unit = strategy.maximum.total_seconds(), strategy.unit.total_seconds()
    if not unit:
        return 0.0
    here, following = 1, 1
    for _ in range(attempt - 1):
        if here * unit >= ceiling:
            break
        here, following = following, here + following
    return min(here * unit, ceiling)


def _custom(strategy: Custom, functions: Mapping[str, RetryFunction], attempt: int, error: str) -> float:
    function = functions.get(strategy.name)
    if function is None:
        raise Misconfigured(
            f"retry strategy {strategy.name!r} is not registered on this worker",
            hint="register it with @handlers.retry_strategy(name) on every worker of the queue",
        )
    return function(attempt, error).total_seconds()


def _jittered(seconds: float, jitter: Jitter, draw: Callable[[], float]) -> float:
    match jitter:
        case "none":
            return seconds
        case "full":
            return seconds * draw()
        case "equal":
            return seconds * (0.5 + draw() / 2)
        case float() | int():
            return seconds * (1 + jitter * (2 * draw() - 1))
        case _:
            assert_never(jitter)


def to_json(strategy: RetryStrategy) -> dict[str, Any]:
    """The strategy as it is stored with a job; spans are seconds."""
    spans = {k: _plain(getattr(strategy, k)) for k in strategy.__dataclass_fields__}
    return {"strategy": type(strategy).__name__.lower()} | spans


def from_json(stored: Mapping[str, Any]) -> RetryStrategy:
    """The strategy that `to_json` stored; raises Misconfigured for anything else."""
    try:
        rest = {k: v for k, v in stored.items() if k != "strategy"}
        match stored.get("strategy"):
            case "fixed":
                return Fixed(**_spans(rest, "delay"))
            case "linear":
                return Linear(**_spans(rest, "step", "maximum"))
            case "exponential":
                return Exponential(**_spans(rest, "base", "maximum"))
            case "fibonacci":
                return Fibonacci(**_spans(rest, "unit", "maximum"))
            case "schedule":
                delays = tuple(timedelta(seconds=d) for d in cast("list[float]", rest.pop("delays")))
                return Schedule(delays=delays, **rest)
            case "custom":
                return Custom(**rest)
            case other:
                raise Misconfigured(f"unknown retry strategy {other!r}")
    except (AttributeError, TypeError, KeyError, ValueError, OverflowError) as error:
        raise Misconfigured(f"stored retry strategy cannot be read: {stored!r}") from error


def _plain(value: object) -> object:
    match value:
        case timedelta():
            return value.total_seconds()
        case tuple():
            return [_plain(v) for v in value]
        case _:
            return value


def _spans(values: dict[str, Any], *names: str) -> dict[str, Any]:
    return {k: timedelta(seconds=v) if k in names else v for k, v in values.items()}
