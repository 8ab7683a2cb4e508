"""How long to wait before the next try to reach what is away: exponential with full jitter, and reset."""

from __future__ import annotations

from tenacity import RetryCallState, wait_random_exponential


class Backoff:
    """A counter over tenacity's `wait_random_exponential`: delays in seconds, jittered over 0..ceiling.

    The ceiling doubles from `first` to `longest` and starts anew after `reset`.
    """

    def __init__(self, *, first: float = 0.2, longest: float = 10.0) -> None:
        self._wait = wait_random_exponential(multiplier=first, max=longest, min=first / 4)
        self._failures = 0

    def next(self) -> float:
        self._failures += 1
        state = RetryCallState(retry_object=None, fn=None, args=(), kwargs={})  # type: ignore[arg-type]
        state.attempt_number = self._failures
        return float(self._wait(state))

    def reset(self) -> None:
        self._failures = 0
