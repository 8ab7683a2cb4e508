"""GeneratorBridge: an async generator of messages as a bridge, resumed only after COMMIT."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import structlog

from ..core.errors import Disconnected
from ..core.message import Bridge, BridgeCapabilities, Delivery, Message, Receipt, Want

log = structlog.get_logger(__name__)

GRACE = 1.0
"""Seconds that a generator which was just told of a COMMIT gets to tell its source, before it is closed."""

CLOSES_WITHIN = 5.0


class GeneratorBridge(Bridge):
    """Implements `core.message.Bridge` for an async generator that yields a message, or a list of them.

    What holds:

    - The generator is resumed after a `yield` only when all that it yielded there is committed. Whatever
      stands behind the `yield` may tell the source so. After a crash it may not have been resumed although
      the COMMIT was made: then the source gives the message again, and its `id` keeps it from being stored
      twice.
    - One yield is in hand at a time: the next is asked for after the COMMIT of the one before. A list is
      what makes it fast; one that is longer than a batch is stored in several.
    - The function is called anew whenever the bridge opens, and after what it yielded could not be stored: it
      must begin with what was not committed. The old generator is closed at its `yield` (GeneratorExit) or
      where it waits (CancelledError), so `try … finally` is the place to disconnect.
    - What it raises ends the connection: `Disconnected` and `Misconfigured` as for every bridge. A generator
      that returns has nothing more to give; the bridge stays open and idle.
    """

    def __init__(
        self,
        name: str,
        generate: Callable[[], AsyncIterator[Message | Sequence[Message]]],
        capabilities: BridgeCapabilities,
    ) -> None:
        self.name = name
        self.capabilities = capabilities
        self._generate = generate
        self._opened = False
        self._generator: Any = None
        self._step: asyncio.Task[Sequence[Message]] | None = None
        """The generator on its way to its next `yield`."""
        self._resumed_at = 0.0
        self._waiting: deque[Message] = deque()
        self._owed = 0
        """Pulled and not settled, of this generator."""

    async def open(self) -> None:
        await self.close()
        self._opened = True

    async def pull(self, want: Want) -> Sequence[Delivery]:
        if not self._opened:
            raise Disconnected("the bridge is not open")
        if self._owed and not self._waiting:
            await asyncio.sleep(want.wait.total_seconds())
            return []
        if not self._waiting:
            await self._advance(want.wait.total_seconds())
        return self._take(want)

    async def settle(self, receipts: Sequence[Receipt]) -> None:
        ours = [r for r in receipts if self._generator is not None and r.delivery.handle is self._generator]
        self._owed -= len(ours)
        if ours and not self._owed and not self._waiting:
            self._resume()

    async def release(self, deliveries: Sequence[Delivery]) -> None:
        """They come again from a new generator, at the next `pull`."""
        if any(delivery.handle is self._generator for delivery in deliveries):
            await self._end()

    async def rest(self) -> None:
        if not self._owed:
            await self._end()

    async def close(self) -> None:
        self._opened = False
        await self._end()

    # --- the generator ---

    def _resume(self) -> asyncio.Task[Sequence[Message]]:
        if self._generator is None:
            self._generator = self._generate()
        self._resumed_at = time.monotonic()
        self._step = asyncio.create_task(self._next(self._generator), name=f"bridge {self.name} generates")
        return self._step

    async def _next(self, generator: Any) -> Sequence[Message]:
        try:
            yielded = await anext(generator)
        except StopAsyncIteration:
            await asyncio.Event().wait()  # nothing more to give
        return [yielded] if isinstance(yielded, Message) else list(yielded)

    async def _advance(self, wait: float) -> None:
        """Wait for the next `yield`, but not for long: the generator goes on while nobody looks."""
        step = self._step or self._resume()
        done, _ = await asyncio.wait([step], timeout=wait)
        if done:
            self._step = None
            self._waiting.extend(step.result())

    def _take(self, want: Want) -> Sequence[Delivery]:
        taken: list[Delivery] = []
        size = 0
        while self._waiting and len(taken) < want.count:
            size += len(self._waiting[0].body)
            if taken and size > want.size:
                break
            taken.append(Delivery(self._waiting.popleft(), self._generator))
        self._owed += len(taken)
        return taken

    async def _end(self) -> None:
        """Close the generator; what it yielded and nobody stored comes again from the next one."""
        generator, self._generator = self._generator, None
        step, self._step = self._step, None
        self._waiting.clear()
        self._owed = 0
        if generator is None:
            return
        if step is not None:
            left = self._resumed_at + GRACE - time.monotonic()
            await asyncio.wait([step], timeout=max(0.0, left))
            step.cancel()
            await self._ended(step)
        await self._ended(asyncio.create_task(generator.aclose(), name=f"bridge {self.name} closes"))

    async def _ended(self, task: asyncio.Task[Any]) -> None:
        done, _ = await asyncio.wait([task], timeout=CLOSES_WITHIN)
        if not done:
            log.warning("a generator does not end", bridge=self.name, task=task.get_name())
        elif not task.cancelled() and (error := task.exception()) is not None:
            log.warning("a generator ended badly", bridge=self.name, error=f"{type(error).__name__}: {error}")
