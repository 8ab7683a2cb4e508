"""Expressions over an event that answer text: a record's key, and what else says where it goes."""

from __future__ import annotations

from ..core.errors import BadMessage
from ..core.event import LoggedEvent
from ..core.expression import Formula
from ..core.publish.relay import FILTER_VARIABLES, variables_of


class TextOfEvent:
    """A CEL expression, compiled once. Raises Misconfigured for one that cannot be used."""

    def __init__(self, name: str, source: str) -> None:
        self._name = name
        self._formula = Formula(name, source, variables=FILTER_VARIABLES)

    def __call__(self, event: LoggedEvent) -> str:
        """Raises BadMessage where the expression answers no text."""
        answer = self._formula.value(variables_of(event))
        if not isinstance(answer, str) or not answer:
            raise BadMessage(
                "no_key", f"the {self._name}'s expression answers {type(answer).__name__}, not text"
            )
        return answer
