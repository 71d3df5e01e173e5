"""Prompts are counted as they would be read, without looking into a row or asking storage elsewhere."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tsalign.data.counting import count_rows, count_sets
from tsalign.data.sources import read
from tsalign.runs.plan import Plan
from tsalign.toy.world import FAMILIES

ROWS = [{"prompt": f"prompt {number}"} for number in range(7)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A file of each format; a JSONL file with empty lines, one that is packed, one with a byte order mark."""
    lines = "\n".join(map(json.dumps, ROWS))
    (tmp_path / "lines.jsonl").write_text(f"\n{lines}\n\n")
    (tmp_path / "packed.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "array.json").write_bytes(b"\xef\xbb\xbf" + json.dumps(ROWS[:3]).encode())
    pq.write_table(pa.Table.from_pylist(ROWS[:5]), tmp_path / "table.parquet")
    (tmp_path / "README.md").write_text("none")
    return tmp_path


def test_every_format_is_counted_as_it_is_read(folder: Path) -> None:
    plan = Plan()
    assert count_sets([str(folder)], plan) == {"lines": 7, "packed": 7, "array": 3, "table": 5}
    assert count_rows([str(folder)], plan) == len(list(read([str(folder)]))) == 22
    assert plan.uncounted == {}


def test_each_file_counts_once(folder: Path) -> None:
    assert count_rows([str(folder), f"{folder}/*.jsonl", str(folder / "table.parquet")], Plan()) == 22


def test_rows_are_not_looked_into(tmp_path: Path) -> None:
    (tmp_path / "odd.jsonl").write_text("not JSON\n{}\n")
    assert count_rows([str(tmp_path)], Plan()) == 2


def test_built_in_rows_are_sets_of_their_own() -> None:
    found = count_sets(["toy:test"], Plan())
    assert found is not None
    assert set(found) == set(FAMILIES)
    assert sum(found.values()) == 1400
    assert count_rows(["toy:train"], Plan()) == 8000


@pytest.mark.parametrize("location", ["s3://bucket/*.parquet", "gs://bucket/prompts", "hf://datasets/org/name"])
def test_other_storage_is_unknown_and_not_asked(location: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def asked(*_: object) -> None:
        raise AssertionError("storage was asked")

    monkeypatch.setattr("tsalign.common.storage.get_filesystem_class", asked)
    monkeypatch.setattr("fsspec.core.url_to_fs", asked)
    plan = Plan()
    assert count_rows([str(folder), location], plan) is None
    assert plan.uncounted == {location: "not on this machine"}


def test_a_file_that_is_not_there_is_unknown(folder: Path) -> None:
    plan = Plan()
    missing = str(folder / "none.jsonl")
    assert count_rows([missing], plan) is None
    assert plan.uncounted == {missing: "nothing there"}
    assert count_rows([str(folder)], plan) == 22


def test_what_cannot_be_read_is_an_error(folder: Path) -> None:
    (folder / "cut.jsonl.gz").write_bytes(gzip.compress(b"{}\n" * 1000)[:20])
    (folder / "object.json").write_text("{}")
    plan = Plan()
    for name in ("cut.jsonl.gz", "object.json", "README.md"):
        assert count_rows([str(folder / name)], plan) is None
    cut, array, unknown = plan.problems
    assert "cut.jsonl.gz: cannot be read as .jsonl" in cut
    assert "object.json: cannot be read as .json: expected an array" in array
    assert "README.md: unknown format" in unknown
