"""A run in numbers, read from its ledger and its stages' reports: what `show --json` and `runs --json` print."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, TypedDict

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.storage import resolve
from tsalign.config import read_yaml, run_name
from tsalign.report.attempts import output, place, stage_seconds
from tsalign.report.cost import Cost, cost_of_run
from tsalign.runs.ledger import Ledger
from tsalign.runs.report import Report, read_report
from tsalign.runs.status import status

Reports = dict[int, dict[str, Report]]  # iteration (0: none, the run's own) -> stage -> what it has to show


class IterationSummary(TypedDict):
    """One iteration.

    Attributes:
        results: name -> number, of all stages that report some: `win rate T=1.0`, `agreement`.
        reports: stage -> its `report.json`, with the numbers behind the results: see `tsalign.runs.report.Report`.
        seconds: stage -> wall-clock seconds over all its attempts.
    """

    iteration: int
    results: dict[str, int | float]
    reports: dict[str, dict[str, Any]]
    seconds: dict[str, float]


class RunSummary(TypedDict):
    """What `tsalign show RUN --json` prints and `tsalign.run()` returns.

    Attributes:
        status: running, done, failed or stopped.
        results: name -> number, of the last iteration that reports any and of the run's own stages.
        reports: as in an iteration, of the run's own stages.
        warnings: why the results may mislead: what the newest stage of each name warns of.
        anew: stage -> what changed, of stages that the last driver did anew.
        seconds: wall-clock seconds of all stages, over all their attempts.
    """

    run: str
    recipe: str
    status: str
    results: dict[str, int | float]
    iterations: list[IterationSummary]
    reports: dict[str, dict[str, Any]]
    warnings: list[str]
    anew: dict[str, str]
    cost: Cost
    seconds: float


def find_run(run: str, storage: str = "runs") -> UPath:
    """The directory of a run given by name, or by its path.

    Raises:
        TsalignError: there is no such run; the message lists the nearest names.
    """
    for folder in (_in_storage(run, storage), _itself(run)):
        if folder is not None and (folder / "ledger.jsonl").exists():
            return folder
    names = [folder.name for folder in _run_dirs(storage)]
    near = difflib.get_close_matches(run, names, 3, 0.4)
    hint = f"did you mean {' or '.join(near)}?" if near else f"`tsalign runs --storage {storage}` lists what there is."
    raise TsalignError(f"{run}: no such run in {storage}; {hint}")


def _in_storage(run: str, storage: str) -> UPath | None:
    try:
        return resolve(storage) / run_name(run)
    except ValueError:
        return None


def _itself(run: str) -> UPath:
    """A directory, by a path that ends in its name: `..` and links are followed."""
    folder = resolve(run)
    return folder if folder.protocol else folder.resolve()


def read_reports(run_dir: UPath) -> Reports:
    """What the finished stages of a run have to show; in the stages' order, but what has a table comes first."""
    found: list[tuple[int, str, Report]] = []
    for stage in Ledger(run_dir / "ledger.jsonl").done():
        if (report := read_report(output(run_dir, stage))) is not None:
            found.append((*place(stage), report))
    reports: Reports = {}
    for number, name, report in sorted(found, key=lambda each: each[2].table is None):
        reports.setdefault(number, {})[name] = report
    return reports


def last_reports(reports: Reports) -> list[Report]:
    """Those of the last iteration, and of the run's own stages; an iteration without a table is not over."""
    tables = [number for number, found in reports.items() if any(report.table for report in found.values())]
    last = max(tables or reports, default=0)
    return [report for number in dict.fromkeys((last, 0)) for report in reports.get(number, {}).values()]


def warnings(reports: Reports) -> list[str]:
    """What the newest stage of each name warns of, with its place."""
    newest = {stage: (number, report) for number in sorted(reports) for stage, report in reports[number].items()}
    return [
        f"{f'{number}/{stage}' if number else stage}: {text}"
        for stage, (number, report) in newest.items()
        for text in report.warnings
    ]


def results(reports: Iterable[Report]) -> dict[str, int | float]:
    """Name -> number, the headline first; of results with the same name the last one."""
    return {name: value for report in reports for name, value in report.results.items()}


def summarise_run(run_dir: UPath) -> RunSummary:
    """One run in numbers."""
    seconds, reports = stage_seconds(run_dir), read_reports(run_dir)
    numbers = sorted({number for number, _ in map(place, seconds)} - {0})
    return {
        "run": run_dir.name,
        "recipe": _recipe(run_dir),
        "status": status(run_dir),
        "results": results(last_reports(reports)),
        "iterations": [
            {
                "iteration": number,
                "results": results(reports.get(number, {}).values()),
                "reports": _plain(reports.get(number, {})),
                "seconds": {place(stage)[1]: spent for stage, spent in seconds.items() if place(stage)[0] == number},
            }
            for number in numbers
        ],
        "reports": _plain(reports.get(0, {})),
        "warnings": warnings(reports),
        "anew": redone(run_dir),
        "cost": cost_of_run(run_dir),
        "seconds": round(sum(seconds.values()), 2),
    }


def redone(run_dir: UPath) -> dict[str, str]:
    """Stage -> what changed, of those that the last driver did anew."""
    entries = Ledger(run_dir / "ledger.jsonl").entries
    starts = [index for index, entry in enumerate(entries) if entry.get("run") == "started"]
    newest = entries[starts[-1] :] if starts else []
    return {entry["stage"]: entry["anew"] for entry in newest if "anew" in entry}


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
    """A run in brief; of one whose files are damaged, what is wrong with it."""
    try:
        return _in_brief(folder)
    except (TsalignError, ValueError, KeyError) as error:
        about = {"recipe": "", "status": "damaged", "started": "", "iterations_done": 0, "results": {}}
        return {"run": folder.name, **about, "error": str(error)}


def _in_brief(folder: UPath) -> dict[str, Any]:
    entries, reports = Ledger(folder / "ledger.jsonl").entries, read_reports(folder)
    first = entries[0]["time"] if entries else 0.0
    return {
        "run": folder.name,
        "recipe": _recipe(folder),
        "status": status(folder),
        "started": datetime.fromtimestamp(first, UTC).isoformat(timespec="milliseconds"),
        "iterations_done": sum(number > 0 and bool(results(found.values())) for number, found in reports.items()),
        "results": results(last_reports(reports)),
    }


def _recipe(folder: UPath) -> str:
    return str(read_yaml(folder / "config.yaml").get("recipe", ""))


def _plain(found: dict[str, Report]) -> dict[str, dict[str, Any]]:
    return {stage: asdict(report) for stage, report in found.items()}
