"""What MODULE:APP names: handlers to be run, or a worker that the application has made itself."""

from __future__ import annotations

import importlib
import linecache
import os
import sys
import traceback
from collections.abc import Mapping

from ...core.errors import Misconfigured
from ...core.execute.handlers import Handlers
from ...core.execute.worker import Worker, WorkerPool

Target = Handlers | Worker | WorkerPool

EXPECTED = "a Handlers, a mapping of queue to function, a Worker or a WorkerPool"


def load_target(name: str) -> Target:
    """The application that `package.module:attribute` names, searched in the current folder too.

    Raises Misconfigured that tells a module that is missing from one that fails while it is imported.
    """
    module_name, colon, attribute = name.partition(":")
    if not (module_name and colon and attribute):
        raise Misconfigured(
            f"{name!r} names no application", hint="write MODULE:APP, such as shop.jobs:handlers"
        )
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    found = _import(module_name)
    for part in attribute.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise Misconfigured(
                f"module {module_name!r} has no {attribute!r}", hint=_candidates(found, module_name)
            ) from None
    return _checked(found, name)


def _import(module_name: str) -> object:
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{module_name}.".startswith(f"{error.name}."):
            raise Misconfigured(
                f"there is no module {error.name!r}",
                hint=f"start it in the folder that holds it (this is {os.getcwd()}), or set PYTHONPATH",
            ) from error
        raise _failed(module_name, error) from error
    except (Exception, SystemExit) as error:
        raise _failed(module_name, error) from error


def _failed(module_name: str, error: BaseException) -> Misconfigured:
    """The error of a module's own code, with the line that it happened in."""
    said = f"{type(error).__name__}: {error}".splitlines()[0].rstrip(": ")
    if isinstance(error, SyntaxError):
        where = f"{error.filename} line {error.lineno}"
        source = (error.text or "").strip()
        said = f"{type(error).__name__}: {error.msg}"
    else:
        frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename]
        last = frames[-1]
        where = f"{last.filename} line {last.lineno}"
        source = linecache.getline(last.filename, last.lineno or 0).strip()
    return Misconfigured(
        f"module {module_name!r} cannot be imported: {said}", hint=f"see {where}: {source}".rstrip(": ")
    )


def _candidates(module: object, module_name: str) -> str:
    known = [
        name for name, value in vars(module).items() if isinstance(value, Handlers | Worker | WorkerPool)
    ]
    if known:
        return f"there is {', '.join(f'{module_name}:{name}' for name in known)}"
    return f"name {EXPECTED}"


def _checked(found: object, name: str) -> Target:
    match found:
        case Handlers() | Worker() | WorkerPool():
            return found
        case Mapping() if found and all(isinstance(k, str) and callable(v) for k, v in found.items()):
            return Handlers(found)
        case _:
            raise Misconfigured(f"{name} is a {type(found).__name__}", hint=f"name {EXPECTED}")
