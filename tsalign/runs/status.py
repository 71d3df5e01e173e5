"""Whether a run is active: the last state in its ledger, and the lease of its driver."""

from __future__ import annotations

from upath import UPath

from tsalign.runs.lease import driven
from tsalign.runs.ledger import Ledger


def status(folder: UPath) -> str:
    """`running`, `done`, `failed` or `stopped`, for a run directory."""
    state = Ledger(folder / "ledger.jsonl").run_state()
    if state is None or state["run"] != "started":
        return state["run"] if state else "stopped"
    return "running" if driven(folder) else "stopped"
