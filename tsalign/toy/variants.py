"""The quickstart of each recipe, and the controls that `--baselines` runs beside it: config keys that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

CONFIGS = {
    "ts-align": "ts_align.yaml",
    "pad": "pad.yaml",
    "arte": "arte.yaml",
    "citing": "citing.yaml",
}
CONTROLS: dict[str, dict[str, dict[str, Any]]] = {
    "ts-align": {
        "teacher-all": {"mining.strategy": "teacher-all"},
        "student-only": {"mining.strategy": "student-only"},
        "random": {"mining.strategy": "random"},
        "off-policy": {"mining.strategy": "off-policy"},
        "refresh": {"mining.refresh": 0.5},
    },
    "pad": {
        "dpo": {"tune.objective": "dpo", "tune.beta": 0.3, "tune.nll": 1.0},
        "pad-no-nll": {"scoring.beta": 10, "tune.beta": 10, "tune.nll": 0.0, "tune.learning_rate": 5e-4},
        "dpo-no-nll": {"tune.objective": "dpo", "tune.beta": 0.1, "tune.nll": 0.0, "tune.learning_rate": 1e-4},
        "simpo": {"tune.objective": "simpo", "tune.beta": 2, "tune.gamma": 1.0, "tune.nll": 1.0},
        "vpd": {"tune.objective": "pad_vpd", "tune.beta": 2, "tune.nll": 1.0},
    },
    "arte": {
        "original-teacher": {"ablation": "original-teacher"},
        "question-only": {"ablation": "question-only"},
        "rationale-only": {"ablation": "rationale-only"},
        "random-rationale": {"ablation": "random-rationale"},
    },
    "citing": {
        "revision-sft": {"method": "revision-sft"},
        "sft": {"method": "sft"},
        "rubric-sft": {"method": "rubric-sft"},
    },
}


def quickstart(recipe: str) -> Path:
    """The config of a recipe in the built-in world."""
    return Path(__file__).parent / "quickstart" / CONFIGS[recipe]
