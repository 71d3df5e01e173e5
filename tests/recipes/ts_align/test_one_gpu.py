"""TS-Align where there is one GPU, which student, policy, judge and teacher each want whole: they take turns."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tsalign.common.storage import read_lines

ONE = {"gpus": 1}
CONFIG: dict[str, Any] = {
    "recipe": "ts-align",
    "run": "one",
    "iterations": 1,
    "policy": {"model": "toy:policy"},
    "student": {"model": "toy:student"},
    "teacher": {"model": "toy:teacher", "gpus": 1, "idle_seconds": 2},
    "data": {"prompts": "toy:train", "prompts_per_iteration": 16, "shard_size": 8},
    "sampling": {"engine": "hf", "k": 2, "max_tokens": 8, "max_model_len": 128},
    "distill": {"batch_size": 8, "precision": "fp32"},
    "tune": {"reference": "previous", "batch_size": 8, "precision": "fp32"},
    "evaluation": {"sets": {"toy": "toy:test"}, "judge": "tsalign.toy.oracle:grade", "prompts_per_set": 1},
    # Trainings would ask torch for the GPU that Ray only believes in.
    "resources": {"sample": ONE, "score": ONE},
}
START = (
    "import ray, tsalign; "
    "ray.init(address='local', num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False); "
    "tsalign.run('config.yaml')"
)


@pytest.mark.ray
@pytest.mark.slow
def test_an_iteration_on_one_gpu(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    ran = subprocess.run([sys.executable, "-c", START], cwd=tmp_path, capture_output=True, text=True, timeout=500)
    assert ran.returncode == 0, ran.stderr[-3000:]
    ledger = list(read_lines(tmp_path / "runs" / "one" / "ledger.jsonl"))
    done = {entry["stage"] for entry in ledger if entry.get("state") == "done"}
    assert {"base_scores_asked", "1/candidates", "1/preferences", "1/policy", "1/agreement"} <= done
