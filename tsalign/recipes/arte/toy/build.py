"""ARTE's toy models from nothing, by the project's own stages."""

from __future__ import annotations

from tsalign.recipes.arte.toy.rows import student_rows, teacher_rows
from tsalign.recipes.arte.toy.tokenizer import build_arte_tokenizer
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.toy.models import Shape, initialise
from tsalign.toy.stages import language, shards
from tsalign.training.stage import train

ROWS = {"arte_student": student_rows, "arte_teacher": teacher_rows}
SHAPE = Shape(hidden=64, layers=2, intermediate=192)
STEPS = {"arte_student": 1600, "arte_teacher": 1600}


def build(run: Run, short: bool, samples: list[Dataset]) -> dict[str, Model]:
    """`arte_student`, which learns from one example, and `arte_teacher`, which writes drafts of mixed worth.

    Args:
        short: a few steps, to see that it works.
        samples: not used here.
    """
    made = {}
    for name in ROWS:
        steps = 8 if short else STEPS[name]
        rows = run.stage(f"{name}_rows", generate, name, 64 * steps // 2)
        blank = run.stage(f"{name}_blank", begin, SHAPE)
        made[name] = run.stage(name, train, blank, [rows], language(steps, 6e-3, epochs=2), "student")
    return made


@stage_function("toy/arte_rows")
def generate(stage: Stage, name: str, count: int) -> Dataset:
    """`count` rows for one of the models."""
    return shards(stage, ROWS[name], stage.seed, count)


@generate.expects
def _expect_rows(stage: PlannedStage, name: str, count: int) -> Dataset:
    stage.needs("", ONE_TASK, {"rows": count})
    return stage.dataset(count)


@stage_function("toy/arte_blank")
def begin(stage: Stage, shape: Shape) -> Model:
    """Random weights, with the tokens of ARTE's world."""
    return initialise(stage, shape, build_arte_tokenizer())


@begin.expects
def _expect_blank(stage: PlannedStage, shape: Shape) -> Model:
    stage.needs("", ONE_TASK, {})
    return stage.model("student")
