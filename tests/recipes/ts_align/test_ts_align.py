"""TS-Align in the built-in world, whole: an uninterrupted run, and one whose driver is killed three times."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from driver import Driver, checkpointed, parts, row_hashes, rows_of
from planned import check_against_plan
from upath import UPath

from tsalign.common.storage import read_lines
from tsalign.data.shards import read_rows
from tsalign.runs.artifacts import Dataset
from tsalign.runs.status import status

pytestmark = pytest.mark.ray

CONFIG: dict[str, Any] = {
    "recipe": "ts-align",
    "iterations": 1,
    "policy": {"model": "toy:policy"},
    "student": {"model": "toy:student"},
    "teacher": {"model": "toy:teacher", "cpus": 0},
    "data": {"prompts": "toy:train", "prompts_per_iteration": 96, "shard_size": 16},
    "sampling": {"engine": "hf", "k": 4, "max_tokens": 16, "max_model_len": 128},
    "distill": {"batch_size": 16, "learning_rate": 1e-3, "precision": "fp32"},
    "tune": {
        "reference": "previous",
        "epochs": 4,
        "batch_size": 4,
        "learning_rate": 1e-4,
        "precision": "fp32",
        "checkpoint_steps": 10,
    },
    "evaluation": {
        "sets": {"toy": "toy:test"},
        "judge": "tsalign.toy.oracle:grade",
        "temperatures": [1.0, 0.0],
        "prompts_per_set": 6,
    },
}


# The service batches what arrives together, and the last bits of a score depend on its batch.
SERVED = ("score.label", "newest.teacher", "fixed.teacher")


def served(folder: Path) -> list[float]:
    """What the teacher service said."""
    return [score for row in rows_of(folder) for name in SERVED for score in row.get(name, [])]


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Driver:
    """A folder with the config and an uninterrupted run named `whole`."""
    driver = Driver(tmp_path_factory.mktemp("recipe"))
    (driver.folder / "config.yaml").write_text(yaml.safe_dump(CONFIG))
    (driver.folder / "terminal").write_text(driver.watch("whole"))
    return driver


@pytest.fixture
def folder(driver: Driver) -> Path:
    return driver.folder


def test_the_summary_is_complete(driver: Driver) -> None:
    folder, summary = driver.folder, json.loads(driver.call("show", "whole", "--json"))
    assert (summary["run"], summary["recipe"], summary["status"]) == ("whole", "ts-align", "done")
    (iteration,) = summary["iterations"]
    families = {"add", "sort", "reverse", "count", "upper", "max", "date"}
    won = iteration["reports"]["evaluation"]["table"]["columns"]["win rate"]
    assert set(won["values"]) == families
    assert won["ci95"][0] <= won["mean"] <= won["ci95"][1]
    assert won["mean"] == summary["results"]["win rate T=1.0"]
    # Two a prompt, less what was identical or had been asked before.
    assert (
        2 * Counts(folder, "1/preferences")["rows"] * 0.9 <= summary["cost"]["alignment"]["teacher"]["calls"] <= 2 * 96
    )
    assert set(iteration["reports"]["agreement"]["trends"]["student ~ teacher"]) == {"before", "after", "percent"}
    stages = {"candidates", "scores", "preferences", "student", "reference_0", "policy", "answers", "evaluation"}
    assert stages <= set(iteration["seconds"])


def test_the_terminal_shows_nothing_but_stages_and_their_bars(folder: Path) -> None:
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", (folder / "terminal").read_text())
    lines = [line.strip() for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert [line for line in lines if not line.startswith("✓ ") and "━" not in line] == []
    assert {"✓ 1/candidates", "✓ 1/policy", "✓ 1/evaluation"} <= {" ".join(line.split()[:2]) for line in lines}


def test_the_plan_is_what_was_run(folder: Path) -> None:
    check_against_plan(folder / "runs" / "whole")


def test_preferences_tell_where_they_come_from_and_trl_reads_them(folder: Path) -> None:
    place = folder / "runs" / "whole" / "iterations" / "1"
    rows = [row for shard in Dataset(str(place / "preferences"), "").shards() for row in read_rows(shard)]
    counts = Counts(folder, "1/preferences")
    assert len(rows) == counts["rows"] == 96 - counts["identical"] - counts["tied"]
    assert sum(row["flipped"] for row in rows) == counts["flipped"] > 0
    ledger = {
        e["stage"]: e for e in read_lines(UPath(folder / "runs/whole/ledger.jsonl")) if e.get("state") == "started"
    }
    writer = ledger["1/candidates"]["inputs"]["policy"]["fingerprint"]
    for row in rows:
        assert row["score.label"][0] > row["score.label"][1]
        assert row["writer"] == writer
        assert row["chosen_origin"]["seed"] != row["rejected_origin"]["seed"]
    exported = [json.loads(line) for line in (place / "preferences" / "preferences.jsonl").read_text().splitlines()]
    assert len(exported) == len(rows)
    assert {tuple(row) for row in exported} == {("prompt", "chosen", "rejected", "chosen_finish", "rejected_finish")}
    assert [row["chosen_finish"] for row in exported] == [row["chosen_origin"]["finish"] for row in rows]
    assert exported[0]["chosen"][0]["role"] == "assistant"


class Counts(dict[str, Any]):
    """The counts of a stage of the run `whole`."""

    def __init__(self, folder: Path, stage: str) -> None:
        entries = read_lines(UPath(folder / "runs" / "whole" / "ledger.jsonl"))
        super().__init__(next(e for e in entries if e.get("stage") == stage and e["state"] == "done")["counts"])


def test_tuning_starts_at_ln2_and_lengths_and_duplicates_are_reported(folder: Path) -> None:
    metrics = read_lines(UPath(folder / "runs" / "whole" / "metrics.jsonl"))
    first = next(m for m in metrics if m["stage"] == "policy" and "dpo" in m)
    assert first["dpo"] == pytest.approx(0.693147, abs=1e-4)
    counts = Counts(folder, "1/candidates")
    assert counts["completions"] == 4 * 96
    assert {"duplicates", "completion_tokens", "cut"} <= set(counts)
    summary = json.loads((folder / "runs/whole/iterations/1/evaluation/summary.json").read_text())
    assert set(summary["win_rate"]) == {"1.0", "0.0"}
    assert summary["quality"]["policy"]["length"] > 0
    assert summary["quality"]["policy"]["log_prob"] == pytest.approx(summary["quality"]["base"]["log_prob"], abs=1.0)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_run_killed_three_times_ends_as_if_it_never_was(driver: Driver) -> None:
    folder = driver.folder
    cut = folder / "runs" / "cut" / "iterations" / "1"
    committed: dict[str, int] = {}

    def sampling() -> bool:
        return len(parts(cut / "candidates")) >= 2

    def mining() -> bool:
        return len(parts(cut / "preferences")) >= 1

    def training() -> bool:
        return checkpointed(cut / "policy")

    for ready, stage in ((sampling, "candidates"), (mining, "preferences"), (training, "policy")):
        driver.kill_when("cut", ready)
        assert status(UPath(folder / "runs" / "cut")) == "stopped"
        committed |= {str(part): part.stat().st_mtime_ns for part in parts(cut / stage)}
    driver.run("cut")

    # What was committed before a kill was not made again.
    assert committed
    assert {part: Path(part).stat().st_mtime_ns for part in committed} == committed
    policy = [m for m in read_lines(UPath(folder / "runs/cut/metrics.jsonl")) if m["stage"] == "policy"]
    first, again = (index for index, m in enumerate(policy) if "examples" in m)
    assert policy[first]["step"] == 0
    assert policy[again]["step"] >= 10
    assert policy[again - 1]["step"] - policy[again]["step"] < 2 * CONFIG["tune"]["checkpoint_steps"]
    # And the end is the same: rows, and weights to the bit.
    whole = folder / "runs" / "whole" / "iterations" / "1"
    for stage in ("candidates", "scores", "preferences", "reference_0", "evaluation"):
        assert row_hashes(cut / stage, SERVED) == row_hashes(whole / stage, SERVED), stage
        assert served(cut / stage) == pytest.approx(served(whole / stage), abs=1e-4)
    for model in ("policy", "student"):
        assert (cut / model / "model.safetensors").read_bytes() == (whole / model / "model.safetensors").read_bytes()


def test_a_finished_run_is_not_run_again(driver: Driver) -> None:
    before = (driver.folder / "runs" / "whole" / "ledger.jsonl").read_text()
    driver.call("resume", "whole")
    assert (driver.folder / "runs" / "whole" / "ledger.jsonl").read_text() == before
