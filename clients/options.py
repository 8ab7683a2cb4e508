"""Options that several brokers have in common, and the habits of all of them."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Options(BaseModel):
    """Unknown keys are refused, nothing changes after validation, and no error quotes what was given."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, hide_input_in_errors=True)
