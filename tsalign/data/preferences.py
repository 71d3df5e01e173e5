"""Preference files (TRL's conversational form) as shards: what a student learned before the run, for replay."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.seeds import derive
from tsalign.data.checks import check_rows
from tsalign.data.counting import count_rows
from tsalign.data.shards import Row, write_rows
from tsalign.data.sources import BadRow, Record, contents, read, to_messages
from tsalign.data.tasks import in_one_task
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

SHARD_SIZE = 512


@stage_function("preferences")
def load_preferences(stage: Stage, location: str) -> Dataset:
    """Rows with `prompt`, `chosen` and `rejected`, each text or messages, from JSONL, JSON or Parquet.

    Raises:
        TsalignError: no such file, or a malformed row; with file and line.
    """
    return in_one_task(stage, _load, location)


@load_preferences.reads
def _read_preferences(location: str) -> dict[str, str]:
    return contents([location])


@load_preferences.expects
def _expect_preferences(stage: PlannedStage, location: str) -> Dataset:
    check_rows(stage.plan, "student_preferences", [location], _preference)
    rows = count_rows([location], stage.plan)
    stage.needs("", ONE_TASK, {"rows": rows})
    return stage.dataset(rows, completions=2)


def _load(out: UPath, location: str) -> dict[str, int]:
    return {"rows": write_rows(out, parsed(location, _preference), shard_size=SHARD_SIZE)}


def parsed(location: str, parse: Callable[[Record], Row]) -> Iterator[Row]:
    """What `parse` makes of each row of a file.

    Raises:
        TsalignError: it refuses one; with file and line.
    """
    for record in read([location]):
        try:
            yield parse(record)
        except BadRow as error:
            raise TsalignError(f"{record.file}:{record.line}: {error}") from None


def _preference(record: Record) -> Row:
    prompt = to_messages(record, None)
    sides = {side: _reply(record.row, side) for side in ("chosen", "rejected")}
    return {"prompt_id": f"{derive(str(prompt)):016x}", "prompt": prompt, **sides}


def _reply(row: dict[str, Any], side: str) -> list[dict[str, str]]:
    value = row.get(side)
    if isinstance(value, str):
        return [{"role": "assistant", "content": value}]
    if not isinstance(value, list) or not value or not isinstance(value[-1].get("content"), str):
        raise BadRow(f"{side}: expected text, or messages that end with the reply")
    return [{"role": "assistant", "content": value[-1]["content"]}]
