"""The table on standard output: a row's sides with their figures, then its bars."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from statistics import median

from .growth.series import Point
from .measure import Measure, Metric
from .suite import Outcome


def table(outcome: Outcome) -> str:
    """The row as lines: medians, with the spread of the first column."""
    row = outcome.row
    columns = [
        c for c in row.columns if any(_median(c, rounds) is not None for rounds in outcome.rounds.values())
    ]
    lines = [["", *(column.name for column in columns), ""]]
    for name, rounds in outcome.rounds.items():
        lines.append([name, *(c.text(_median(c, rounds)) for c in columns), _remark(columns[0], rounds)])
    lines += [[name, reason] for name, reason in outcome.absent.items()]
    return "\n".join([f"{row.name}: {row.title}", *_aligned(lines), *_bars(outcome), ""])


def points_table(points: Sequence[Point], *, last: bool = False) -> str:
    """The points as lines, or the last of them, with the head before the first."""
    names = list(points[0].figures)
    lines = [
        f"{point.at:>12}" + "".join(_cell(point.figures.get(name)) for name in names) for point in points
    ]
    head = " " * 12 + "".join(f"{name:>15}" for name in names)
    if last and len(points) > 1:
        return lines[-1]
    return "\n".join([head, *lines])


def _cell(value: float | None) -> str:
    return " " * 15 if value is None else f"{value:>15,.2f}"


def _median(metric: Metric, rounds: Sequence[Measure]) -> float | None:
    values = [value for value in map(metric.of, rounds) if value is not None]
    return median(values) if values else None


def _remark(metric: Metric, rounds: Sequence[Measure]) -> str:
    values = [value for value in map(metric.of, rounds) if value is not None]
    spread = f"{metric.text(min(values))} to {metric.text(max(values))}"
    return f"{spread}  {rounds[-1].setting}".rstrip()


def _aligned(lines: Sequence[Sequence[str]]) -> Iterator[str]:
    full = [line for line in lines if len(line) == len(lines[0])]
    widths = [max(len(line[column]) for line in full) for column in range(len(lines[0]))]
    widths[0] = max(len(line[0]) for line in lines)
    for line in lines:
        if len(line) == len(widths):
            cells = [text.rjust(width) for text, width in zip(line[1:-1], widths[1:-1], strict=True)]
            yield "  ".join(["", line[0].ljust(widths[0]), *cells, line[-1]]).rstrip()
        else:
            yield f"  {line[0].ljust(widths[0])}  absent: {line[1]}"


def _bars(outcome: Outcome) -> Iterator[str]:
    for verdict in outcome.verdicts:
        yield f"  {verdict.word:<6}  {verdict.what} {verdict.figure}, {verdict.limit}"
