"""Charts as SVG: the sides of a row as bars, the figures of an experiment as lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from xml.etree import ElementTree

import pygal
from pygal.style import CleanStyle

from hammerwork.core.job import Json

from .measure import METRICS, Measure
from .row import OURS

PEER, OWN = "#9aa5b1", "#d9480f"
LINES = (OWN, "#1c7ed6", "#2b8a3e", "#862e9c")


def draw_row(name: str, row: Json, folder: Path) -> Path:
    """The first figure of every side: the median of its rounds. Ours stands out."""
    metric = METRICS[row["columns"][0]]
    chart = pygal.HorizontalBar(
        title=f"{row['title']}: {metric.name}",
        style=_style(), show_legend=False, print_values=True, print_values_position="top",
        value_formatter=lambda value: metric.text(value), height=120 + 40 * len(row["rounds"]), **_PLAIN,
    )  # fmt: skip
    # Bars of this library grow upwards.
    sides = list(reversed(row["rounds"].items()))
    chart.x_labels = [side for side, _ in sides]
    chart.add(
        metric.name,
        [
            {"value": _middle(metric.name, rounds), "color": OWN if side.startswith(OURS) else PEER}
            for side, rounds in sides
        ],
    )
    return _render(chart, folder / f"{name}.svg")


def draw_growth(name: str, growth: Json, folder: Path) -> list[Path]:
    """One chart a unit."""
    drawn = []
    for unit, figures in growth["charts"].items():
        points = growth["points"]
        chart = pygal.Line(
            title=f"{growth['title']}: {unit}", x_title=growth["grows"], style=_style(), dots_size=3,
            x_labels_major_count=12, show_minor_x_labels=len(points) <= 12, legend_at_bottom=True,
            value_formatter=lambda value: f"{value:,.6g}", range=(0, _top(points, figures)), **_PLAIN,
        )  # fmt: skip
        chart.x_labels = [point["at"] for point in points]
        for figure in figures:
            chart.add(figure, [point["figures"].get(figure) for point in points])
        suffix = "" if len(growth["charts"]) == 1 else "-" + unit.replace("/", "-").replace(" ", "-")
        drawn.append(_render(chart, folder / f"growth-{name}{suffix}.svg"))
    return drawn


_PLAIN = {"js": (), "explicit_size": True, "width": 720}


def _style() -> CleanStyle:
    return CleanStyle(
        font_family="sans-serif", colors=LINES, title_font_size=15, label_font_size=12,
        major_label_font_size=12, value_font_size=12, legend_font_size=12, background="#ffffff",
        plot_background="#ffffff",
    )  # fmt: skip


def _middle(metric: str, rounds: Sequence[Json]) -> float | None:
    values = [value for value in (METRICS[metric].of(Measure(**m)) for m in rounds) if value is not None]
    return median(values) if values else None


def _top(points: Sequence[Json], figures: Sequence[str]) -> float:
    values = [point["figures"].get(figure) or 0.0 for point in points for figure in figures]
    return max(values, default=1.0) * 1.05 or 1.0


def _render(chart: pygal.Graph, path: Path) -> Path:
    chart.uuid = path.stem  # and not a new one each time, so that a picture changes when its figures do
    picture = chart.render_tree()
    for parent in list(picture.iter()):
        # It is shown as an image, where no script runs.
        for script in parent.findall("script"):
            parent.remove(script)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(ElementTree.tostring(picture))
    return path
