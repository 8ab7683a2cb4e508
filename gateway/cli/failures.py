"""How a command ends when something is wrong: one line `error:`, one line `hint:`, an exit code."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import typer

from ...core.errors import (
    BadMessage,
    Disconnected,
    HammerworkError,
    JobUnsuccessful,
    Misconfigured,
    NotFound,
    ResultExpired,
    ResultTimeout,
    StateConflict,
    Unavailable,
)

USAGE_ERROR: type[Exception] = typer.BadParameter.__mro__[1]
"""What typer raises for every wrong command line; it has no public name for it."""

SECRETS_IN_ARGUMENTS = ("--database-url", "--dsn", "--token", "--password")


class ExitCode(IntEnum):
    """What `hammerwork` exits with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 5
    UNREACHABLE = 7
    FINDINGS = 8
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told on standard error, and the exit code."""

    code: ExitCode
    message: str
    hint: str = ""


class Ended(Exception):
    """A command has said all that it has to say and ends with this code."""

    def __init__(self, code: ExitCode) -> None:
        super().__init__(code)
        self.code = code


def failure_of(error: BaseException) -> Failure:
    """The one place where errors become lines and exit codes."""
    match error:
        case BaseExceptionGroup():
            return failure_of(_first(error))
        case KeyboardInterrupt():
            return Failure(ExitCode.INTERRUPTED, "interrupted")
        case typer.Abort():
            return Failure(ExitCode.INTERRUPTED, "nothing was done")
        case NotFound():
            return Failure(ExitCode.NOT_FOUND, str(error))
        case StateConflict():
            return Failure(ExitCode.CONFLICT, str(error))
        case Disconnected():
            hint = "does the broker run there, and is its address in the settings right?"
            return Failure(ExitCode.FAILED, str(error), hint)
        case Unavailable():
            hint = "does Postgres run there, and is database.url (HAMMERWORK_DATABASE_URL) right?"
            return Failure(ExitCode.UNREACHABLE, str(error), hint)
        case Misconfigured():
            return Failure(ExitCode.FAILED, str(error), error.hint)
        case BadMessage():
            return Failure(
                ExitCode.FAILED, error.detail or error.reason, f"the reason code is {error.reason}"
            )
        case ResultTimeout():
            return Failure(ExitCode.FAILED, str(error), "the job goes on; wait longer with --timeout")
        case ResultExpired():
            return Failure(ExitCode.NOT_FOUND, str(error), "enqueue with a longer result_ttl to keep results")
        case JobUnsuccessful():
            return Failure(ExitCode.FAILED, str(error), f"hammerwork job show {error.job_id}")
        case HammerworkError():
            return Failure(ExitCode.FAILED, str(error))
        case _ if isinstance(error, USAGE_ERROR):
            return _usage(error)
        case OSError():
            return Failure(ExitCode.FAILED, f"{error.strerror or error}: {error.filename}")
        case _:
            text = f"this is a fault of hammerwork ({type(error).__name__}: {error})"
            return Failure(ExitCode.FAILED, text, "put --debug behind it to see where, and report it")


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error of a group that says most: one of ours before the driver's and the interpreter's."""
    leaves = list(_leaves(group))
    return next((leaf for leaf in leaves if isinstance(leaf, HammerworkError)), leaves[0])


def _leaves(error: BaseException) -> list[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        return [leaf for inner in error.exceptions for leaf in _leaves(inner)]
    return [error]


def _usage(error: Exception) -> Failure:
    message = " ".join(str(getattr(error, "format_message", error.__str__)()).split()).rstrip(".")
    option = getattr(error, "option_name", "")
    if option in SECRETS_IN_ARGUMENTS:
        return Failure(
            ExitCode.USAGE,
            f"{option} is not taken: everybody on this machine can read the arguments of a command",
            "set HAMMERWORK_DATABASE_URL, or database.url in the file of --config",
        )
    context = getattr(error, "ctx", None)
    path = context.command_path if context is not None else "hammerwork"
    return Failure(ExitCode.USAGE, message[:1].lower() + message[1:], f"{path} --help")
