"""How a command runs a config, says how to go on after Ctrl-C, and shows what came out."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tsalign.cli.terminal import end, errors, out

if TYPE_CHECKING:
    from upath import UPath


def execute(config: Path | dict[str, Any], overrides: dict[str, Any], retry_failed: bool = False) -> UPath:
    """Run a config under a name chosen beforehand, so that Ctrl-C can say how to resume."""
    from tsalign import api
    from tsalign.common.storage import resolve

    loaded = api.load(config, overrides)
    name = api.name_of(loaded)
    folder = resolve(loaded.storage) / name
    with resumable(folder):
        api.run(loaded.model_copy(update={"run": name}), retry_failed=retry_failed)
    return folder


@contextmanager
def resumable(folder: UPath) -> Iterator[None]:
    from tsalign.common.storage import resolve
    from tsalign.runs.interrupts import Terminated

    try:
        yield
    except KeyboardInterrupt as error:
        where = "" if folder.parent == resolve("runs") else f" --storage {folder.parent}"
        errors.print(
            f"stopped; to continue: tsalign resume {folder.name}{where}", style="yellow", emoji=False, soft_wrap=True
        )
        # As a shell reports a process that a signal ended.
        end(128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))


def report(folder: UPath) -> None:
    """Print the table of a run, and where its plots are."""
    from tsalign.report.plots import plot_run
    from tsalign.report.table import run_table

    out.print(run_table(folder), highlight=False)
    out.print(f"\nplots: {plot_run(folder)}", markup=False, emoji=False, highlight=False, soft_wrap=True)
