"""What `package.module:name` in a setting names, or an error that says what to do."""

from __future__ import annotations

import importlib

from .errors import Misconfigured


def named_object(path: str) -> object:
    """Import the module and find the object; the name may have dots. Raises Misconfigured."""
    module, colon, name = path.partition(":")
    if not (module and colon and name):
        raise Misconfigured(f"{path!r} does not name a function", hint="write package.module:function")
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
