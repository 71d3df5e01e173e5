"""Streamed stages: done at once where the run is streaming, found again as if they had been done in turn."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from upath import UPath

from tsalign.config import RunConfig
from tsalign.runs.artifacts import Dataset
from tsalign.runs.iteration import Iteration
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

ROWS: list[list[str]] = []  # what was done at once


def together(parts: Sequence[tuple[Stage, str]]) -> None:
    ROWS.append([stage.name for stage, _ in parts])
    for stage, source in parts:
        before = (Path(source) / "text").read_text() if source else ""
        stage.out.mkdir(parents=True)
        (stage.out / "text").write_text(before + stage.name[-1])


@stage_function("grow")
def grow(stage: Stage, source: Dataset | None = None, fail: str = "") -> Dataset:
    """Adds the last letter of its name to what the source has."""
    if fail:
        raise ValueError(fail)
    part = (stage, source.path if source else "")
    if stage.seat:
        stage.seat.bring(part, together)
    else:
        together([part])
    return Dataset(str(stage.out), stage.fingerprint)


def recipe(run: Run, streaming: bool, **last: Any) -> Dataset:
    made: Dataset | None = None
    for it in run.iterations(2, streaming):
        made = three(it, made, **last)
        made = it.stage("d", grow, made)
    assert made
    return made


def three(it: Iteration, made: Dataset | None, **last: Any) -> Dataset:
    first = it.stream("a", grow, made)
    second = it.stream("b", grow, first)
    return it.stream("c", grow, second, **last)


def run_once(folder: Path, streaming: bool, **last: Any) -> str:
    ROWS.clear()
    run = Run(RunConfig(recipe="test", storage=str(folder), loggers=()), "r")
    with run.open():
        made = recipe(run, streaming, **last)
    return (UPath(made.path) / "text").read_text()


def test_what_is_streamed_is_done_at_once_and_before_what_needs_it(tmp_path: Path) -> None:
    assert run_once(tmp_path, streaming=True) == "abcdabcd"
    assert ROWS == [["1/a", "1/b", "1/c"], ["1/d"], ["2/a", "2/b", "2/c"], ["2/d"]]


@pytest.mark.parametrize("first", [True, False])
def test_a_run_may_go_on_the_other_way(tmp_path: Path, first: bool) -> None:
    assert run_once(tmp_path, streaming=first) == "abcdabcd"
    assert run_once(tmp_path, streaming=not first) == "abcdabcd"
    assert ROWS == []  # all was found


def test_only_what_is_not_done_takes_part(tmp_path: Path) -> None:
    run_once(tmp_path, streaming=True)
    for name in "bc":
        shutil.rmtree(tmp_path / "r" / "iterations" / "2" / name)
    assert run_once(tmp_path, streaming=True) == "abcdabcd"
    assert ROWS == [["2/b", "2/c"]]


def test_a_stage_that_fails_ends_the_run_by_its_own_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no c"):
        run_once(tmp_path, streaming=True, fail="no c")
    assert ROWS == []
    assert run_once(tmp_path, streaming=True) == "abcdabcd"


def test_what_is_streamed_last_is_done_when_the_recipe_ends(tmp_path: Path) -> None:
    ROWS.clear()
    run = Run(RunConfig(recipe="test", storage=str(tmp_path), loggers=()), "r")
    with run.open():
        for it in run.iterations(1, streaming=True):
            made = three(it, None)
    assert (UPath(made.path) / "text").read_text() == "abc"
    assert ROWS == [["1/a", "1/b", "1/c"]]
