"""Runs as tables for the terminal; digits are fixed, so the same run prints the same table."""

from __future__ import annotations

from collections.abc import Iterable
from statistics import fmean, stdev
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from upath import UPath

from tsalign.report.summary import (
    evaluations,
    exact_match,
    failure,
    headline,
    last_evaluations,
    prompts_done,
    results,
    summarise,
)

COLOURS = {"running": "cyan", "done": "green", "failed": "red", "stopped": "yellow"}


def run_table(run_dir: UPath) -> RenderableType:
    """One run: scores and win rate per evaluation set, then lengths, agreement and teacher evaluations."""
    summary, evaluated = summarise(run_dir), evaluations(run_dir)
    title = f"{summary['run']} · {summary['recipe']} · {_status(summary['status'])}"
    if right := exact_match(run_dir):
        return Group(_shots(title, right), *_cost(summary))
    if not evaluated:
        why = escape(failure(run_dir) or "no iteration evaluated yet")
        return Group(title, why, f"{summary['seconds']:.0f} seconds so far")
    return Group(_sets(title, evaluated), *_lines(run_dir, summary, evaluated))


def runs_table(runs: Iterable[dict[str, Any]]) -> Table:
    """All runs of a storage folder, one a row."""
    table = _table("run", "recipe", "status", "started", "iterations", "win rate")
    for line in runs:
        started = line["started"][:16].replace("T", " ")
        done, won = str(line["iterations_done"]), _percent(line["win_rate"])
        table.add_row(line["run"], line["recipe"], _status(line["status"]), started, done, won)
    return table


def variants_table(variants: dict[str, list[UPath]]) -> Table:
    """Variants of one config side by side, each with its runs: the mean, and the spread where there are several."""
    found = {name: [results(folder) for folder in folders] for name, folders in variants.items()}
    columns = list(dict.fromkeys(key for runs in found.values() for result in runs for key in result))
    table = _table("variant", *columns, at=1)
    for name, runs in found.items():
        table.add_row(name, *(_spread([result[key] for result in runs if key in result]) for key in columns))
    return table


def _spread(values: list[Any]) -> str:
    """Mean ± sample standard deviation; rates in percent."""
    if None in values or not values:
        return "-"
    if isinstance(values[0], int):
        return f"{fmean(values):,.0f}"
    if len(values) == 1:
        return _percent(values[0])
    return f"{100 * fmean(values):.1f} ± {100 * stdev(values):.1f} %"


def _sets(title: str, evaluated: list[dict[str, Any]]) -> Table:
    last = evaluated[-1]
    base, policy, won = last["scores"]["base"], last["scores"]["policy"], headline(last)
    table = _table("set", "base score", "policy score", "win rate", "95 % CI", at=1)
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    for name in sorted(base):
        table.add_row(name, f"{base[name]:.3f}", f"{policy[name]:.3f}", _percent(won["by_set"][name]), "")
    low, high = won["ci95"]
    table.add_section()
    means = [f"{sum(scores.values()) / len(scores):.3f}" for scores in (base, policy)]
    table.add_row("mean", *means, _percent(won["mean"]), f"{100 * low:.1f} - {100 * high:.1f} %", style="bold")
    return table


def _shots(title: str, right: dict[str, dict[str, Any]]) -> Table:
    """Exact match by task, a column for each number of shots."""
    table = _table("task", *(f"{shots}-shot" for shots in right), at=1)
    table.title, table.title_justify, table.title_style = title, "left", "bold"
    for task in sorted(next(iter(right.values()))["by_task"]):
        table.add_row(task, *(_percent(rate["by_task"][task]) for rate in right.values()))
    table.add_section()
    table.add_row("mean", *(_percent(rate["mean"]) for rate in right.values()), style="bold")
    return table


def _lines(run_dir: UPath, summary: dict[str, Any], evaluated: list[dict[str, Any]]) -> list[str]:
    last = evaluated[-1]
    others = [
        f"{_percent(rate['mean'])} at {t}" for t, rate in last["win_rate"].items() if float(t) != last["temperature"]
    ]
    steps = [
        f"{name.removeprefix('evaluation_'):<19} {_percent(headline(found)['mean'])}"
        for name, found in last_evaluations(run_dir).items()
        if name != "evaluation"
    ]
    tokens = last["tokens"]
    return [
        f"iterations          {len(evaluated)}, sampled at temperature {last['temperature']:g}",
        *([f"other temperatures  {', '.join(others)}"] if others else []),
        *steps,
        f"mean tokens         {tokens['base']:.1f} -> {tokens['policy']:.1f}",
        *_agreement(evaluated),
        *_cost(summary, prompts_done(run_dir)),
    ]


def _agreement(evaluated: list[dict[str, Any]]) -> list[str]:
    if "agreement" not in evaluated[0]:
        return []
    agreement = [found["agreement"]["fixed"]["teacher"] for found in evaluated]
    return [f"student ~ teacher   {_score(agreement[0]['before'])} -> {_score(agreement[-1]['after'])}"]


def _cost(summary: dict[str, Any], prompts: int = 0) -> list[str]:
    calls = sum(iteration["teacher_calls"] for iteration in summary["iterations"])
    each = f" ({calls / prompts:.2f} per prompt)" if prompts else ""
    return [f"teacher evaluations {calls:,}{each}"] if calls else []


def _table(*columns: str, at: int = 4) -> Table:
    """A plain table whose columns from `at` on hold numbers."""
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for position, name in enumerate(columns):
        table.add_column(name, justify="right" if position >= at else "left", no_wrap=position == 0)
    return table


def _score(number: float | None) -> str:
    return "-" if number is None else f"{number:.3f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _status(status: str) -> str:
    return f"[{COLOURS[status]}]{status}[/]"
