"""A run as one picture: win rate, scores by set, student agreement, and where the time went."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import partial
from math import ceil
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter
from upath import UPath

from tsalign.report.summary import evaluations, exact_match, stage_seconds, summarise

INK, FAINT, BASE = "#22262e", "#d9dce3", "#b6bcc8"
COLOURS = ("#2f6fde", "#e07b39", "#2a9d78", "#8f5bd0", "#d14b6f", "#c9a227", "#4fb0c6", "#7c8594", "#a0643c", "#8fb339")
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


def plot_run(run_dir: UPath) -> UPath:
    """Draw `report.png` in the run directory: a panel for each thing that there is to show so far."""
    summary, evaluated = summarise(run_dir), evaluations(run_dir)
    panels: list[Callable[[Axes], None]] = []
    if evaluated:
        panels += [partial(_win_rate, evaluated=evaluated), partial(_scores, last=evaluated[-1])]
    if evaluated and "agreement" in evaluated[-1]:
        panels.append(partial(_agreement, evaluated=evaluated))
    if right := exact_match(run_dir):
        panels.append(partial(_exact_match, right=right, before=exact_match(run_dir, "baseline")))
    if summary["iterations"]:
        panels.append(partial(_seconds, iterations=summary["iterations"]))
    else:
        panels.append(partial(_run_seconds, seconds=stage_seconds(run_dir)))
    rows = ceil(len(panels) / 2)
    with matplotlib.rc_context(STYLE):
        spaced = ConstrainedLayoutEngine(w_pad=0.15, h_pad=0.15, wspace=0.04, hspace=0.06)
        figure = Figure(figsize=(12, 4 * rows), dpi=120, layout=spaced)
        figure.suptitle(f"{summary['run']}  ({summary['recipe']})", x=0.015, ha="left", size=15, weight="bold")
        places = figure.subplots(rows, 2, squeeze=False).flat
        for draw in panels:
            draw(next(places))
        for unused in places:
            unused.set_axis_off()
        return _save(figure, run_dir / "report.png")


def _win_rate(axes: Axes, evaluated: list[dict[str, Any]]) -> None:
    rounds = [found["iteration"] for found in evaluated]
    for place, temperature in enumerate(evaluated[-1]["win_rate"]):
        colour, beside = COLOURS[place], [number + 0.02 * place for number in rounds]
        rates = [found["win_rate"][temperature] for found in evaluated]
        low, high = zip(*(rate["ci95"] for rate in rates))
        axes.vlines(beside, low, high, color=colour, alpha=0.5, linewidth=1.5)
        axes.fill_between(beside, low, high, color=colour, alpha=0.12, linewidth=0)
        axes.plot(beside, [rate["mean"] for rate in rates], "o-", color=colour, label=f"temperature {temperature}")
    axes.axhline(0.5, color=INK, linewidth=1, linestyle=(0, (4, 3)))
    axes.set_title("Win rate against the initial policy")
    _rounds(axes, rounds)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, columns=3)


def _scores(axes: Axes, last: dict[str, Any]) -> None:
    names = sorted(last["scores"]["base"])
    for shift, who, colour in ((-0.2, "base", BASE), (0.2, "policy", COLOURS[0])):
        heights = [last["scores"][who][name] for name in names]
        bars = axes.bar([x + shift for x in range(len(names))], heights, 0.38, color=colour, label=who)
        axes.bar_label(bars, fmt="%.2f", size=8, padding=2)
    axes.set_xticks(range(len(names)), names)
    axes.tick_params(axis="x", rotation=30 if len(names) > 8 else 0)
    axes.set_title(f"Judge's score by set, iteration {last['iteration']}")
    axes.margins(y=0.15)
    _legend(axes, columns=2)


def _agreement(axes: Axes, evaluated: list[dict[str, Any]]) -> None:
    rounds = [found["iteration"] for found in evaluated]
    looks: dict[str, dict[str, Any]] = {
        "before": {"linestyle": (0, (3, 2)), "markerfacecolor": "white"},
        "after": {"linestyle": "-"},
    }
    for colour, (pairs, label) in zip(COLOURS, (("fixed", "base policy's pairs"), ("newest", "newest pairs"))):
        for when, look in looks.items():
            shares = [found["agreement"][pairs]["teacher"][when] for found in evaluated]
            axes.plot(rounds, shares, marker="o", color=colour, label=f"{label}, {when} distilling", **look)
    axes.set_title("Student's agreement with the teacher")
    _rounds(axes, rounds)
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    _legend(axes, columns=2)


def _exact_match(axes: Axes, right: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]) -> None:
    tasks = sorted(next(iter(right.values()))["by_task"])
    bars = [(f"{shots}-shot, before", rate, BASE) for shots, rate in list(before.items())[:1]]
    bars += [(f"{shots}-shot", rate, colour) for (shots, rate), colour in zip(right.items(), COLOURS)]
    width = 0.8 / len(bars)
    for place, (label, rate, colour) in enumerate(bars):
        heights = [rate["by_task"][task] for task in tasks]
        beside = [x + (place - (len(bars) - 1) / 2) * width for x in range(len(tasks))]
        drawn = axes.bar(beside, heights, 0.95 * width, color=colour, label=label)
        axes.bar_label(drawn, labels=[f"{100 * height:.0f}" for height in heights], size=7, padding=2)
    axes.set_xticks(range(len(tasks)), tasks)
    axes.set_title("Exact match on the test sets")
    axes.yaxis.set_major_formatter(PercentFormatter(1))
    axes.margins(y=0.15)
    _legend(axes, columns=3)


def _run_seconds(axes: Axes, seconds: dict[str, float]) -> None:
    stages = list(reversed(seconds.items()))
    axes.barh([stage for stage, _ in stages], [spent for _, spent in stages], color=COLOURS[0])
    axes.grid(axis="x")
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", labelsize=8)
    axes.set_title("Seconds by stage")


def _seconds(axes: Axes, iterations: list[dict[str, Any]]) -> None:
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


def _save(figure: Figure, path: UPath) -> UPath:
    """Through memory, so that any filesystem will do."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    path.write_bytes(buffer.getvalue())
    return path
