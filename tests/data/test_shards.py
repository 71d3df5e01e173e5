"""Shards on any filesystem: what is written is read, with its counts, or is not there at all."""

from __future__ import annotations

from collections import Counter
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from upath import UPath

from tsalign.data.schema import COLUMNS, to_table
from tsalign.data.shards import Shard, iterate, read_counts, read_rows, take_counts, write_rows, write_shard
from tsalign.runs.artifacts import Dataset

ROWS = [
    {
        "prompt_id": f"p{i}",
        "set": "s",
        "prompt": [{"role": "user", "content": "é\n"}],
        "completions": [
            {"text": "a", "token_ids": [1, 2], "finish": "stop", "seed": 2**62, "temperature": 0.5},
            {"text": "", "token_ids": None, "finish": "length", "seed": 0, "temperature": 1.0},
        ],
        "score.teacher": [0.1, None],
        "distance": i / 3,
    }
    for i in range(5)
]


@pytest.fixture(params=["{tmp}", "memory://shards"])
def folder(request: pytest.FixtureRequest, tmp_path: Any) -> UPath:
    return UPath(request.param.format(tmp=tmp_path)) / tmp_path.name


def test_rows_come_back_as_they_were(folder: UPath) -> None:
    write_shard(folder / "part-00000.parquet", Shard(ROWS))
    assert read_rows(folder / "part-00000.parquet") == ROWS
    assert read_rows(folder / "part-00000.parquet", ["set", "absent"]) == [{"set": "s"}] * 5
    assert [file.name for file in folder.iterdir()] == ["part-00000.parquet"], "no temporary file is left"


def test_shards_are_read_in_order_and_only_those_that_are_named(folder: UPath) -> None:
    assert write_rows(folder, ROWS[:3], ROWS[3:], shard_size=2) == 5
    whole = Dataset(str(folder), "f")
    names = [shard.name for shard in whole.shards()]
    assert names == [f"part-{number:05}.parquet" for number in range(3)], "each portion begins a shard"
    assert [row["prompt_id"] for row in iterate([whole])] == [row["prompt_id"] for row in ROWS]
    some = Dataset(str(folder), "f", names=[names[2], names[0]])  # type: ignore[arg-type]
    assert [row["prompt_id"] for row in iterate([some, some], ["prompt_id"])] == ["p0", "p1", "p3", "p4"] * 2
    assert write_rows(folder, ROWS[:1], shard_size=2) == 1
    assert len(whole.shards()) == 1, "what was there before is gone"


def test_counts_of_all_shards_add_up(folder: UPath) -> None:
    failed = [{"prompt_id": "x", "reason": "why"}]
    write_shard(folder / "part-00000.parquet", Shard(ROWS, failed, {"tokens": 7.5}))
    write_shard(folder / "part-00001.parquet", Shard(ROWS[:1], [], {"tokens": 1, "flipped": 2}))
    assert read_counts(Dataset(str(folder), "f")) == {"rows": 6, "failed": 1, "tokens": 8.5, "flipped": 2}
    assert read_counts(Dataset(str(folder / "nothing"), "f")) == {}


def test_an_empty_shard_is_a_shard(folder: UPath) -> None:
    write_shard(folder / "part-00000.parquet", Shard([], counts={"tied": 3}))
    assert read_rows(folder / "part-00000.parquet") == []
    assert read_counts(Dataset(str(folder), "f")) == {"rows": 0, "failed": 0, "tied": 3}


def test_a_failed_write_leaves_what_was_there(folder: UPath, monkeypatch: pytest.MonkeyPatch) -> None:
    path = folder / "part-00000.parquet"
    write_shard(path, Shard(ROWS))

    def broken(*_: Any, **__: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(pq, "write_table", broken)
    with pytest.raises(OSError, match="disk full"):
        write_shard(path, Shard(ROWS[:1]))
    assert read_rows(path) == ROWS
    assert len(list(folder.iterdir())) == 1


@given(st.sets(st.sampled_from(sorted(COLUMNS)), min_size=1))
def test_documented_columns_keep_their_type_even_where_all_are_none(names: set[str]) -> None:
    table = to_table([dict.fromkeys(sorted(names))])
    assert {field.name: field.type for field in table.schema} == {name: COLUMNS[name] for name in names}


def test_what_was_counted_is_taken_once() -> None:
    engine = SimpleNamespace(counts=Counter(calls=3, tokens=40, malformed=1))
    assert take_counts(engine, "judge", "axes") == {"calls.judge": 3, "tokens.judge": 40, "axes_malformed": 1}
    assert take_counts(engine, "judge", "axes") == {}
