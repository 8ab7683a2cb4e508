"""Hammerwork: messages in, Postgres jobs, events out; this face hands on the names that applications use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .core.errors import HammerworkError as HammerworkError
    from .core.errors import JobCancelled as JobCancelled
    from .core.errors import JobDead as JobDead
    from .core.errors import LeaseLost as LeaseLost
    from .core.errors import Misconfigured as Misconfigured
    from .core.errors import ResultTimeout as ResultTimeout
    from .core.errors import Unavailable as Unavailable
    from .core.execute.handlers import Handlers as Handlers
    from .core.execute.running import RunningJob as RunningJob
    from .core.execute.worker import Worker as Worker
    from .core.execute.worker import WorkerPool as WorkerPool
    from .core.job import Cancel as Cancel
    from .core.job import Dead as Dead
    from .core.job import Done as Done
    from .core.job import Job as Job
    from .core.job import JobState as JobState
    from .core.job import Priority as Priority
    from .core.job import Retry as Retry
    from .core.job import Snooze as Snooze
    from .core.message import Message as Message
    from .core.queue import Queue as Queue
    from .core.retry import Exponential as Exponential
    from .core.retry import Fibonacci as Fibonacci
    from .core.retry import Fixed as Fixed
    from .core.retry import Linear as Linear
    from .gateway.event_stream import EventStream as EventStream
    from .gateway.message_bridge import MessageBridge as MessageBridge

_ROOMS = {
    "core.errors": [
        "HammerworkError", "JobCancelled", "JobDead", "LeaseLost", "Misconfigured", "ResultTimeout",
        "Unavailable",
    ],
    "core.execute.running": ["RunningJob"],
    "core.execute.handlers": ["Handlers"],
    "core.job": ["Cancel", "Dead", "Done", "Job", "JobState", "Priority", "Retry", "Snooze"],
    "core.message": ["Message"],
    "core.queue": ["Queue"],
    "core.retry": ["Exponential", "Fibonacci", "Fixed", "Linear"],
    "core.execute.worker": ["Worker", "WorkerPool"],
    "gateway.event_stream": ["EventStream"],
    "gateway.message_bridge": ["MessageBridge"],
}  # fmt: skip
_HOME = {name: room for room, names in _ROOMS.items() for name in names}

__all__ = sorted(_HOME)  # noqa: PLE0605 - the names above


def __getattr__(name: str) -> Any:
    # Imported when asked for, so that `hammerwork --help` need not load a database driver.
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOME[name]}", __name__), name)
