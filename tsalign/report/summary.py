"""A run in numbers, read from its ledger and evaluations: what `tsalign show --json` and `runs --json` print."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import yaml
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import resolve
from tsalign.runs.ledger import Ledger
from tsalign.runs.run import status

MINING = "preferences"
CANDIDATES = "candidates"


def find_run(run: str, storage: str = "runs") -> UPath:
    """The directory of a run given by name, or by its path.

    Raises:
        TsalignError: there is no such run; the message lists the nearest names.
    """
    for folder in (resolve(storage) / run, resolve(run)):
        if (folder / "ledger.jsonl").exists():
            return folder
    names = [folder.name for folder in _run_dirs(storage)]
    near = difflib.get_close_matches(run, names, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"`tsalign runs --storage {storage}` lists what there is."
    raise TsalignError(f"{run}: no such run in {storage}; {hint}")


def evaluations(run_dir: UPath) -> list[dict[str, Any]]:
    """The `evaluation/summary.json` of each evaluated iteration, in order, with its `agreement` where there is one."""
    found = [_evaluation(file) for file in (run_dir / "iterations").glob("*/evaluation/summary.json")]
    return sorted(found, key=lambda evaluation: evaluation["iteration"])


def _evaluation(file: UPath) -> dict[str, Any]:
    summary: dict[str, Any] = json.loads(file.read_text())
    agreement = file.parent.parent / "agreement" / "summary.json"
    return {**summary, "agreement": json.loads(agreement.read_text())} if agreement.exists() else summary


def headline(evaluation: dict[str, Any]) -> dict[str, Any]:
    """The win rate at the temperature that the run reports first."""
    return dict(evaluation["win_rate"][str(evaluation["temperature"])])


def results(run_dir: UPath) -> dict[str, float]:
    """What a run came to, by name: rates as floats, amounts as whole numbers; of its last iteration."""
    found: dict[str, float] = {}
    for name, summary in last_evaluations(run_dir).items():
        step = name.removeprefix("evaluation").lstrip("_")
        for temperature, rate in summary["win_rate"].items():
            found[f"{step} win rate T={temperature}".strip()] = rate["mean"]
    for shots, rate in exact_match(run_dir).items():
        found[f"{shots}-shot exact match"] = rate["mean"]
    if (evaluated := evaluations(run_dir)) and "agreement" in evaluated[-1]:
        found["agreement"] = evaluated[-1]["agreement"]["fixed"]["teacher"]["after"]
    if calls := sum(iteration["teacher_calls"] for iteration in summarise(run_dir)["iterations"]):
        found["teacher calls"] = calls
    return found


def last_evaluations(run_dir: UPath) -> dict[str, dict[str, Any]]:
    """Stage -> `summary.json` of all evaluations of the last evaluated iteration, `evaluation` first."""
    evaluated = evaluations(run_dir)
    if not evaluated:
        return {}
    folder = run_dir / "iterations" / str(evaluated[-1]["iteration"])
    files = sorted(folder.glob("evaluation*/summary.json"), key=lambda file: file.parent.name)
    return {file.parent.name: json.loads(file.read_text()) for file in files}


def exact_match(run_dir: UPath, stage: str = "exact_match") -> dict[str, dict[str, Any]]:
    """Shots -> mean and by task, of a run that ends with an exam of right and wrong answers."""
    file = run_dir / stage / "summary.json"
    return dict(json.loads(file.read_text())["exact_match"]) if file.exists() else {}


def stage_seconds(run_dir: UPath) -> dict[str, float]:
    """Stage -> seconds over all its attempts, failed ones too; in order of first appearance."""
    total: dict[str, float] = {}
    for entry in Ledger(run_dir / "ledger.jsonl").entries:
        if "seconds" in entry:
            total[entry["stage"]] = round(total.get(entry["stage"], 0.0) + entry["seconds"], 2)
    return total


def prompts_done(run_dir: UPath) -> int:
    """Candidate sets written, over all iterations."""
    done = Ledger(run_dir / "ledger.jsonl").done()
    return int(sum(entry["counts"].get("rows", 0) for stage, entry in done.items() if CANDIDATES in stage))


def summarise(run_dir: UPath) -> dict[str, Any]:
    """One run: status, and per iteration win rate, student agreement, teacher calls and seconds."""
    seconds = stage_seconds(run_dir)
    calls = _teacher_calls(run_dir)
    evaluated = {found["iteration"]: found for found in evaluations(run_dir)}
    numbers = sorted({int(stage.split("/")[0]) for stage in seconds if "/" in stage} | set(evaluated))
    return {
        "run": run_dir.name,
        "recipe": _recipe(run_dir),
        "status": status(run_dir),
        "iterations": [
            {
                "iteration": number,
                "win_rate": _win_rate(evaluated.get(number)),
                "student_agreement": _agreement(evaluated.get(number)),
                "teacher_calls": calls[number],
                "seconds": {s.partition("/")[2]: t for s, t in seconds.items() if s.startswith(f"{number}/")},
            }
            for number in numbers
        ],
        "seconds": round(sum(seconds.values()), 2),
    }


def list_runs(storage: str = "runs") -> list[dict[str, Any]]:
    """Every run in a storage folder, the newest last."""
    return sorted((_line(folder) for folder in _run_dirs(storage)), key=lambda line: line["started"])


def failure(run_dir: UPath) -> str | None:
    """The error that ended a failed run."""
    state = Ledger(run_dir / "ledger.jsonl").run_state()
    return state.get("error") if state else None


def _run_dirs(storage: str) -> list[UPath]:
    return [file.parent for file in resolve(storage).glob("*/ledger.jsonl")]


def _line(folder: UPath) -> dict[str, Any]:
    evaluated = evaluations(folder)
    first = Ledger(folder / "ledger.jsonl").entries[0]["time"]
    return {
        "run": folder.name,
        "recipe": _recipe(folder),
        "status": status(folder),
        "started": datetime.fromtimestamp(first, UTC).isoformat(timespec="milliseconds"),
        "iterations_done": len(evaluated),
        "win_rate": headline(evaluated[-1])["mean"] if evaluated else None,
    }


def _recipe(folder: UPath) -> str:
    return str(yaml.safe_load((folder / "config.yaml").read_text())["recipe"])


def _teacher_calls(run_dir: UPath) -> Counter[int]:
    calls: Counter[int] = Counter()
    for stage, entry in Ledger(run_dir / "ledger.jsonl").done().items():
        if MINING in stage and "/" in stage:
            calls[int(stage.split("/")[0])] += int(entry["counts"].get("teacher_calls", 0))
    return calls


def _win_rate(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    return {key: headline(evaluation)[key] for key in ("mean", "ci95", "by_set")} if evaluation else None


def _agreement(evaluation: dict[str, Any] | None) -> dict[str, Any] | None:
    if evaluation is None or "agreement" not in evaluation:
        return None
    return {key: evaluation["agreement"]["fixed"]["teacher"][key] for key in ("before", "after")}
