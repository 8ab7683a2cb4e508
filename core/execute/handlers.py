"""Handler, the seam that applications implement; and Handlers: which one runs the jobs of which queue."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TypeVar

from ..errors import Misconfigured
from ..job import Json, Outcome, check_name
from ..retry import Exponential, RetryFunction, RetryStrategy
from .running import RunningJob

Handler = Callable[[RunningJob], Awaitable[Outcome | Json] | Outcome | Json]
"""The seam that applications implement.

Called once an attempt, with the running job; an `async def` runs on the worker's event loop, a plain
`def` in a thread. Answer an Outcome, or any JSON value as short for `Done(value)`. An exception means
`Retry(str(exception))`. Cancellation (asyncio.CancelledError) means that the job was cancelled, timed
out, or that this worker lost its lease: clean up and let it through. The same job may run again after
a crash, so effects outside Postgres must be idempotent by `job.id`; effects inside Postgres belong in
`async with job.transaction() as conn`.
"""

H = TypeVar("H", bound=Handler)

DEFAULT_RETRY = Exponential()


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """How one queue's jobs are run. A job's own retry strategy and timeout go before these."""

    queue: str
    handler: Handler
    retry: RetryStrategy = DEFAULT_RETRY
    timeout: timedelta | None = None
    concurrency: int | None = None
    """At most this many of this queue at once in one worker; None: as many as the worker has slots."""
    result_bytes: int = 1024 * 1024
    """A longer result (as JSON text) makes the job dead instead of filling the database."""
    in_thread: bool = field(default=False)


class Handlers(Mapping[str, Route]):
    """What an application gives to a worker:

        handlers = Handlers()

        @handlers.queue("orders", retry=Exponential(), timeout=timedelta(minutes=1))
        async def ship(job: RunningJob) -> None: ...

    An `async def` runs on the worker's event loop; a plain `def` in a thread of its own pool.
    """

    def __init__(self, handlers: Mapping[str, Handler] | None = None) -> None:
        self._routes: dict[str, Route] = {}
        self.retry_functions: dict[str, RetryFunction] = {}
        for queue, handler in (handlers or {}).items():
            self.add(queue, handler)

    def queue(
        self,
        name: str,
        *,
        retry: RetryStrategy = DEFAULT_RETRY,
        timeout: timedelta | None = None,
        concurrency: int | None = None,
        result_bytes: int = 1024 * 1024,
    ) -> Callable[[H], H]:
        """Register the decorated function for a queue. Raises Misconfigured for a second one."""

        def register(handler: H) -> H:
            self.add(
                name,
                handler,
                retry=retry,
                timeout=timeout,
                concurrency=concurrency,
                result_bytes=result_bytes,
            )
            return handler

        return register

    def add(
        self,
        queue: str,
        handler: Handler,
        *,
        retry: RetryStrategy = DEFAULT_RETRY,
        timeout: timedelta | None = None,
        concurrency: int | None = None,
        result_bytes: int = 1024 * 1024,
    ) -> None:
        """Register a function for a queue without the decorator."""
        check_name("queue", queue)
        if queue in self._routes:
            raise Misconfigured(f"queue {queue!r} has a handler already")
        if not callable(handler):
            raise Misconfigured(f"the handler of queue {queue!r} is not callable: {handler!r}")
        if concurrency is not None and concurrency < 1:
            raise Misconfigured(f"the concurrency of queue {queue!r} must be at least 1")
        self._routes[queue] = Route(
            queue=queue,
            handler=handler,
            retry=retry,
            timeout=timeout,
            concurrency=concurrency,
            result_bytes=result_bytes,
            in_thread=not _is_async(handler),
        )

    def retry_strategy(self, name: str) -> Callable[[RetryFunction], RetryFunction]:
        """Register the decorated function as the custom retry strategy `name` (`retry.Custom(name)`)."""

        def register(function: RetryFunction) -> RetryFunction:
            self.retry_functions[name] = function
            return function

        return register

    def only(self, queues: list[str]) -> Handlers:
        """The same handlers for some of the queues; raises Misconfigured for one that has none."""
        chosen = Handlers()
        chosen.retry_functions = self.retry_functions
        for queue in queues:
            if queue not in self._routes:
                raise Misconfigured(
                    f"no handler for queue {queue!r}",
                    hint=f"there are: {', '.join(sorted(self._routes)) or 'none'}",
                )
            chosen._routes[queue] = self._routes[queue]
        return chosen

    def __getitem__(self, queue: str) -> Route:
        return self._routes[queue]

    def __iter__(self) -> Iterator[str]:
        return iter(self._routes)

    def __len__(self) -> int:
        return len(self._routes)


def _is_async(handler: Handler) -> bool:
    return inspect.iscoroutinefunction(handler) or inspect.iscoroutinefunction(
        getattr(handler, "__call__", None)  # noqa: B004 - an object whose __call__ is async is async
    )
