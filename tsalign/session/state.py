"""How a run stands, read from its folder only, and how that looks as text and in a notebook."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta

from upath import UPath

from tsalign.report.summary import last_reports, read_reports, results
from tsalign.runs.ledger import Ledger
from tsalign.runs.progress import AtWork, read_progress
from tsalign.runs.report import percent
from tsalign.session.markup import Html, badge, bar, table, tag, together

SHOWN = 20  # stages by name; a run of many iterations has hundreds


@dataclass(frozen=True, repr=False)
class State:
    """A run at one moment.

    Attributes:
        done: stage -> its seconds, in order.
        at_work: stages that its driver is doing.
        results: as in `tsalign show`.
        note: what else to say, such as why it failed.
    """

    run: str
    status: str
    done: dict[str, float]
    at_work: list[AtWork]
    results: dict[str, int | float]
    note: str = ""

    def _repr_html_(self) -> Html:
        head = tag("div", tag("b", self.run), " ", badge(self.status))
        rows = [[stage, "done", f"{seconds:,.1f} s", ""] for stage, seconds in _latest(self.done).items()]
        rows += [[one.stage, _share(one), _counted(one), _pace(one)] for one in self.at_work]
        note = tag("pre", self.note, style="white-space:pre-wrap;color:inherit;background:none") if self.note else ""
        return together(head, table(("stage", "", "", ""), rows) if rows else "", tag("div", _came_to(self)), note)

    def __repr__(self) -> str:
        lines = [f"{self.run}: {self.status}"]
        lines += [f"  {stage:<24} {seconds:8.1f} s" for stage, seconds in _latest(self.done).items()]
        lines += [f"  {line_of(one)}" for one in self.at_work]
        return "\n".join([*lines, *filter(None, [_came_to(self), self.note])])


def state_of(folder: UPath, status: str, note: str = "") -> State:
    """How the run in a folder stands."""
    finished = Ledger(folder / "ledger.jsonl").done()
    return State(
        run=folder.name,
        status=status,
        done={stage: float(entry["seconds"]) for stage, entry in finished.items()},
        at_work=read_progress(folder) if status == "running" else [],
        results=results(last_reports(read_reports(folder))),
        note=note,
    )


def line_of(one: AtWork) -> str:
    """A stage at work on one line of text."""
    return "  ".join(filter(None, [f"{one.stage:<24}", _counted(one), _pace(one)]))


def shown(value: int | float) -> str:
    """A result: rates are floats, amounts whole numbers."""
    return f"{value:,}" if isinstance(value, int) else percent(value)


def _latest(done: dict[str, float]) -> dict[str, float]:
    """The last stages by name, and those before them as one."""
    if len(done) <= SHOWN:
        return done
    stages = list(done)
    earlier, later = stages[:-SHOWN], stages[-SHOWN:]
    before = {f"{len(earlier)} stages before": sum(done[stage] for stage in earlier)}
    return before | {stage: done[stage] for stage in later}


def _share(one: AtWork) -> Html:
    return bar(one.done / one.total if one.total else 0.0)


def _counted(one: AtWork) -> str:
    return f"{one.done:,.0f}/{one.total:,.0f} {one.unit}" if one.total else _clock(time.time() - one.started)


def _pace(one: AtWork) -> str:
    return "  ".join(filter(None, [one.rate, f"{_clock(one.left)} left" if one.left else ""]))


def _came_to(state: State) -> str:
    return "  ".join(f"{name} {shown(value)}" for name, value in list(state.results.items())[:4])


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
