"""Measure: what one side did in one round, and the figures that are read from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import quantiles


@dataclass(slots=True, kw_only=True)
class Measure:
    """One side in one round. Times are seconds, latencies milliseconds, sizes bytes; None: not measured.

    The CPU seconds of the Postgres server and of the broker are those of all their processes.
    """

    done: int
    seconds: float = 0.0
    client_cpu: float | None = None
    server_cpu: float | None = None
    broker_cpu: float | None = None
    wal: int | None = None
    dead_rows: int | None = None
    p50: float | None = None
    p99: float | None = None
    memory: int | None = None
    setting: str = ""
    """Which of a peer's settings this is."""

    def took(self, latencies: Sequence[float]) -> None:
        """Note the latencies (seconds) of the single things that were done."""
        cuts = quantiles(latencies, n=100, method="inclusive")
        self.p50, self.p99 = cuts[49] * 1000, cuts[98] * 1000


@dataclass(frozen=True, slots=True)
class Metric:
    """A figure of a Measure, and how it is written."""

    name: str
    form: str
    of: Callable[[Measure], float | None]

    def text(self, value: float | None) -> str:
        return "" if value is None else self.form.format(value)


def _each(total: float | None, measure: Measure) -> float | None:
    return None if total is None or not measure.done else total / measure.done


RATE = Metric("rate", "{:,.0f}/s", lambda m: m.done / m.seconds if m.seconds else None)
P50 = Metric("p50", "{:.2f} ms", lambda m: m.p50)
P99 = Metric("p99", "{:.2f} ms", lambda m: m.p99)
WAL = Metric("WAL", "{:,.0f} B", lambda m: _each(m.wal, m))
CLIENT_CPU = Metric("client", "{:,.0f} µs", lambda m: _each(m.client_cpu and m.client_cpu * 1e6, m))
SERVER_CPU = Metric("server", "{:,.0f} µs", lambda m: _each(m.server_cpu and m.server_cpu * 1e6, m))
BROKER_CPU = Metric("broker", "{:,.0f} µs", lambda m: _each(m.broker_cpu and m.broker_cpu * 1e6, m))
DEAD_ROWS = Metric("dead rows", "{:,.0f}", lambda m: m.dead_rows)
SECONDS = Metric("time", "{:.3f} s", lambda m: m.seconds)
MEMORY = Metric("memory", "{:,.1f} MB", lambda m: None if m.memory is None else m.memory / 1e6)
CORE = Metric("core", "{:.2%}", lambda m: m.client_cpu / m.seconds if m.client_cpu is not None else None)

PER_THING = (RATE, P50, P99, CLIENT_CPU, SERVER_CPU, BROKER_CPU, WAL, DEAD_ROWS)
"""The columns of a row whose sides do many things; CPU and WAL are per thing done."""
METRICS = {metric.name: metric for metric in (*PER_THING, SECONDS, CORE, MEMORY)}
"""By name."""
