"""What can go wrong, named by what the caller must do: fix a setting, try again, reconnect, or give up."""

from __future__ import annotations

from uuid import UUID


class HammerworkError(Exception):
    """Base of every error this package raises on purpose."""


# --- fix something, then try again ---------------------------------------------------------------


class Misconfigured(HammerworkError):
    """A setting or an argument is wrong; trying again cannot help until `hint` is followed."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class MissingExtra(Misconfigured):
    """A feature needs a package that is not installed."""

    def __init__(self, feature: str, extra: str, *, package: str = "hammerwork") -> None:
        super().__init__(
            f"{feature} needs the extra `{extra}`, which is not installed",
            hint=f"pip install '{package}[{extra}]'",
        )


# --- the world is away: hold, back off, lose nothing ---------------------------------------------


class Unavailable(HammerworkError):
    """Postgres, a broker or a destination is away for now; the same call may be made again later."""


class CommitUnknown(Unavailable):
    """The connection was cut while COMMIT was under way: the write may or may not be stored.

    Send the same ids again; every write of this package carries client-made ids for that reason.
    """


class Disconnected(Unavailable):
    """A bridge has lost its broker; the framework closes it, backs off and opens it again."""


# --- the message is bad for ever -----------------------------------------------------------------


class BadMessage(HammerworkError):
    """A permanent property of a message makes it unusable: it becomes a dead letter.

    `reason` is a stable snake_case code (metrics and dead letters group by it), `detail` is prose.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


# --- what a caller asked for does not hold -------------------------------------------------------


class NotFound(HammerworkError):
    """No job, dead letter, queue or sink of that name or id exists."""


class StateConflict(HammerworkError):
    """The act does not fit the state that the thing is in (cancelling a finished job, say)."""


class LeaseLost(HammerworkError):
    """This worker no longer owns the job: its writes were refused and rolled back."""


class JobUnsuccessful(HammerworkError):
    """`Queue.result` was asked for a job that will not have a result."""

    def __init__(self, job_id: UUID, state: str, error: str | None) -> None:
        super().__init__(f"job {job_id} is {state}" + (f": {error}" if error else ""))
        self.job_id = job_id
        self.state = state
        self.error = error


class JobDead(JobUnsuccessful):
    """The job used up its attempts or its handler gave it up."""


class JobCancelled(JobUnsuccessful):
    """The job was cancelled."""


class ResultTimeout(HammerworkError, TimeoutError):
    """The job did not finish within the time that the caller was willing to wait; it goes on."""


class ResultExpired(HammerworkError):
    """The job completed, but its result is older than its TTL and was removed."""
