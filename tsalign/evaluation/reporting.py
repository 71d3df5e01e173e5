"""The numbers of an evaluation as tables, lines and plots show them."""

from __future__ import annotations

from statistics import fmean
from typing import Any

from tsalign.runs.report import Column, Panel, Point, Report, Sample, Table, Trend, percent


def report_of(summary: dict[str, Any]) -> Report:
    """Scores and win rate by set, the win rates over the iterations, and beside them what the answers look like."""
    rates, first = summary["win_rate"], str(summary["temperature"])
    base, policy = summary["quality"]["base"], summary["quality"]["policy"]
    scores = {
        f"{who} score": Column(dict(sorted(by_set.items())), fmean(by_set.values()), bar=who)
        for who, by_set in summary["scores"].items()
    }
    won = Column(rates[first]["by_set"], rates[first]["mean"], rates[first]["ci95"], percent=True)
    others = ", ".join(f"{percent(rate['mean'])} at {t}" for t, rate in rates.items() if t != first)
    curves = {f"temperature {t}": Point(rate["mean"], rate["ci95"]) for t, rate in rates.items()}
    trends = _trends(base, policy)
    return Report(
        results=_results(summary),
        table=Table("set", {**scores, "win rate": won}, f"Judge's score by set, iteration {summary['iteration']}"),
        lines={
            "iterations": f"{summary['iteration']}, sampled at temperature {summary['temperature']:g}",
            **({"other temperatures": others} if others else {}),
            "tied by the judge": percent(summary["tied"]),
            f"mean {summary['unit']}": f"{base['length']:.1f} -> {policy['length']:.1f}",
        },
        trends=trends,
        panels={
            "Win rate against the initial policy": Panel(curves, chance=0.5, percent=True),
            **_panels(trends),
        },
        warnings=tuple(summary["warnings"]),
        samples=tuple(Sample(**sample) for sample in summary["samples"]),
    )


def report_of_step(step: str, summary: dict[str, Any]) -> Report:
    """The win rates of a step that is not the last: a line, results of their own, and what to warn of."""
    results = {f"{step} {name}": rate for name, rate in _results(summary).items()}
    rate = percent(next(iter(results.values())))
    return Report(results, lines={step: rate}, warnings=tuple(f"{step}: {line}" for line in summary["warnings"]))


def _results(summary: dict[str, Any]) -> dict[str, float]:
    """The first temperature is the headline."""
    return {f"win rate T={t}": rate["mean"] for t, rate in summary["win_rate"].items()}


def _trends(base: dict[str, Any], policy: dict[str, Any]) -> dict[str, Trend]:
    """What the initial policy's answers come to, and the newest policy's."""
    distinct = {f"distinct {n}-grams": Trend(base["distinct"][n], policy["distinct"][n]) for n in base["distinct"]}
    return {
        "log-prob per token": Trend(base["log_prob"], policy["log_prob"]),
        **distinct,
        "repeated 4-grams": Trend(base["repetition"], policy["repetition"], percent=True),
        "cut at max_tokens": Trend(base["cut"], policy["cut"], percent=True),
    }


def _panels(trends: dict[str, Trend]) -> dict[str, Panel]:
    """The same over the iterations: the log-prob where it is known, and the shares."""
    points = {name: Point(trend.after, before=trend.before) for name, trend in trends.items()}
    likely, shares = points["log-prob per token"], ("distinct 2-grams", "repeated 4-grams", "cut at max_tokens")
    known = {} if likely.value is None else {"Log-prob under the initial policy": Panel({"per token": likely})}
    return {**known, "What the answers look like": Panel({name: points[name] for name in shares}, percent=True)}
