"""One Ray task that makes a dataset, and rows into shards."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import Placement
from tsalign.data.shards import Row, read_rows, write_rows
from tsalign.data.tasks import in_one_task
from tsalign.runs.artifacts import Dataset


def numbers(out: UPath, count: int) -> dict[str, int]:
    if not count:
        raise TsalignError("count: expected at least 1")
    return {"rows": write_rows(out, ({"number": number} for number in range(count)), shard_size=2)}


def numbers_in(dataset: Dataset) -> list[list[int]]:
    return [[row["number"] for row in read_rows(shard)] for shard in dataset.shards()]


def test_a_task_makes_a_dataset_and_its_counts(ray_session: None, make_stage: Callable) -> None:
    stage, log = make_stage()
    made = in_one_task(stage, numbers, 5, placement=Placement(cpus=2))
    assert numbers_in(made) == [[0, 1], [2, 3], [4]]
    assert (made.fingerprint, log["rows"]) == (stage.fingerprint, 5)


def test_a_task_s_error_comes_as_it_was_raised(ray_session: None, make_stage: Callable) -> None:
    with pytest.raises(TsalignError, match=r"^count: expected at least 1$") as caught:
        in_one_task(make_stage()[0], numbers, 0)
    assert type(caught.value) is TsalignError


def test_each_portion_begins_a_shard_and_only_one_shard_is_held(tmp_path: Path) -> None:
    out = UPath(tmp_path) / "rows"
    written = []

    def rows(count: int) -> Iterator[Row]:
        for number in range(count):
            written.append(len(list(out.glob("part-*"))) if out.exists() else 0)
            yield {"number": number}

    assert write_rows(out, rows(3), rows(4), shard_size=2) == 7
    assert numbers_in(Dataset(str(out), "rows")) == [[0, 1], [2], [0, 1], [2, 3]]
    assert written == [0, 0, 1, 2, 2, 3, 3]
    assert write_rows(out, [{"number": 7}], shard_size=2) == 1
    assert numbers_in(Dataset(str(out), "rows")) == [[7]]
