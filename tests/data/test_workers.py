"""A pass of workers over shards: rows shown while a shard is in work, errors, lost actors, seconds by phase."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.progress import Advance, unseen
from tsalign.config import Placement
from tsalign.data.shards import Row, Shard, iterate, write_rows
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.stage import Stage
from tsalign.runs.terminal import Bar

ONE = Placement()
Make = Callable[..., tuple[Stage, object]]


class Seen(Bar):
    """A bar that remembers; at `reaching` it makes the file that a worker waits for."""

    def __init__(self, reaching: float, file: Path) -> None:
        super().__init__()
        self.reaching, self.file = reaching, file
        self.total, self.moves = 0, list[float]()

    def count(self, total: int, unit: str, done: int = 0) -> None:
        self.total, self.moves = total, [done]

    def move(self, done: float, rate: str = "") -> None:
        self.moves.append(done)
        if done >= self.reaching:
            self.file.touch()


class Waiting:
    """Does 3/5 of each shard; goes on with the second shard only when it may, or dies of it when it first comes."""

    def __init__(self, may: str, dies: str | None = None) -> None:
        self.may, self.dies = Path(may), dies
        self.report: Advance = unseen

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        for _ in range(3):
            self.report(0.2)
        if shard == "part-00001.parquet":
            deadline = time.monotonic() + 300
            while not self.may.exists() and time.monotonic() < deadline:
                time.sleep(0.05)
                self.report(0.0)
            if self.dies and not Path(self.dies).exists():
                Path(self.dies).touch()
                os._exit(1)
        self.report(0.4)
        return Shard(rows)


class Refusing:
    """Loads for a while; refuses to load, or a shard."""

    def __init__(self, where: str) -> None:
        time.sleep(0.3)
        if where == "load":
            raise TsalignError("judge: no such model")
        self.where = where

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        if self.where == shard:
            raise TsalignError(f"teacher is down at {shard}")
        return Shard(rows)


@pytest.fixture
def source(tmp_path: Path, ray_session: None) -> Dataset:
    """Three shards of 5, 5 and 2 rows."""
    write_rows(UPath(tmp_path) / "source", ({"number": number} for number in range(12)), shard_size=5)
    return Dataset(str(tmp_path / "source"), "source")


@pytest.mark.parametrize("dies", [False, True])
def test_the_bar_counts_rows_inside_a_shard(
    dies: bool, source: Dataset, make_stage: Make, released: Callable[[], None], tmp_path: Path
) -> None:
    bar = Seen(0.6 * 5, tmp_path / "may")  # whichever shard is done first
    stage = replace(make_stage()[0], bar=bar)
    arguments = {"may": str(tmp_path / "may"), "dies": str(tmp_path / "died") if dies else None}
    made = map_shards(stage, source, Waiting, arguments, ONE)
    assert [row["number"] for row in iterate([made])] == list(range(12))
    assert (bar.total, bar.moves[-1]) == (12, 12)
    assert not set(bar.moves) <= {0, 2, 5, 7, 10, 12}, bar.moves  # sums of whole shards
    assert max(bar.moves) == 12
    assert (tmp_path / "died").exists() == dies
    released()


def test_what_was_committed_counts_as_done(source: Dataset, make_stage: Make, tmp_path: Path) -> None:
    stage, _ = make_stage()
    arguments = {"may": str(tmp_path)}
    made = map_shards(stage, source, Waiting, arguments, ONE)
    made.shards()[1].unlink()
    bar = Seen(0, tmp_path / "unused")
    map_shards(replace(stage, bar=bar), source, Waiting, arguments, ONE)
    assert (bar.total, bar.moves[0], bar.moves[-1]) == (12, 7, 12)


class Deadly:
    """Kills its actor in the second shard, each time; notes that."""

    def __init__(self, notes: str) -> None:
        self.notes = Path(notes)

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        if shard == "part-00001.parquet":
            with self.notes.open("a") as file:
                file.write("x")
            os._exit(1)
        return Shard(rows)


def test_a_shard_that_kills_its_actor_is_not_tried_for_ever(source: Dataset, make_stage: Make, tmp_path: Path) -> None:
    stage, _ = make_stage()
    with pytest.raises(TsalignError, match=r"part-00001\.parquet: 4 actors were lost while they worked on it"):
        map_shards(stage, source, Deadly, {"notes": str(tmp_path / "notes")}, ONE)
    assert (tmp_path / "notes").read_text() == "x" * 4


@pytest.mark.parametrize(
    ("where", "message"), [("load", "judge: no such model"), ("part-00001.parquet", "teacher is down at part-00001")]
)
def test_a_worker_s_error_comes_as_it_was_raised(
    where: str, message: str, source: Dataset, make_stage: Make, released: Callable[[], None]
) -> None:
    with pytest.raises(TsalignError, match=f"^{message}") as caught:
        map_shards(make_stage()[0], source, Refusing, {"where": where}, ONE)
    assert type(caught.value) is TsalignError
    released()


def test_seconds_by_phase_add_up_over_passes(source: Dataset, make_stage: Make) -> None:
    stage, _ = make_stage()
    began = time.monotonic()
    map_shards(stage, source, Refusing, {"where": ""}, Placement(replicas=2))
    once = dict(stage.phases)
    assert set(once) == {"start", "load", "work", "commit"}
    assert once["load"] >= 0.3
    assert sum(once.values()) <= time.monotonic() - began + 0.04  # each is rounded to hundredths
    map_shards(replace(stage, out=stage.out / "again"), source, Refusing, {"where": ""}, ONE)
    assert stage.phases["load"] >= once["load"] + 0.3


class Moody:
    """Fails the rows whose number is in `unanswered` or `bad` as such; keeps the others; counts what it was asked."""

    def __init__(self, unanswered: tuple[int, ...] = (), bad: tuple[int, ...] = (), down_at: str = "") -> None:
        self.unanswered, self.bad, self.down_at = unanswered, bad, down_at

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        down = shard == self.down_at
        failed = [
            {"prompt_id": row["prompt_id"], "reason": "moody", "answered": row["number"] in self.bad and not down}
            for row in rows
            if down or row["number"] in (*self.unanswered, *self.bad)
        ]
        lost = {row["prompt_id"] for row in failed}
        kept = [row for row in rows if row["prompt_id"] not in lost]
        return Shard(kept, failed, {"asked": len(rows)}, "the teacher is down" if down else "")


@pytest.fixture
def numbered(tmp_path: Path, ray_session: None) -> Dataset:
    rows = ({"prompt_id": f"p{number}", "number": number} for number in range(12))
    write_rows(UPath(tmp_path) / "source", rows, shard_size=5)
    return Dataset(str(tmp_path / "source"), "source")


def numbers(data: Dataset) -> list[int]:
    return sorted(row["number"] for row in iterate([data]))


def test_only_rows_without_an_answer_are_asked_again(numbered: Dataset, make_stage: Make) -> None:
    stage, log = make_stage()
    arguments = {"unanswered": (1, 7), "bad": (8,)}
    with pytest.raises(TsalignError, match=r"3 of 12 rows failed, more than max_failed_fraction = 0\.01") as caught:
        map_shards(stage, numbered, Moody, arguments, ONE)
    assert "--retry-failed" in str(caught.value)
    before = {shard.name: shard.read_bytes() for shard in Dataset(str(stage.out), "").shards()}
    with pytest.raises(TsalignError, match="1 of 12 rows failed"):
        map_shards(stage, numbered, Moody, {}, ONE)
    assert log["asked"] == 12 + 2
    made = map_shards(replace(stage, max_failed_fraction=0.1), numbered, Moody, {}, ONE)
    assert numbers(made) == [0, 1, 2, 3, 4, 5, 6, 7, 9, 10, 11]
    after = {shard.name: shard.read_bytes() for shard in made.shards()}
    assert [name for name in before if before[name] == after[name]] == ["part-00002.parquet"]
    (kept,) = (stage.quarantine / "part-00001.jsonl").read_text().splitlines()
    assert '"p8"' in kept


def test_rows_answered_badly_are_asked_again_on_demand(numbered: Dataset, make_stage: Make) -> None:
    stage, log = make_stage()
    with pytest.raises(TsalignError, match="2 of 12 rows failed"):
        map_shards(stage, numbered, Moody, {"bad": (0, 11)}, ONE)
    made = map_shards(replace(stage, retry_failed=True), numbered, Moody, {}, ONE)
    assert (numbers(made), log["asked"], log["failed"]) == (list(range(12)), 12 + 2, 0)


def test_a_pass_that_must_stop_commits_what_it_has(numbered: Dataset, make_stage: Make) -> None:
    stage, log = make_stage()
    with pytest.raises(TsalignError, match=r"^the teacher is down$"):
        map_shards(stage, numbered, Moody, {"down_at": "part-00001.parquet"}, ONE)
    assert (stage.out / "part-00001.parquet").exists()
    made = map_shards(stage, numbered, Moody, {}, ONE)
    assert (numbers(made), log["asked"]) == (list(range(12)), 12 + 5)
