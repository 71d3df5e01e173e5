"""What a stage reports comes back from its folder as it was written."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from tsalign.runs.report import Column, Panel, Point, Report, Table, Trend, percent, read_report

number = st.floats(allow_nan=False)
maybe, interval = st.none() | number, st.none() | st.tuples(number, number)
names = st.text(max_size=8)
column = st.builds(Column, st.dictionaries(names, maybe), maybe, interval, st.booleans(), names)
table = st.builds(Table, names, st.dictionaries(names, column, max_size=3), names)
point = st.builds(Point, maybe, interval, maybe)
panel = st.builds(Panel, st.dictionaries(names, point, max_size=3), maybe, st.booleans())
reports = st.builds(
    Report,
    results=st.dictionaries(names, number | st.integers(-(10**12), 10**12)),
    table=st.none() | table,
    lines=st.dictionaries(names, names),
    trends=st.dictionaries(names, st.builds(Trend, maybe, maybe)),
    panels=st.dictionaries(names, panel, max_size=3),
)


@given(reports)
@settings(deadline=None)
def test_a_report_comes_back_from_its_folder(report: Report) -> None:
    folder = UPath("memory://reports/stage")
    report.write(folder)
    back = read_report(folder)
    assert back == report
    # What is told apart by type, and what comes first, is kept as well.
    assert [(name, type(value)) for name, value in back.results.items()] == [
        (name, type(value)) for name, value in report.results.items()
    ]
    assert report.table is None or list(back.table.columns) == list(report.table.columns)


def test_a_stage_that_has_nothing_to_show(tmp_path: Path) -> None:
    assert read_report(UPath(tmp_path)) is None
    Report().write(UPath(tmp_path))
    assert read_report(UPath(tmp_path)) == Report()
    assert [file.name for file in tmp_path.iterdir()] == ["report.json"]


def test_shares_are_shown_in_percent() -> None:
    assert [percent(share) for share in (0.5, 0.98765, None)] == ["50.0 %", "98.8 %", "-"]
