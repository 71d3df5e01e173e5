"""What a stage's line says at each point of its life, in the terminal and to who follows the run from elsewhere."""

from __future__ import annotations

import threading
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console, RenderableType
from upath import UPath

import tsalign.runs.progress
from tsalign.runs.progress import FILE, AtWork, read_progress, written
from tsalign.runs.terminal import Bar, Display, Screen


class Clock:
    """Seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def display() -> Display:
    return Display("demo")


@pytest.fixture
def clock(display: Display, monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(display.lines, "get_time", made)
    return made


def lines_of(shown: RenderableType, width: int = 100) -> list[str]:
    """What stands on a terminal of some width."""
    console = Console(file=StringIO(), width=width)
    console.print(shown)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.fixture
def lines(display: Display) -> Callable[..., list[str]]:
    return lambda width=100: lines_of(display.lines.get_renderable(), width)


def test_a_line_tells_rows_rate_and_time_left(clock: Clock, display: Display, lines: Callable[..., list[str]]) -> None:
    with Bar("1/candidates", display) as bar:
        clock.now = 12.0
        assert lines()[0].split() == ["1/candidates", "━" * 12, "0:00:12"]
        bar.count(2600, "rows", done=600)
        clock.now = 20.0
        assert lines()[0].endswith("600/2,600 rows  0:00:08")
        bar.move(800)
        clock.now = 24.0
        bar.move(1000)
        assert lines()[0].endswith("1,000/2,600 rows  50 rows/s  0:00:32 left")
        bar.move(900)  # a shard was lost with its actor
        clock.now = 28.0
        bar.move(1040)
        assert lines()[0].endswith("1,040/2,600 rows  42 rows/s  0:00:37 left")
        bar.move(2600)
        assert "2,600/2,600 rows" in lines()[0]
    assert lines() == []


def test_stages_side_by_side_have_a_line_each_and_fit_a_small_terminal(
    clock: Clock, display: Display, lines: Callable[..., list[str]]
) -> None:
    with Bar("1/candidates", display) as first, Bar("1/policy", display) as second:
        first.count(96, "rows")
        second.count(1200, "steps")
        for step in (1, 2):
            clock.now += 2.0
            second.move(step, rate="11,952 tokens/s")
        assert [line.split()[0] for line in lines(80)] == ["1/candidates", "1/policy"]
        assert lines(80)[1].endswith("2/1,200 steps  11,952 tokens/s  0:39:56 left")


def test_runs_side_by_side_show_their_lines_whichever_ends_first() -> None:
    screen, one, two = Screen(), Display("one"), Display("two")
    screen.show(one)
    with Bar("1/candidates", one), Bar("1/policy", two):
        assert [line.split()[0] for line in lines_of(screen.rendered())] == ["1/candidates"]
        screen.show(two)
        assert [line.split()[0] for line in lines_of(screen.rendered())] == ["one", "1/candidates", "two", "1/policy"]
        screen.drop(one)
        assert [line.split()[0] for line in lines_of(screen.rendered())] == ["1/policy"]
        screen.drop(two)
        assert lines_of(screen.rendered()) == []
        screen.show(one)  # a run after the others
        assert [line.split()[0] for line in lines_of(screen.rendered())] == ["1/candidates"]
        screen.drop(one)


def test_stages_at_work_are_told_as_the_terminal_shows_them(clock: Clock, display: Display) -> None:
    clock.now = 100.0
    with Bar("1/candidates", display) as bar, Bar("1/policy", display) as training:
        assert [(stage.stage, stage.done, stage.total, stage.rate) for stage in display.at_work()] == [
            ("1/candidates", 0, None, ""),
            ("1/policy", 0, None, ""),
        ]
        bar.count(2600, "rows", done=600)
        training.count(12, "steps")
        for step in (1, 2):
            clock.now += 4.0
            bar.move(600 + 200 * step)
            training.move(step, rate="11,952 tokens/s")
        rows, steps = display.at_work()
        assert (rows.done, rows.total, rows.unit, rows.rate, rows.left) == (1000, 2600, "rows", "50 rows/s", 32)
        assert (steps.done, steps.total, steps.unit, steps.rate) == (2, 12, "steps", "11,952 tokens/s")
    assert display.at_work() == []


def test_who_follows_reads_it_as_long_as_the_driver_is_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tsalign.runs.progress, "SECONDS", 0.01)
    folder, looked = UPath(tmp_path), threading.Event()
    stage = AtWork("1/candidates", 1000.0, 600, 2600, "rows", "50 rows/s", 32.0)

    def look() -> list[AtWork]:
        if (folder / FILE).exists():  # of the look before
            looked.set()
        return [stage]

    assert read_progress(folder) == []
    with written(folder, look):
        assert looked.wait(60)
        assert read_progress(folder) == [stage]
    assert list(tmp_path.iterdir()) == []
