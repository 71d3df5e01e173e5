"""What a user sees during a run: one line for each stage at work, and one for each that is done."""

from __future__ import annotations

import threading
import time
from datetime import timedelta
from types import TracebackType

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from tsalign.runs.progress import AtWork

console = Console(stderr=True)


class Status(ProgressColumn):
    """Done of all, rate and time left; the time taken, as long as no rate is known."""

    def render(self, task: Task) -> Text:
        """The text at the end of a stage's line."""
        if task.total is None:
            return Text(_clock(task.elapsed))
        left = task.time_remaining
        time_told = f"{_clock(left)} left" if left else _clock(task.elapsed)
        counted = f"{task.completed:,.0f}/{task.total:,.0f} {task.fields['unit']}"
        return Text("  ".join(filter(None, [counted, _rate(task), time_told])))


class Display:
    """The lines of one run's stages; in the terminal for the length of a `with` block."""

    def __init__(self, run: str = "") -> None:
        self.run = run
        self.lines = Progress(
            TextColumn("{task.description:<20}"),
            BarColumn(bar_width=12),
            Status(),
            console=console,
            speed_estimate_period=300,  # seconds: where only whole shards are told, they may be minutes apart
        )

    def __enter__(self) -> Display:
        screen.show(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        screen.drop(self)

    def at_work(self) -> list[AtWork]:
        """How far the stages at work are."""
        return [_told(task) for task in self.lines.tasks if task.visible]


class Screen:
    """The foot of the terminal, which the runs of this process share: rich moves one block of lines only."""

    def __init__(self) -> None:
        self._shown: list[Display] = []
        self._lock = threading.Lock()
        self._live: Live | None = None

    def show(self, display: Display) -> None:
        """From here on a run's lines are there, below those of runs that began before."""
        with self._lock:
            self._shown = [*self._shown, display]
            if self._live is None:
                self._live = Live(console=console, refresh_per_second=10, transient=True, get_renderable=self.rendered)
                self._live.start()

    def drop(self, display: Display) -> None:
        """From here on they are not."""
        with self._lock:
            self._shown = [one for one in self._shown if one is not display]
            if self._live and not self._shown:
                self._live.stop()
                self._live = None

    def rendered(self) -> RenderableType:
        """All lines; below the names of their runs where there are several."""
        shown, parts = self._shown, list[RenderableType]()
        for display in shown:
            parts += [Text(display.run, style="dim")] if len(shown) > 1 else []
            parts.append(display.lines.get_renderable())
        return Group(*parts)


screen = Screen()


class Bar:
    """A stage's line, shown for the length of a `with` block; without the display of a run nobody sees it."""

    def __init__(self, name: str = "", display: Display | None = None) -> None:
        self._lines = (display or Display()).lines
        self._task = self._lines.add_task(name, start=False, visible=False, total=None, unit="", rate="")

    def __enter__(self) -> Bar:
        self._lines.start_task(self._task)
        self._lines.update(self._task, visible=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lines.remove_task(self._task)

    def count(self, total: int, unit: str, done: int = 0) -> None:
        """From here on there are `total` units to do, of which `done` are done."""
        self._lines.reset(self._task, total=total, completed=done, unit=unit, rate="")

    def move(self, done: float, rate: str = "") -> None:
        """`done` units are done by now; `rate` is shown instead of units per second."""
        self._lines.update(self._task, completed=done, rate=rate)


def _told(task: Task) -> AtWork:
    return AtWork(
        stage=str(task.description),
        started=round(time.time() - (task.elapsed or 0.0), 1),
        done=task.completed,
        total=task.total,
        unit=task.fields["unit"],
        rate=_rate(task),
        left=task.time_remaining,
    )


def _rate(task: Task) -> str:
    told: str = task.fields["rate"]
    return told or (f"{_short(task.speed)} {task.fields['unit']}/s" if task.speed else "")


def _clock(seconds: float | None) -> str:
    return str(timedelta(seconds=int(seconds or 0)))


def _short(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.1f}"
