"""A run whose driver is killed while it samples, and again while it trains: resumed, it ends as if it never was."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from driver import EXAMPLE, Quickstart, checkpointed, parts, row_hashes
from upath import UPath

from tsalign.common.storage import read_lines
from tsalign.runs.status import status

pytestmark = pytest.mark.ray
CHECKPOINT_STEPS = 8


def test_a_killed_run_ends_as_if_it_never_was(best_of_n_run: Quickstart) -> None:
    driver, whole = best_of_n_run.driver, best_of_n_run.folder / "iterations" / "1"
    config = yaml.safe_load((EXAMPLE / "best_of_n" / "quickstart.yaml").read_text())
    assert config["tune"]["checkpoint_steps"] == CHECKPOINT_STEPS
    (driver.folder / "config.yaml").write_text(yaml.safe_dump(config))
    run = driver.folder / "runs" / "cut"
    cut = run / "iterations" / "1"
    committed: dict[str, int] = {}
    for ready, stage in (
        (lambda: len(parts(cut / "candidates")) >= 2, "candidates"),
        (lambda: checkpointed(cut / "policy"), "best"),
    ):
        driver.kill_when("cut", ready)
        assert status(UPath(run)) == "stopped"
        committed |= {str(part): part.stat().st_mtime_ns for part in parts(cut / stage)}
    driver.run("cut")

    # What was committed before a kill was not made again.
    assert len(committed) >= 2 + 4
    assert {part: Path(part).stat().st_mtime_ns for part in committed} == committed
    policy = [metrics for metrics in read_lines(UPath(run / "metrics.jsonl")) if metrics["stage"] == "policy"]
    first, again = (index for index, metrics in enumerate(policy) if "examples" in metrics)
    assert policy[first]["step"] == 0
    assert policy[again]["step"] >= CHECKPOINT_STEPS
    assert policy[again - 1]["step"] - policy[again]["step"] < 2 * CHECKPOINT_STEPS
    # And the end is the same: rows, and weights to the bit.
    for stage in ("candidates", "scores", "best", "evaluation"):
        assert row_hashes(cut / stage) == row_hashes(whole / stage), stage
    weights = Path("policy") / "model.safetensors"
    assert (cut / weights).read_bytes() == (whole / weights).read_bytes()
