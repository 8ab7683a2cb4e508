"""Rows: one file a group of them; ROWS is their order in the table."""

from __future__ import annotations

from ..row import Row
from . import drain, enqueue, footprint, kafka, kafka_sink, pickup, rabbitmq, sqs, wal, webhooks

ROWS: list[Row] = [
    row
    for room in (enqueue, drain, pickup, rabbitmq, kafka, sqs, webhooks, kafka_sink, wal, footprint)
    for row in room.ROWS
]
