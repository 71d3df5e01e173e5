"""A student that learns the teacher's order from preferences, as a job:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/distill.py --config configs/ts_align_paper.yaml storage=s3://BUCKET/runs preferences=s3://BUCKET/p.jsonl

Preferences are rows of `prompt`, `chosen` and `rejected` (docs/data.md), or what a run made, as
`preferences=s3://BUCKET/runs/RUN/iterations/1/preferences/part-*.parquet`. Of the config it reads `student` and
`distill`, and the keys of every run. The model is in `<storage>/<run>/student`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tsalign.cli.scripts import script
from tsalign.config import MarginRankingTrainConfig, ModelConfig, RunConfig
from tsalign.config.locations import FILES
from tsalign.data.preferences import load_preferences
from tsalign.recipes.ts_align.config import DistillConfig
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.training.stage import train


class DistillOnlyConfig(RunConfig):
    """The `distill` recipe: a student, and what it learns."""

    student: ModelConfig = Field(description="The reward model that learns, or a language model, which gets a head.")
    preferences: Annotated[str, FILES] = Field(description="File, folder or glob of preferences.")
    distill: DistillConfig = Field(MarginRankingTrainConfig(), description="How it learns.")


@recipe("distill", DistillOnlyConfig)
def distilling(run: Run, cfg: DistillOnlyConfig) -> None:
    """TS-Align's update of the student alone."""
    student = run.model(cfg.student, "student")
    preferences = run.stage("preferences", load_preferences, cfg.preferences)
    run.stage("student", train, student, [preferences], cfg.distill, "student")


if __name__ == "__main__":
    script("ray_jobs.distill:distilling")
