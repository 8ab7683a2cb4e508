"""What `package.module:name` in a setting names, or an error that says what to do."""

from __future__ import annotations

import importlib
import os
import sys

from .errors import Misconfigured


def named_object(path: str) -> object:
    """Import the module and find the object; the name may have dots. Raises Misconfigured.

    The current folder is searched too, as `python -m` would.
    """
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise Misconfigured(f"{path!r} does not name a function", hint="write package.module:function")
    if "" not in sys.path and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    try:
        found: object = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"the module of {path!r} is not found: {error}",
            hint="install it beside hammerwork, or put its folder on PYTHONPATH",
        ) from error
    except AttributeError as error:
        raise Misconfigured(f"{module} has no {name!r}", hint="check the part after the colon") from error
    except Exception as error:
        raise Misconfigured(
            f"importing {module} failed with {type(error).__name__}: {error}",
            hint=f"`python -c 'import {module}'` shows where",
        ) from error
    return found
