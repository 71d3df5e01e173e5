"""Passes that are one pipeline: the rows of passes one after the other, and the same after an interruption."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import Placement
from tsalign.data.actors import is_current
from tsalign.data.passes import Pass, run_passes
from tsalign.data.shards import Row, Shard, iterate, read_counts, write_rows, write_shard
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage

ONE = Placement(cpus=0.5)
Make = Callable[..., tuple[Stage, object]]


class Adding:
    """Adds to each number; the rows whose sum is in `unanswered` get no answer.

    Makes the file `begins`; does its last shard only once the file `awaits` is there.
    """

    def __init__(
        self, amount: int, unanswered: tuple[int, ...] = (), begins: str | None = None, awaits: str | None = None
    ) -> None:
        self.amount, self.unanswered, self.begins, self.awaits = amount, unanswered, begins, awaits

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        if self.begins:
            Path(self.begins).touch()
        if self.awaits and shard == "part-00002.parquet":
            wait_for(Path(self.awaits))
        made = [{**row, "number": row["number"] + self.amount} for row in rows]
        failed = [row for row in made if row["number"] in self.unanswered]
        lost = [{"prompt_id": row["prompt_id"], "reason": "asleep", "answered": False} for row in failed]
        return Shard([row for row in made if row not in failed], lost, {"asked": len(rows)})


def wait_for(file: Path) -> None:
    deadline = time.monotonic() + 300
    while not file.exists():
        if time.monotonic() > deadline:
            raise TsalignError(f"{file} did not come")
        time.sleep(0.05)


@pytest.fixture
def source(tmp_path: Path, ray_session: None) -> Dataset:
    rows = ({"prompt_id": f"p{number}", "number": number} for number in range(12))
    write_rows(UPath(tmp_path) / "source", rows, shard_size=4)
    return Dataset(str(tmp_path / "source"), "source")


def chain(source: Dataset, make_stage: Make, *steps: dict[str, Any]) -> list[Pass]:
    """Passes each of which reads what the one before makes."""
    passes = list[Pass]()
    for number, arguments in enumerate(steps):
        stage = replace(make_stage(f"stage{number}")[0], max_failed_fraction=1.0)
        before = passes[-1].output if passes else source
        passes.append(Pass(stage, before, Adding, arguments, ONE))
    return passes


def numbers(data: Dataset) -> list[int]:
    return sorted(row["number"] for row in iterate([data]))


def test_a_pipeline_makes_what_its_passes_make_in_turn(source: Dataset, make_stage: Make, tmp_path: Path) -> None:
    steps = [{"amount": 100}, {"amount": 1000, "unanswered": (1105,)}, {"amount": 10000}]
    together = chain(source, make_stage, *steps)
    run_passes(together)
    rows = [[row for shard in one.output.shards() for row in iterate([one.output])] for one in together]
    for one in together:
        one.stage.out.rename(one.stage.out.with_name(f"{one.stage.out.name}.before"))
    for one in chain(source, make_stage, *steps):
        run_passes([one])
    assert rows == [[row for shard in one.output.shards() for row in iterate([one.output])] for one in together]
    assert numbers(together[2].output) == [11100 + number for number in range(12) if number != 5]
    assert set(together[1].stage.phases) == {"start", "load", "work", "commit"}


def test_a_later_pass_begins_while_an_earlier_one_works(source: Dataset, make_stage: Make, tmp_path: Path) -> None:
    begun = str(tmp_path / "begun")
    passes = chain(source, make_stage, {"amount": 1, "awaits": begun}, {"amount": 1, "begins": begun})
    run_passes(passes)
    assert numbers(passes[1].output) == [2 + number for number in range(12)]


def test_rows_that_a_pass_gets_late_go_through_the_ones_after_it(source: Dataset, make_stage: Make) -> None:
    run_passes(chain(source, make_stage, {"amount": 100, "unanswered": (105, 111)}, {"amount": 1000}))
    passes = chain(source, make_stage, {"amount": 100}, {"amount": 1000})
    run_passes(passes)
    assert numbers(passes[1].output) == [1100 + number for number in range(12)]
    # The two that were missing, and nothing twice.
    assert [read_counts(one.output)["asked"] for one in passes] == [12 + 2, 10 + 2]


def test_a_pass_that_was_cut_off_goes_on_where_it_was(source: Dataset, make_stage: Make) -> None:
    passes = chain(source, make_stage, {"amount": 100}, {"amount": 1000})
    run_passes(passes[:1])
    run_passes(passes)
    passes[1].output.shards()[1].unlink()
    run_passes(passes)
    assert numbers(passes[1].output) == [1100 + number for number in range(12)]
    assert [read_counts(one.output)["asked"] for one in passes] == [12, 12]
    run_passes(passes)  # nothing is missing: nothing is started


@pytest.mark.parametrize(
    ("source_rows", "read", "failed", "current"),
    [(4, 4, [], True), (5, 4, [], False), (4, None, [], True), (4, 4, [{"prompt_id": "p", "answered": False}], False)],
)
def test_a_shard_is_current_when_it_was_made_of_all_there_is(
    tmp_path: Path, source_rows: int, read: int | None, failed: list[Row], current: bool
) -> None:
    source, made = UPath(tmp_path) / "source.parquet", UPath(tmp_path) / "made.parquet"
    write_shard(source, Shard([{"prompt_id": f"p{number}"} for number in range(source_rows)]))
    write_shard(made, Shard([{"prompt_id": "p0"}], failed), read)
    assert is_current(made, source, retry_failed=False) is current
    source.unlink()
    assert not is_current(made, source, retry_failed=False)
