"""What a stage's line says at each point of its life."""

from __future__ import annotations

from collections.abc import Callable
from io import StringIO

import pytest
from rich.console import Console

from tsalign.runs.terminal import Bar, display


class Clock:
    """Seconds, moved by hand."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(display, "get_time", made)
    return made


@pytest.fixture
def lines() -> Callable[[int], list[str]]:
    """The lines of the display on a terminal of some width."""

    def render(width: int = 100) -> list[str]:
        console = Console(file=StringIO(), width=width)
        console.print(display.get_renderable())
        return [line.rstrip() for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]

    return render


def test_a_line_tells_rows_rate_and_time_left(clock: Clock, lines: Callable[..., list[str]]) -> None:
    with Bar("1/candidates") as bar:
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
    clock: Clock, lines: Callable[..., list[str]]
) -> None:
    with Bar("1/candidates") as first, Bar("1/policy") as second:
        first.count(96, "rows")
        second.count(1200, "steps")
        for step in (1, 2):
            clock.now += 2.0
            second.move(step, rate="11,952 tokens/s")
        assert [line.split()[0] for line in lines(80)] == ["1/candidates", "1/policy"]
        assert lines(80)[1].endswith("2/1,200 steps  11,952 tokens/s  0:39:56 left")
