"""Where `wait` shows how a run goes on: a cell that changes in a notebook, lines elsewhere."""

from __future__ import annotations

import sys
import time
from typing import Any, Protocol

from tsalign.session.state import State, line_of

SECONDS = 10.0  # between two lines about a stage at work


class Cell(Protocol):
    def show(self, state: State) -> None:
        """How the run stands now."""


def open_cell() -> Cell:
    """The kind that suits where this process shows things."""
    return NotebookCell() if _in_kernel() else Lines()


class NotebookCell:
    """One output of the cell at work, replaced by each state that is shown."""

    def __init__(self) -> None:
        self._handle: Any = None

    def show(self, state: State) -> None:
        from IPython.display import display

        content = {"text/html": str(state._repr_html_()), "text/plain": str(state)}
        if self._handle is None:
            self._handle = display(content, raw=True, display_id=True)
        else:
            self._handle.update(content, raw=True)


class Lines:
    """A line for each stage that is done, and now and then one for each at work."""

    def __init__(self) -> None:
        self._done: set[str] = set()
        self._told = time.monotonic()

    def show(self, state: State) -> None:
        for stage in [stage for stage in state.done if stage not in self._done]:
            print(f"✓ {stage:<24} {state.done[stage]:8.1f} s", flush=True)
            self._done.add(stage)
        if time.monotonic() - self._told >= SECONDS:
            self._told = time.monotonic()
            for one in state.at_work:
                print(f"  {line_of(one)}", flush=True)
        if state.status != "running":
            print(f"{state.run}: {state.status}", flush=True)


def _in_kernel() -> bool:
    """Whether this is the kernel of a notebook, not IPython in a terminal."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return hasattr(shell, "kernel")
