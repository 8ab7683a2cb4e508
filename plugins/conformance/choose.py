"""Which tests a plugin must pass: those whose needs its declared capabilities meet."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ...core.errors import Misconfigured
from ...core.event import SinkCapabilities
from ...core.message import BridgeCapabilities

T = TypeVar("T", bound=Callable[..., Any])
Capabilities = BridgeCapabilities | SinkCapabilities

NEEDS = "__conformance_needs__"


def needs(holds: Callable[[Any], bool]) -> Callable[[T], T]:
    """Mark a test as one for plugins of which this holds."""

    def marked(test: T) -> T:
        setattr(test, NEEDS, holds)
        return test

    return marked


def names_of_tests(contract: type) -> list[str]:
    """The names of all tests of a contract."""
    return sorted(name for name in dir(contract) if name.startswith("test_"))


def choose(contract: type, plugin: object, expected: type[Capabilities]) -> None:
    """Take the tests out of a contract that are not for this plugin. Raises Misconfigured."""
    capabilities = getattr(plugin, "capabilities", None)
    if not isinstance(capabilities, expected):
        raise Misconfigured(
            f"{getattr(plugin, '__name__', plugin)!r} declares no capabilities",
            hint=f"give it the class attribute `capabilities = {expected.__name__}(…)`",
        )
    for name in names_of_tests(contract):
        holds = getattr(getattr(contract, name), NEEDS, None)
        if holds is not None and not holds(capabilities):
            setattr(contract, name, None)
