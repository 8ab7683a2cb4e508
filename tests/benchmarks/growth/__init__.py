"""Growth: the same work with more of everything, and over time. No bars; a series of points and its chart."""

from __future__ import annotations

from collections.abc import Mapping

from .series import Experiment
from .steady import HELD, SOAK
from .steps import BACKLOG, PAYLOAD, PROCESSES, QUEUES

EXPERIMENTS: Mapping[str, Experiment] = {
    experiment.name: experiment for experiment in (BACKLOG, QUEUES, PAYLOAD, PROCESSES, HELD, SOAK)
}
