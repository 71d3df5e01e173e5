"""A recipe of two stages, of which the second waits for a file `go` in the storage; it travels with its config."""

from __future__ import annotations

import os
import time
from pathlib import Path

from pydantic import Field
from upath import UPath

from tsalign.config import RunConfig
from tsalign.data.shards import Row, Shard, write_rows
from tsalign.data.tasks import in_one_task
from tsalign.data.workers import map_shards
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import PlannedStage
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function


class HeldConfig(RunConfig):
    """Variables of the environment whose values the rows tell."""

    asked: tuple[str, ...] = Field((), description="Names of variables.")


@stage_function("held/look")
def look(stage: Stage, asked: tuple[str, ...]) -> Dataset:
    return in_one_task(stage, _look, asked)


def _look(out: UPath, asked: tuple[str, ...]) -> dict[str, float]:
    files = sorted(
        str(file.relative_to(Path.cwd())) for file in Path.cwd().rglob("*") if "__pycache__" not in str(file)
    )
    seen = [{"prompt_id": name, "seen": os.environ.get(name, "")} for name in asked]
    return {"rows": write_rows(out, [{"prompt_id": "files", "seen": " ".join(files)}, *seen], shard_size=1)}


class Waiting:
    """Passes rows on once there is a file `go`; says that it is at work."""

    def __init__(self, storage: str) -> None:
        self.storage = UPath(storage)

    def __call__(self, rows: list[Row], shard: str) -> Shard:
        (self.storage / "at-work").touch()
        while not (self.storage / "go").exists():
            time.sleep(0.05)
        return Shard(rows)


@stage_function("held/wait")
def wait(stage: Stage, data: Dataset, storage: str) -> Dataset:
    return map_shards(stage, data, Waiting, {"storage": storage}, stage.resources.mine)


@look.expects
def _expect_look(stage: PlannedStage, asked: tuple[str, ...]) -> Dataset:
    return stage.dataset(len(asked) + 1)


@wait.expects
def _expect_wait(stage: PlannedStage, data: Dataset, storage: str) -> Dataset:
    stage.needs("", stage.resources.mine, {"rows": None})
    return stage.derived(data)


@recipe("held", HeldConfig)
def held(run: Run, cfg: HeldConfig) -> None:
    """What the job sees, and then waits for."""
    run.stage("wait", wait, run.stage("look", look, cfg.asked), cfg.storage)
