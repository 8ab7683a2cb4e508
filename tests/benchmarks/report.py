"""docs/performance.md anew: every figure and chart of it from the record, its own words left as they are.

What stands between `<!-- NAME -->` and `<!-- /NAME -->` is written here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median

from hammerwork.core.job import Json

from .charts import draw_growth, draw_row
from .measure import CLIENT_CPU, METRICS, P50, P99, RATE, SERVER_CPU, WAL, Measure, Metric
from .peers import PEERS
from .record import Record
from .row import OURS

PAGE = Path("docs/performance.md")
CHARTS = Path("docs/charts")

LESS_IS_BETTER = (P50, P99, CLIENT_CPU, SERVER_CPU, WAL)


def write_report(record: Record) -> None:
    """Raises ValueError where the page lacks a mark."""
    parts = {
        "machine": _machine(record.rows | record.growth),
        "bars": _bars(record.rows),
        "ahead": _ahead(record.rows),
        "rows": _rows(record.rows),
        "growth": _growth(record.growth),
    }
    text = PAGE.read_text(encoding="utf-8")
    for name, lines in parts.items():
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        _, end, after = rest.partition(f"<!-- /{name} -->")
        if not mark or not end:
            raise ValueError(f"{PAGE} has no part {name!r}")
        text = "\n".join([before + mark, *lines, "", end + after])
    PAGE.write_text(text, encoding="utf-8")


def _machine(measured: dict[str, Json]) -> Iterator[str]:
    """One line for every machine and set of versions, the newest first."""
    runs: dict[str, list[str]] = {}
    for name, part in sorted(measured.items(), key=lambda item: item[1]["at"], reverse=True):
        where = ", ".join(part["machine"].values())
        versions = ", ".join(f"{name} {version}" for name, version in part["versions"].items())
        runs.setdefault(f"{part['at'][:10]}: {where}. {versions}.", []).append(name)
    for where, names in runs.items():
        yield f"- {where} ({', '.join(names)})"


def _bars(rows: dict[str, Json]) -> Iterator[str]:
    yield "| row | bar | measured | |"
    yield "|---|---|---|---|"
    for name, row in rows.items():
        for bar in row["bars"]:
            yield f"| {name} | {bar['what']} {bar['limit']} | {bar['figure']} | {bar['word']} |"


def _ahead(rows: dict[str, Json]) -> Iterator[str]:
    """Every figure in which the median of a peer is better than ours in the same row."""
    peers, found = {peer.name for peer in PEERS}, False
    for row in rows.values():
        for side in (side for side in row["rounds"] if side in peers):
            for metric in (RATE, *LESS_IS_BETTER):
                theirs, ours = (_median(metric, row["rounds"].get(who, ())) for who in (side, OURS))
                if theirs is None or ours is None:
                    continue
                if theirs > ours if metric is RATE else theirs < ours:
                    found = True
                    figures = f"{metric.name} {metric.text(theirs)}, ours {metric.text(ours)}"
                    yield f"- {side}, {row['title']}: {figures}"
    if not found:
        yield "In none of these figures."


def _rows(rows: dict[str, Json]) -> Iterator[str]:
    for name, row in rows.items():
        columns = [METRICS[column] for column in row["columns"]]
        columns = [c for c in columns if any(_median(c, r) is not None for r in row["rounds"].values())]
        draw_row(name, row, CHARTS)
        yield f"### {row['title']}\n"
        yield f"![{row['title']}](charts/{name}.svg)\n"
        yield "| | " + " | ".join(column.name for column in columns) + " |"
        yield "|---|" + "---:|" * len(columns)
        for side, rounds in row["rounds"].items():
            setting = f" ({rounds[-1]['setting']})" if rounds[-1]["setting"] else ""
            figures = " | ".join(column.text(_median(column, rounds)) for column in columns)
            yield f"| {side}{setting} | {figures} |"
        for side, reason in row["absent"].items():
            yield f"\n{side} was not measured: {reason}"
        yield ""


def _growth(experiments: dict[str, Json]) -> Iterator[str]:
    for name, growth in experiments.items():
        yield f"### {growth['title']}\n"
        for chart in draw_growth(name, growth, CHARTS):
            yield f"![{growth['title']}](charts/{chart.name})\n"
        points = growth["points"]
        if len(points) > 12:
            continue  # the chart tells it
        names = list(points[0]["figures"])
        yield f"| {growth['grows']} | " + " | ".join(names) + " |"
        yield "|---|" + "---:|" * len(names)
        for point in points:
            yield f"| {point['at']} | " + " | ".join(_figure(point["figures"][n]) for n in names) + " |"
        yield ""


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:,.0f}" if value >= 100 else f"{value:,.2f}"


def _median(metric: Metric, rounds: Sequence[Json]) -> float | None:
    values = [value for value in (metric.of(Measure(**m)) for m in rounds) if value is not None]
    return median(values) if values else None
