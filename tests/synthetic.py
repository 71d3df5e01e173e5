"""Run directories as a finished run leaves them, without running anything."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import yaml
from upath import UPath

from tsalign.evaluation.reporting import report_of, report_of_step
from tsalign.recipes.arte import exact_match
from tsalign.recipes.ts_align import agreement as student_agreement
from tsalign.runs.report import Report

SETS = ("add", "count", "date", "max", "reverse", "sort", "upper")
# Of each iteration: seconds, counts, and whether the stage only measures.
STAGES: dict[str, tuple[float, dict[str, float], bool]] = {
    "candidates": (31.0, {"rows": 400, "prompts": 400, "calls.policy": 3200, "tokens.policy": 48_000.0}, False),
    "scores": (9.5, {"rows": 400, "calls.student": 3200, "tokens.student": 64_000}, False),
    "preferences": (12.25, {"rows": 390, "calls.teacher": 800.0, "tokens.teacher": 16_000}, False),
    "student": (20.0, {"steps": 12}, False),
    "policy": (44.0, {"steps": 12}, False),
    "answers": (8.0, {"rows": 50, "prompts": 50, "calls.policy": 300, "tokens.policy": 4_000}, True),
    "evaluation": (5.0, {"rows": 50}, True),
    "agreement": (2.0, {"rows": 50, "calls.teacher": 100, "tokens.teacher": 2_000}, True),
}
Reporting = Callable[[int], dict[str, Report]]  # what each stage of an iteration reports; of 0, those of the run


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
        "tied": 0.25,
        "unit": "tokens",
        "quality": {"base": quality(6.1, -0.9), "policy": quality(5.9, -0.9 - gain)},
        "warnings": [],
        "samples": [{"prompt": f"add {n} [and] 2", "before": "the answer is", "after": f"{n + 2}\\n"} for n in (1, 2)],
    }


def quality(length: float, log_prob: float | None) -> dict[str, Any]:
    """What answers look like that nothing is wrong with."""
    distinct = {"1": 0.1, "2": 0.4, "3": 0.8}
    return {"length": length, "cut": 0.01, "repetition": 0.002, "distinct": distinct, "log_prob": log_prob}


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


def evaluated(iteration: int) -> dict[str, Report]:
    """What PAD reports."""
    return {"evaluation": report_of(evaluation(iteration))} if iteration else {}


def ts_align(iteration: int) -> dict[str, Report]:
    """Evaluation, and the student's agreement with the teacher."""
    agreed = {"agreement": student_agreement.report_of(agreement(iteration))} if iteration else {}
    return evaluated(iteration) | agreed


def citing(iteration: int) -> dict[str, Report]:
    """A draft that is judged by itself before what it is rewritten to; it is no better than what was there before."""
    return {"evaluation_draft": report_of_step("draft", evaluation(0)), **evaluated(iteration)} if iteration else {}


def arte(iteration: int) -> dict[str, Report]:
    """Exact match, once."""
    before = {"0": {"mean": 0.2, "by_task": {"add": 0.1, "sort": 0.3}}}
    rates = {
        "0": {"mean": 0.5, "by_task": {"add": 0.4, "sort": 0.6}},
        "3": {"mean": 1, "by_task": {"add": 1, "sort": 1}},
    }
    return {} if iteration else {"exact_match": exact_match.report_of(rates, before)}


def make_run(
    storage: Path,
    name: str,
    iterations: int = 2,
    ending: dict[str, Any] | None = None,
    start: float = 1000.0,
    recipe: str = "ts-align",
    reporting: Reporting = ts_align,
) -> Path:
    """A run directory with `iterations` finished rounds; `ending` is its last ledger entry."""
    folder = storage / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"recipe": recipe, "run": name}))
    entries: list[dict[str, Any]] = [{"run": "started", "pid": 1, "host": "elsewhere"}]
    entries.append(done("prompts", 1.5, {"rows": 400}))
    for iteration in range(iterations + 1):
        for stage in STAGES if iteration else ():
            entries.append(done(f"{iteration}/{stage}", *STAGES[stage]))
        for stage, report in reporting(iteration).items():
            place = folder / "iterations" / str(iteration) if iteration else folder
            (place / stage).mkdir(parents=True)
            report.write(UPath(place / stage))
            if not iteration or stage not in STAGES:
                entries.append(done(f"{iteration}/{stage}" if iteration else stage, 1.0, {}, True))
    entries.append(ending or {"run": "done"})
    lines = [json.dumps({**entry, "time": start + tick}) for tick, entry in enumerate(entries)]
    (folder / "ledger.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def done(stage: str, seconds: float, counts: dict[str, float], measures: bool = False) -> dict[str, Any]:
    """The ledger's entry of a finished stage."""
    made = {"kind": "Folder", "path": stage, "fingerprint": ""}
    known = {"stage": stage, "state": "done", "output": made}
    return {**known, "seconds": seconds, "counts": counts, "measures": measures}


def hold(folder: UPath, process: psutil.Process, host: str = "", renewed: float = 0.0, number: int = 1) -> None:
    """The lease of another process."""
    content = {"host": host or socket.gethostname(), "pid": process.pid, "began": process.create_time()}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"lease-{number:06}.json").write_text(json.dumps({**content, "renewed": renewed}))
