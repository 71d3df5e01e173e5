"""A run as one picture: what its stages report as curves and bars, and where the time went."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from itertools import cycle
from math import ceil, nan
from textwrap import wrap
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter
from upath import UPath

from tsalign.report.attempts import stage_seconds
from tsalign.report.summary import (
    IterationSummary,
    Reports,
    last_reports,
    read_reports,
    summarise_run,
)
from tsalign.runs.report import Panel, Table

INK, FAINT, BASE, ALARM = "#22262e", "#d9dce3", "#b6bcc8", "#b3261e"
COLOURS = (
    *("#2f6fde", "#e07b39", "#2a9d78", "#8f5bd0", "#d14b6f", "#c9a227", "#4fb0c6", "#7c8594", "#a0643c", "#8fb339"),
    *("#27457f", "#e59ac0"),  # an iteration of TS-Align has eleven stages
)
STYLE: dict[Any, Any] = {
    "font.size": 10,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11.5,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 2.0,
    "lines.markersize": 6,
}


class Picture(Figure):
    """A figure that a notebook shows by itself, whichever of its backends is set."""

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.savefig(buffer, format="png", facecolor="white")
        return buffer.getvalue()


def plot_run(run_dir: UPath) -> UPath:
    """Draw `report.png` in the run directory; see `draw_run`."""
    path = run_dir / "report.png"
    path.write_bytes(draw_run(run_dir)._repr_png_())  # through memory, so that any filesystem will do
    return path


def draw_run(run_dir: UPath) -> Picture:
    """A run as one picture: the curves and bars that stages report so far, and the seconds."""
    summary, reports = summarise_run(run_dir), read_reports(run_dir)
    panels: list[Callable[[Axes], None]] = []
    for report in last_reports(reports):
        panels += [partial(_curves, title=title, points=_over_iterations(reports, title)) for title in report.panels]
        if report.table and report.table.chart:
            panels.append(partial(_bars, table=report.table))
    if summary["iterations"]:
        panels.append(partial(_seconds, iterations=summary["iterations"]))
    else:
        panels.append(partial(_run_seconds, seconds=stage_seconds(run_dir)))
    rows = ceil(len(panels) / 2)
    with matplotlib.rc_context(STYLE):
        spaced = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15, wspace=0.04, hspace=0.06)
        figure = Picture(figsize=(12, 4 * rows), dpi=120, layout=spaced)
        figure.suptitle(f"{summary['run']}  ({summary['recipe']})", x=0.015, ha="left", size=15, weight="bold")
        _warnings(figure, summary["warnings"])
        places = figure.subplots(rows, 2, squeeze=False).flat
        for draw in panels:
            draw(next(places))
        for unused in places:
            unused.set_axis_off()
        return figure


def _warnings(figure: Figure, warnings: list[str]) -> None:
    """Below all panels: `supxlabel` is the one other place that the layout keeps free."""
    lines = [line for warning in warnings for line in wrap(f"warning: {warning}", 170)]
    if lines:
        figure.supxlabel("\n".join(lines), x=0.015, ha="left", size=10, color=ALARM)


def _over_iterations(reports: Reports, title: str) -> dict[int, Panel]:
    """Iteration -> its points of a panel."""
    return {
        number: report.panels[title]
        for number, stages in sorted(reports.items())
        for report in stages.values()
        if title in report.panels
    }


def _curves(axes: Axes, title: str, points: dict[int, Panel]) -> None:
    *_, last = points.values()
    for place, label in enumerate(last.points):
        own = {number: panel.points[label] for number, panel in points.items() if label in panel.points}
        colour, beside = COLOURS[place % len(COLOURS)], [number + 0.02 * place for number in own]
        low, high = zip(*(point.ci95 or (nan, nan) for point in own.values()))
        axes.vlines(beside, low, high, color=colour, alpha=0.5, linewidth=1.5)
        axes.fill_between(beside, low, high, color=colour, alpha=0.12, linewidth=0)
        before = [nan if point.before is None else point.before for point in own.values()]
        after = [nan if point.value is None else point.value for point in own.values()]
        if any(point.before is not None for point in own.values()):
            look: dict[str, Any] = {"linestyle": (0, (3, 2)), "marker": "o", "markerfacecolor": "white"}
            axes.plot(beside, before, color=colour, label=f"{label}, before", **look)
            label += ", after"
        axes.plot(beside, after, "o-", color=colour, label=label)
    if last.chance is not None:
        axes.axhline(last.chance, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    if last.percent:
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_title(title)
    _rounds(axes, list(points))
    compared = any(point.before is not None for point in last.points.values())
    _legend(axes, columns=2 if compared or len(last.points) == 2 else 3)


def _bars(axes: Axes, table: Table) -> None:
    drawn = [column for column in table.columns.values() if column.bar]
    names = list(dict.fromkeys(name for column in drawn for name in column.values))
    colours = (BASE, *COLOURS) if len(drawn) > 1 else COLOURS
    width = 0.8 / len(drawn)
    for place, (column, colour) in enumerate(zip(drawn, cycle(colours))):
        heights = [nan if (value := column.values.get(name)) is None else value for name in names]
        beside = [x + (place - (len(drawn) - 1) / 2) * width for x in range(len(names))]
        bars = axes.bar(beside, heights, 0.95 * width, color=colour, label=column.bar)
        numbers = [f"{100 * height:.0f}" if column.percent else f"{height:.2f}" for height in heights]
        axes.bar_label(bars, labels=numbers, size=7 if len(drawn) > 2 else 8, padding=2)
    if all(column.percent for column in drawn):
        axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.set_xticks(range(len(names)), names)
    axes.set_xlim(-0.5, len(names) - 0.5)
    axes.tick_params(axis="x", rotation=30 if len(names) > 8 else 0)
    axes.set_title(table.chart)
    axes.margins(y=0.15)
    _legend(axes, columns=3)


def _run_seconds(axes: Axes, seconds: dict[str, float]) -> None:
    stages = list(reversed(seconds.items()))
    axes.barh([stage for stage, _ in stages], [spent for _, spent in stages], color=COLOURS[0])
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("Seconds by stage")


def _seconds(axes: Axes, iterations: list[IterationSummary]) -> None:
    rounds = [found["iteration"] for found in iterations]
    stages = dict.fromkeys(stage for found in iterations for stage in found["seconds"])
    bottom = [0.0] * len(rounds)
    for number, stage in enumerate(stages):
        spent = [found["seconds"].get(stage, 0.0) for found in iterations]
        axes.bar(rounds, spent, 0.55, bottom=bottom, color=COLOURS[number % len(COLOURS)], label=stage)
        bottom = [below + height for below, height in zip(bottom, spent)]
    axes.set_title("Seconds by stage")
    _rounds(axes, rounds, margin=0.6)
    _legend(axes, columns=4)


def _rounds(axes: Axes, rounds: list[int], margin: float = 0.25) -> None:
    axes.set_xlabel("iteration")
    axes.set_xticks(rounds[:: 1 + len(rounds) // 15])
    axes.set_xlim(rounds[0] - margin, rounds[-1] + margin)


def _legend(axes: Axes, columns: int) -> None:
    """Below the panel, where no curve can run through it."""
    axes.legend(loc="upper left", bbox_to_anchor=(-0.02, -0.15), ncols=columns)
