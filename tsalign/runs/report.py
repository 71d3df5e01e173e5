"""What a stage has to show: plain data in `report.json` beside its output, of which tables and plots are made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from pydantic import TypeAdapter
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import write_json

FILE = "report.json"
MOST = 0.5  # a share above it is worth a warning where what it counts should be rare


@dataclass(frozen=True)
class Column:
    """Numbers of a table.

    Attributes:
        values: row -> number; None is shown as "-".
        mean: shown in bold below the rows.
        ci95: 95 % interval of the mean.
        percent: shown as a percentage, of 1; else with three digits.
        bar: its label in the table's bar chart; empty where it is not drawn.
    """

    values: Mapping[str, float | None]
    mean: float | None = None
    ci95: tuple[float, float] | None = None
    percent: bool = False
    bar: str = ""


@dataclass(frozen=True)
class Table:
    """Columns by name.

    Attributes:
        rows: what a row is, such as `set` or `task`.
        chart: title of the bar chart of the columns that have a `bar`. The first of several is drawn in grey: what
            the others are compared with.
    """

    rows: str
    columns: Mapping[str, Column]
    chart: str = ""


@dataclass(frozen=True)
class Point:
    """One iteration's point of a curve.

    Attributes:
        ci95: 95 % interval of the value.
        before: the value before what the iteration changed; drawn as a dashed curve.
    """

    value: float | None
    ci95: tuple[float, float] | None = None
    before: float | None = None


@dataclass(frozen=True)
class Panel:
    """One iteration's points of the curves, by label, that share a panel of the plot; its title is one stage's alone.

    Attributes:
        chance: what nothing learnt would give; drawn as a line.
        percent: the axis is in percent, of 1.
    """

    points: Mapping[str, Point]
    chance: float | None = None
    percent: bool = False


@dataclass(frozen=True)
class Trend:
    """A number before and after an iteration; shown from the first `before` to the last `after`.

    Attributes:
        percent: shown as a percentage, of 1; else with three digits.
    """

    before: float | None
    after: float | None
    percent: bool = False


@dataclass(frozen=True)
class Sample:
    """A prompt, and its answers before and after what the run did; short, and each on one line."""

    prompt: str
    before: str
    after: str


@dataclass(frozen=True)
class Report:
    """All that a stage has to show; any part may be missing.

    Attributes:
        results: name -> what compares runs with each other: rates as floats, amounts as ints. The first is the
            headline in lists of runs.
        lines: label -> text, below the table.
        trends: label -> change over the iterations, below the lines.
        panels: title -> curves over the iterations.
        warnings: why the numbers may mislead, a line each; shown during the run, in the table and in the plot.
        samples: for a reader's eye, below the trends.
    """

    results: Mapping[str, int | float] = field(default_factory=dict)
    table: Table | None = None
    lines: Mapping[str, str] = field(default_factory=dict)
    trends: Mapping[str, Trend] = field(default_factory=dict)
    panels: Mapping[str, Panel] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    samples: tuple[Sample, ...] = ()

    def write(self, folder: UPath) -> None:
        """Into a stage's output, atomically."""
        write_json(folder / FILE, asdict(self))


_REPORT = TypeAdapter(Report)


def read_report(folder: UPath) -> Report | None:
    """What the stage with that output has to show, if anything.

    Raises:
        TsalignError: the file is damaged.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        return _REPORT.validate_python(json.loads(path.read_bytes()))
    except ValueError as error:
        first = str(error).splitlines()[0]
        raise TsalignError(f"{path}: damaged ({first}); delete it, and `tsalign resume` makes it again.") from error


def mostly(part: float, whole: float, what: str) -> tuple[str, ...]:
    """A warning that so many of the whole are `what`; none where it is not most of them."""
    return (f"{percent(part / whole)} {what}",) if part > MOST * whole else ()


def warn(folder: UPath, *warnings: str) -> None:
    """Leave warnings beside the output of a stage that has nothing else to show."""
    if warnings:
        Report(warnings=warnings).write(folder)


def warnings_of(folder: UPath) -> tuple[str, ...]:
    """What the stage with that output warns of."""
    found = read_report(folder)
    return found.warnings if found else ()


def percent(share: float | None) -> str:
    """A share of 1 as tables show it."""
    return "-" if share is None else f"{100 * share:.1f} %"
