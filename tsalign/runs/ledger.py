"""The append-only record of a run: what was started, done, and failed, from which inputs, at what cost."""

from __future__ import annotations

import time
from typing import Any

from upath import UPath

from tsalign.common.storage import append_line, drop_cut_line, read_lines


class Ledger:
    """`ledger.jsonl` of one run. Only the driver writes it.

    Stage entries: {"stage", "state", "fingerprint", "inputs", "anew", "output", "files", "seconds", "phases",
    "counts", "measures", "time"}, with `phases` as `Stage` says; run entries: {"run": "started" | "done" | "failed" |
    "stopped", "error", "pid", "host", "time"}.

    Raises:
        TsalignError: a line is damaged, other than the last one, which a crash may cut.
    """

    def __init__(self, path: UPath) -> None:
        self.path, self._whole = path, False
        self.entries = read_lines(path)

    def append(self, **entry: Any) -> None:
        """Write one entry, stamped with the time."""
        if not self._whole:
            drop_cut_line(self.path)
            self._whole = True
        entry["time"] = round(time.time(), 3)
        append_line(self.path, entry)
        self.entries.append(entry)

    def last(self, stage: str) -> dict[str, Any] | None:
        """The newest entry of a stage."""
        return next((e for e in reversed(self.entries) if e.get("stage") == stage), None)

    def inputs(self, stage: str) -> dict[str, Any]:
        """What a stage was given when it last began."""
        began = [entry for entry in self.entries if entry.get("stage") == stage and "inputs" in entry]
        return dict(began[-1]["inputs"]) if began else {}

    def done(self) -> dict[str, dict[str, Any]]:
        """Stage name -> its newest entry, for stages whose newest entry says done; in order of first appearance."""
        newest = {entry["stage"]: entry for entry in self.entries if "stage" in entry}
        return {stage: entry for stage, entry in newest.items() if entry["state"] == "done"}

    def run_state(self) -> dict[str, Any] | None:
        """The newest entry of the run itself."""
        return next((e for e in reversed(self.entries) if "run" in e), None)
