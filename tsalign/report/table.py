"""Runs as tables for the terminal; digits are fixed, so the same run prints the same table."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from upath import UPath

from tsalign.report.summary import evaluations, failure, headline, prompts_done, summarise

COLOURS = {"running": "cyan", "done": "green", "failed": "red", "stopped": "yellow"}


def run_table(run_dir: UPath) -> RenderableType:
    """One run: scores and win rate per evaluation set, then lengths, agreement and teacher evaluations."""
    summary, evaluated = summarise(run_dir), evaluations(run_dir)
    title = f"{summary['run']} · {summary['recipe']} · {_status(summary['status'])}"
    if not evaluated:
        why = escape(failure(run_dir) or "no iteration evaluated yet")
        return Group(title, why, f"{summary['seconds']:.0f} seconds so far")
    return Group(_sets(title, evaluated), *_lines(summary, evaluated, prompts_done(run_dir)))


def runs_table(runs: Iterable[dict[str, Any]]) -> Table:
    """All runs of a storage folder, one a row."""
    table = _table("run", "recipe", "status", "started", "iterations", "win rate")
    for line in runs:
        started = line["started"][:16].replace("T", " ")
        done, won = str(line["iterations_done"]), _percent(line["win_rate"])
        table.add_row(line["run"], line["recipe"], _status(line["status"]), started, done, won)
    return table


def variants_table(variants: dict[str, UPath]) -> Table:
    """Runs of one config under different mining strategies, side by side."""
    last = {name: evaluations(folder)[-1] for name, folder in variants.items()}
    temperatures = next(iter(last.values()))["win_rate"]
    table = _table("variant", *(f"win rate T={t}" for t in temperatures), "agreement", "teacher calls", at=1)
    for name, folder in variants.items():
        calls = sum(iteration["teacher_calls"] for iteration in summarise(folder)["iterations"])
        won = [_percent(last[name]["win_rate"][t]["mean"]) for t in temperatures]
        table.add_row(name, *won, _score(last[name]["agreement"]["fixed"]["teacher"]["after"]), f"{calls:,}")
    return table


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


def _lines(summary: dict[str, Any], evaluated: list[dict[str, Any]], prompts: int) -> list[str]:
    agreement = [found["agreement"]["fixed"]["teacher"] for found in evaluated]
    calls = sum(iteration["teacher_calls"] for iteration in summary["iterations"])
    each = f" ({calls / prompts:.2f} per prompt)" if prompts else ""
    last = evaluated[-1]
    others = [
        f"{_percent(rate['mean'])} at {t}" for t, rate in last["win_rate"].items() if float(t) != last["temperature"]
    ]
    tokens = last["tokens"]
    return [
        f"iterations          {len(evaluated)}, sampled at temperature {last['temperature']:g}",
        *([f"other temperatures  {', '.join(others)}"] if others else []),
        f"mean tokens         {tokens['base']:.1f} -> {tokens['policy']:.1f}",
        f"student ~ teacher   {_score(agreement[0]['before'])} -> {_score(agreement[-1]['after'])}",
        f"teacher evaluations {calls:,}{each}",
    ]


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
