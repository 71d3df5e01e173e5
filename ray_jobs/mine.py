"""Preferences from anybody's candidates, as a job:

    ray job submit --address http://HEAD:8265 --working-dir . -- \
        python ray_jobs/mine.py --config configs/ts_align_paper.yaml storage=s3://BUCKET/runs candidates=s3://BUCKET/c.jsonl

Candidates are rows with a prompt and `completions`, a list of texts, in JSONL, JSON or Parquet; or what a run made, as
`candidates=s3://BUCKET/runs/RUN/iterations/1/candidates/part-*.parquet`. Of the config it reads `student`, `teacher`
and `mining`, and the keys of every run. The preferences are in `<storage>/<run>/preferences`.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from tsalign.cli.scripts import script
from tsalign.config import ModelConfig, RunConfig, TeacherConfig
from tsalign.config.locations import FILES
from tsalign.data.candidates import load_candidates
from tsalign.recipes.ts_align.config import MiningConfig
from tsalign.recipes.ts_align.mining import mine
from tsalign.recipes.ts_align.recipe import STUDENT_SELECTS
from tsalign.runs.recipe import recipe
from tsalign.runs.run import Run
from tsalign.scoring.reward_model import RewardModel
from tsalign.scoring.stage import score
from tsalign.teacher.service import Teacher


class MineConfig(RunConfig):
    """The `mine` recipe: candidates, who ranks them, and who decides."""

    candidates: Annotated[str, FILES] = Field(description="File, folder or glob of candidates.")
    student: ModelConfig | None = Field(
        None, description="Who picks best and worst. None takes the candidates' own `score.student`."
    )
    teacher: TeacherConfig = Field(TeacherConfig(), description="Who decides between them.")
    mining: MiningConfig = Field(MiningConfig(), description="How candidates become preferences.")


@recipe("mine", MineConfig)
def mining(run: Run, cfg: MineConfig) -> None:
    """The middle stages of TS-Align alone."""
    candidates = run.stage("candidates", load_candidates, cfg.candidates)
    if cfg.student and cfg.mining.strategy in STUDENT_SELECTS:
        student = RewardModel(run.model(cfg.student, "student"))
        candidates = run.stage("scores", score, candidates, {"student": student})
    with run.service(Teacher, cfg.teacher) as teacher:
        run.stage("preferences", mine, candidates, teacher, cfg.mining)


if __name__ == "__main__":
    script("ray_jobs.mine:mining")
