"""A recipe whose stages do not end by themselves, for tests that end them."""

from __future__ import annotations

import os
import time
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.config import Placement, RunConfig
from tsalign.data.shards import Row, Shard, write_rows
from tsalign.data.tasks import in_one_task
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

HALF = Placement(cpus=0.5)


class EndlessConfig(RunConfig):
    """What the first stage does once both are at work: nothing, or `fail`."""

    then: str = "nothing"


class Endless:
    """Says that it is at work, and works for ever, or fails once all are at work."""

    def __init__(self, place: str, then: str) -> None:
        self.place, self.then = UPath(place), then

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        (self.place / f"at-work-{os.getpid()}").touch()
        while len(list(self.place.glob("at-work-*"))) < 2:
            time.sleep(0.01)
        if self.then == "fail":
            raise TsalignError("this came first")
        while True:
            time.sleep(1)


@stage_function("endless/rows")
def rows(stage: Stage) -> Dataset:
    return in_one_task(stage, _write)


def _write(out: UPath) -> dict[str, float]:
    return {"rows": write_rows(out, ({"prompt_id": str(n)} for n in range(4)), shard_size=2)}


@stage_function("endless/work")
def work(stage: Stage, data: Dataset, then: str) -> Dataset:
    place = stage.out.parent
    place.mkdir(exist_ok=True)
    return map_shards(stage, data, Endless, {"place": str(place), "then": then}, HALF)


@rows.expects
def _expect_rows(stage: PlannedStage) -> Dataset:
    return stage.dataset(4)


@work.expects
def _expect_work(stage: PlannedStage, data: Dataset, then: str) -> Dataset:
    return stage.derived(data)


@recipe("endless", EndlessConfig)
def endless(run: Run, cfg: Any) -> None:
    """Two stages side by side."""
    data = run.stage("rows", rows)
    run.overlap(run.stage, "beside", work, data, cfg.then)
    run.stage("main", work, data, "nothing")
