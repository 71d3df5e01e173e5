"""The writing teacher from nothing, by the project's own stages."""

from __future__ import annotations

from tsalign.recipes.citing.toy.rows import teacher_rows
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.toy.models import Shape, initialise
from tsalign.toy.stages import language, shards
from tsalign.training.stage import train

TEACHER = Shape(hidden=64, layers=3, intermediate=192)
STEPS = 2000


def build(run: Run, short: bool, samples: list[Dataset]) -> dict[str, Model]:
    """`citing_teacher`: a language model that writes a family's rubric and revises replies.

    Args:
        short: a few steps, to see that it works.
        samples: not used here.
    """
    steps = 8 if short else STEPS
    rows = run.stage("citing_teacher_rows", generate, 64 * steps // 4)
    blank = run.stage("citing_teacher_blank", initialise, TEACHER)
    teacher = run.stage("citing_teacher", train, blank, [rows], language(steps, 4e-3), "student")
    return {"citing_teacher": teacher}


@stage_function("toy/citing_rows")
def generate(stage: Stage, count: int) -> Dataset:
    """`count` rows for the teacher."""
    return shards(stage, teacher_rows, stage.seed, count)


@generate.expects
def _expect_rows(stage: PlannedStage, count: int) -> Dataset:
    stage.needs("", ONE_TASK, {"rows": count})
    return stage.dataset(count)
