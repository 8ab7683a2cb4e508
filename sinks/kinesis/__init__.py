"""Kinesis out: events as records of a data stream, those of a job in order, one by one or aggregated."""

from .options import KinesisOptions as KinesisOptions
from .sink import KinesisSink as KinesisSink
