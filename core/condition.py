"""A CEL condition over the properties of an event, compiled and checked at start-up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from difflib import get_close_matches

import structlog

from .errors import Misconfigured
from .job import Json

log = structlog.get_logger(__name__)


class Condition:
    """`Condition("queue == 'billing'", variables=(…))`. Raises Misconfigured for one that cannot work."""

    def __init__(self, source: str, *, variables: Sequence[str]) -> None:
        # Importing cel brings its command line along (0.3 s): only those who use it pay for it.
        import cel

        self.source = source
        try:
            self._program = cel.compile(source)
        except ValueError as error:
            raise Misconfigured(f"the condition `{source}` does not parse: {error}") from error
        for variable in self._program.variables():
            if variable not in variables:
                close = get_close_matches(variable, variables, n=1) or [", ".join(variables)]
                raise Misconfigured(
                    f"the condition `{source}` names an unknown variable `{variable}`",
                    hint=f"did you mean {close[0]}?",
                )

    def holds(self, values: Mapping[str, Json], *, otherwise: bool) -> bool:
        """Whether it is true of these values; `otherwise` when it fails or gives no truth value."""
        try:
            answer = self._program.execute(dict(values))
        except Exception as error:
            log.warning("condition failed", condition=self.source, error=str(error))
            return otherwise
        return answer if isinstance(answer, bool) else otherwise
