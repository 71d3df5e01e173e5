"""What a run did against what the plan of its config says."""

from __future__ import annotations

from pathlib import Path

from upath import UPath

from tsalign import api
from tsalign.recipes import find
from tsalign.runs.dry_run import plan
from tsalign.runs.ledger import Ledger

# Unit in a plan -> what a stage that did such work counts in the ledger.
COUNTED = {"completions": "completions", "optimiser steps": "steps", "calls": "calls.teacher"}


def check_against_plan(folder: Path) -> None:
    """A finished run did the stages of its plan, no others, and in none of them more than planned."""
    config = api.load(folder / "config.yaml", {})
    needs = plan(config, find(config.recipe).function).needs
    done = Ledger(UPath(folder) / "ledger.jsonl").done()
    names = [f"{need.iteration}/{need.stage}" if need.iteration else need.stage for need in needs]
    assert done.keys() == set(names)
    compared = 0
    for name, need in zip(names, needs):
        for unit, amount in need.work.items():
            made = done[name]["counts"].get(COUNTED.get(unit))
            if made is not None:
                assert amount is not None
                assert 0 < made <= amount, (name, unit)
                compared += 1
    assert compared
