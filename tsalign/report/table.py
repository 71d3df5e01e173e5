"""Runs as tables for the terminal; digits are fixed, so the same run prints the same table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean, stdev
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from upath import UPath

from tsalign.report.cost import NOTHING, Cost, cost_of_run
from tsalign.report.summary import Reports, failure, last_reports, read_reports, results, summarise_run
from tsalign.runs import report
from tsalign.runs.report import percent

COLOURS = {"running": "cyan", "done": "green", "failed": "red", "stopped": "yellow", "damaged": "red"}


def run_table(run_dir: UPath) -> RenderableType:
    """One run: the tables and lines that its last stages report, the trends, and what it asked of its models."""
    summary, reports = summarise_run(run_dir), read_reports(run_dir)
    title, last = f"{summary['run']} · {summary['recipe']} · {_status(summary['status'])}", last_reports(reports)
    warned = [f"[yellow]{escape(f'warning: {line}')}[/]" for line in summary["warnings"]]
    anew = [_line("done anew", f"{stage}: {why}") for stage, why in summary["anew"].items()]
    if not summary["results"]:
        why = escape(failure(run_dir) or "no results yet")
        return Group(title, why, *warned, *anew, f"{summary['seconds']:.0f} seconds so far", *_cost(summary["cost"]))
    tables = [_reported(found.table) for found in last if found.table]
    lines = [_line(label, text) for found in last for label, text in found.lines.items()]
    samples = [line for found in last for number, one in enumerate(found.samples, 1) for line in _sample(number, one)]
    told: list[RenderableType] = [*tables, *warned, *lines, *_trends(reports), *anew, *samples]
    return Group(f"[bold]{title}[/]", *told, *_cost(summary["cost"]))


def runs_table(runs: Iterable[dict[str, Any]]) -> Table:
    """All runs of a storage folder, one a row, each with its headline."""
    table = _table("run", "recipe", "status", "started", "iterations", "result")
    for line in runs:
        started, done = line["started"][:16].replace("T", " "), str(line["iterations_done"])
        headline = next((f"{name} {_result(value)}" for name, value in line["results"].items()), None)
        headline = headline or escape(line.get("error", "-"))
        table.add_row(line["run"], line["recipe"], _status(line["status"]), started, done, headline)
    return table


def variants_table(variants: dict[str, list[UPath]]) -> Table:
    """Variants of one config side by side, each with its runs: the mean, and the spread where there are several."""
    found = {name: [_compared(folder) for folder in folders] for name, folders in variants.items()}
    columns = list(dict.fromkeys(key for runs in found.values() for result in runs for key in result))
    table = _table("variant", *columns, at=1)
    for name, runs in found.items():
        table.add_row(name, *(_spread([result[key] for result in runs if key in result]) for key in columns))
    return table


def _compared(run_dir: UPath) -> dict[str, int | float]:
    """A run's results, and how often the alignment asked the teacher."""
    asked = cost_of_run(run_dir)["alignment"].get("teacher", NOTHING)
    return results(last_reports(read_reports(run_dir))) | {"teacher calls": asked["calls"]}


def _spread(values: Sequence[int | float]) -> str:
    """Mean ± sample standard deviation; of amounts the mean alone."""
    if not values:
        return "-"
    if isinstance(values[0], int):
        return _result(round(fmean(values)))
    return _result(values[0]) if len(values) == 1 else f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f} %"


def _result(value: int | float) -> str:
    """Rates are floats, amounts whole numbers."""
    return f"{value:,}" if isinstance(value, int) else percent(value)


def _reported(reported: report.Table) -> Table:
    """A stage's table; a column whose mean has an interval is followed by it."""
    names = list(dict.fromkeys(row for column in reported.columns.values() for row in column.values))
    headers, columns = [reported.rows], [[*map(escape, names), "mean"]]
    for name, column in reported.columns.items():
        show = percent if column.percent else _score
        headers.append(name)
        columns.append([*(show(column.values.get(row)) for row in names), show(column.mean)])
        if column.ci95:
            headers.append("95 % CI")
            columns.append([*[""] * len(names), _interval(*column.ci95, column.percent)])
    *rows, mean = zip(*columns)
    table = _table(*headers, at=1)
    for cells in rows:
        table.add_row(*cells)
    if any(column.mean is not None for column in reported.columns.values()):
        table.add_section()
        table.add_row(*mean, style="bold")
    return table


def _trends(reports: Reports) -> list[str]:
    """What the first iteration had before and the last one after."""
    trends = [item for number in sorted(reports) for found in reports[number].values() for item in found.trends.items()]
    first, last = dict(reversed(trends)), dict(trends)
    return [_line(label, _change(first[label].before, trend)) for label, trend in last.items()]


def _change(before: float | None, trend: report.Trend) -> str:
    show = percent if trend.percent else _score
    return f"{show(before)} -> {show(trend.after)}"


def _sample(number: int, sample: report.Sample) -> list[str]:
    """A prompt, and its answers before and after."""
    told = {f"sample {number}": sample.prompt, "  before": sample.before, "  after": sample.after}
    return [_line(label, text) for label, text in told.items()]


def _cost(cost: Cost) -> list[RenderableType]:
    """A row for each model by its role; what only measures the run stands apart."""
    roles = list(dict.fromkeys([*cost["alignment"], *cost["measuring"]]))
    table = _table("model", "calls", "per prompt", "tokens", "calls to measure", "tokens to measure", at=1)
    for role in roles:
        asked, measuring = cost["alignment"].get(role, NOTHING), cost["measuring"].get(role, NOTHING)
        each = f"{asked['calls'] / cost['prompts']:.2f}" if cost["prompts"] else "-"
        spent = [_amount(amount) for amount in (asked["tokens"], measuring["calls"], measuring["tokens"])]
        table.add_row(escape(role), f"{asked['calls']:,}", each, *spent)
    return ["", table] if roles else []


def _table(*columns: str, at: int = 4) -> Table:
    """A plain table whose columns from `at` on hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for position, name in enumerate(columns):
        table.add_column(escape(name), justify="right" if position >= at else "left", no_wrap=position == 0)
    return table


def _line(label: str, text: str) -> str:
    return escape(f"{label:<19} {text}")


def _interval(low: float, high: float, in_percent: bool) -> str:
    return f"{100 * low:.1f} - {100 * high:.1f} %" if in_percent else f"{low:.3f} - {high:.3f}"


def _amount(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"


def _score(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _status(status: str) -> str:
    return f"[{COLOURS[status]}]{status}[/]"
