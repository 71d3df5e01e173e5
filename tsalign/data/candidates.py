"""Candidate files of anybody's as shards: prompts with several completions each, to make preferences of."""

from __future__ import annotations

from typing import Any

from upath import UPath

from tsalign.common.seeds import derive
from tsalign.data.checks import check_rows
from tsalign.data.counting import count_rows
from tsalign.data.preferences import SHARD_SIZE, parsed
from tsalign.data.shards import Row, write_rows
from tsalign.data.sources import BadRow, Record, contents, to_messages
from tsalign.data.tasks import in_one_task
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function


@stage_function("candidates")
def load_candidates(stage: Stage, location: str) -> Dataset:
    """Rows with a prompt and `completions`, each a text or an object with `text`, from JSONL, JSON or Parquet.

    Columns `score.*`, one number a completion, are kept, so that a student's scores need not be made again.

    Raises:
        TsalignError: no such file, or a malformed row; with file and line.
    """
    return in_one_task(stage, _load, location)


@load_candidates.reads
def _read_candidates(location: str) -> dict[str, str]:
    return contents([location])


@load_candidates.expects
def _expect_candidates(stage: PlannedStage, location: str) -> Dataset:
    check_rows(stage.plan, "candidates", [location], candidate_set)
    rows = count_rows([location], stage.plan)
    stage.needs("", ONE_TASK, {"rows": rows})
    return stage.dataset(rows, completions=None)


def _load(out: UPath, location: str) -> dict[str, int]:
    return {"rows": write_rows(out, parsed(location, candidate_set), shard_size=SHARD_SIZE)}


def candidate_set(record: Record) -> Row:
    """A row in the columns of candidate sets; what only a run of ours knows is empty.

    Raises:
        BadRow: no prompt, fewer than two completions, or not one score a completion.
    """
    prompt, row = to_messages(record, None), record.row
    given = row.get("completions")
    if not isinstance(given, list) or len(given) < 2:
        raise BadRow("completions: expected a list of two texts or more")
    scores = {name: value for name, value in row.items() if name.startswith("score.")}
    if wrong := next((name for name, value in scores.items() if len(value or ()) != len(given)), None):
        raise BadRow(f"{wrong}: expected one number for each of the {len(given)} completions")
    return {
        "prompt_id": row.get("prompt_id") or f"{derive(str(prompt)):016x}",
        "set": row.get("set") or record.set,
        "prompt": prompt,
        "prompt_ids": row.get("prompt_ids"),
        "completions": [_completion(each) for each in given],
        "writer": row.get("writer") or "",
        "sampling": row.get("sampling") or "",
        **scores,
    }


def _completion(given: Any) -> Row:
    told = {"text": given} if isinstance(given, str) else given
    if not isinstance(told, dict) or not isinstance(told.get("text"), str):
        raise BadRow("completions: expected texts, or objects with a text")
    names = ("text", "token_ids", "finish", "seed", "temperature")
    return {**dict.fromkeys(names), "finish": "stop", **{name: told[name] for name in names if name in told}}
