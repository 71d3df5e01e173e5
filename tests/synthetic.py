"""Run directories as a finished run leaves them, without running anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

SETS = ("add", "count", "date", "max", "reverse", "sort", "upper")
STAGES = {
    "candidates": (31.0, {"rows": 400, "failed": 0}),
    "scores": (9.5, {"rows": 400}),
    "preferences": (12.25, {"rows": 390, "teacher_calls": 800}),
    "student": (20.0, {"steps": 12}),
    "policy": (44.0, {"steps": 12}),
    "evaluation": (15.0, {}),
}


def evaluation(iteration: int) -> dict[str, Any]:
    """A `summary.json` whose numbers rise with the iteration."""
    gain = 0.08 * iteration
    by_set = {name: round(0.5 + gain + 0.01 * place, 4) for place, name in enumerate(SETS)}
    rates = {
        temperature: {"mean": 0.53 + gain + shift, "ci95": [0.5 + gain + shift, 0.56 + gain + shift], "by_set": by_set}
        for temperature, shift in (("1.0", 0.0), ("0.7", -0.02), ("0.0", -0.05))
    }
    return {
        "iteration": iteration,
        "temperature": 1.0,
        "win_rate": rates,
        "scores": {
            "base": {name: 0.3 + 0.05 * place for place, name in enumerate(SETS)},
            "policy": {name: 0.3 + 0.05 * place + gain for place, name in enumerate(SETS)},
        },
        "tokens": {"base": 6.1, "policy": 5.9},
    }


def agreement(iteration: int) -> dict[str, Any]:
    """A student that learns."""
    before_after = {"before": 0.70 + 0.03 * iteration, "after": 0.73 + 0.03 * iteration}
    return {
        "fixed": {"teacher": before_after, "judge": before_after},
        "newest": {
            "teacher": {key: value - 0.06 for key, value in before_after.items()},
            "judge": before_after,
            "teacher_judge": 0.88,
        },
    }


def make_run(
    storage: Path, name: str, iterations: int = 2, ending: dict[str, Any] | None = None, start: float = 1000.0
) -> Path:
    """A run directory with `iterations` finished rounds; `ending` is its last ledger entry."""
    folder = storage / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"recipe": "ts-align", "run": name}))
    entries: list[dict[str, Any]] = [{"run": "started", "pid": 1, "host": "elsewhere"}]
    entries.append({"stage": "prompts", "state": "done", "seconds": 1.5, "counts": {"rows": 400}})
    for iteration in range(1, iterations + 1):
        for stage, (seconds, counts) in STAGES.items():
            full = f"{iteration}/{stage}"
            entries.append({"stage": full, "state": "done", "seconds": seconds, "counts": counts})
        for name, content in (("evaluation", evaluation(iteration)), ("agreement", agreement(iteration))):
            target = folder / "iterations" / str(iteration) / name / "summary.json"
            target.parent.mkdir(parents=True)
            target.write_text(json.dumps(content))
    entries.append(ending or {"run": "done"})
    lines = [json.dumps({**entry, "time": start + tick}) for tick, entry in enumerate(entries)]
    (folder / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    return folder
