"""Rows: one file a group of them; ROWS is their order in the table."""

from __future__ import annotations

from ..row import Row
from . import drain, enqueue

ROWS: list[Row] = [*enqueue.ROWS, *drain.ROWS]
