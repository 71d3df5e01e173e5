"""What a user sees during a run: one line for each stage at work, and one for each that is done."""

from __future__ import annotations

from datetime import timedelta
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

console = Console(stderr=True)


class Status(ProgressColumn):
    """Done of all, rate and time left; the time taken, as long as no rate is known."""

    def render(self, task: Task) -> Text:
        """The text at the end of a stage's line."""
        if task.total is None:
            return Text(_clock(task.elapsed))
        unit, left = task.fields["unit"], task.time_remaining
        rate = task.fields["rate"] or (f"{_short(task.speed)} {unit}/s" if task.speed else "")
        time = f"{_clock(left)} left" if left else _clock(task.elapsed)
        return Text("  ".join(filter(None, [f"{task.completed:,.0f}/{task.total:,.0f} {unit}", rate, time])))


display = Progress(
    TextColumn("{task.description:<20}"),
    BarColumn(bar_width=12),
    Status(),
    transient=True,
    console=console,
    speed_estimate_period=300,  # seconds: where only whole shards are told, they may be minutes apart
)


class Bar:
    """A stage's line, in the terminal for the length of a `with` block."""

    def __init__(self, name: str = "") -> None:
        self._task = display.add_task(name, start=False, visible=False, total=None, unit="", rate="")

    def __enter__(self) -> Bar:
        display.start_task(self._task)
        display.update(self._task, visible=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        display.remove_task(self._task)

    def count(self, total: int, unit: str, done: int = 0) -> None:
        """From here on there are `total` units to do, of which `done` are done."""
        display.reset(self._task, total=total, completed=done, unit=unit, rate="")

    def move(self, done: float, rate: str = "") -> None:
        """`done` units are done by now; `rate` is shown instead of units per second."""
        display.update(self._task, completed=done, rate=rate)


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=int(seconds or 0)))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
