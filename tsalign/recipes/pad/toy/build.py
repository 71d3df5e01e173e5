"""PAD's teacher from nothing, by the project's own stages: first it learns to reply, then also to compare replies."""

from __future__ import annotations

from tsalign.recipes.pad.toy import rows
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import ONE_TASK, PlannedStage
from tsalign.runs.run import Run
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.toy.models import Shape, initialise
from tsalign.toy.stages import language, shards
from tsalign.training.stage import train

TEACHER = Shape(hidden=64, layers=4, intermediate=192)
REPLY_STEPS, QUESTION_STEPS, EPOCHS = 1500, 3000, 2


def build(run: Run, short: bool, samples: list[Dataset]) -> dict[str, Model]:
    """`pad_teacher`: a language model whose log-probs grade replies, and that chooses between two.

    Args:
        short: a few steps, to see that it works.
        samples: candidate sets of the policies whose replies it will meet.
    """
    first, second = (8, 8) if short else (REPLY_STEPS, QUESTION_STEPS)
    replies = run.stage("pad_teacher_replies", generate, "replies", 64 * first // EPOCHS)
    questions = run.stage("pad_teacher_questions", generate, "questions", 64 * second // EPOCHS, samples)
    blank = run.stage("pad_teacher_blank", initialise, TEACHER)
    able = run.stage("pad_teacher_able", train, blank, [replies], language(first, 5e-3, EPOCHS), "student")
    teacher = run.stage("pad_teacher", train, able, [questions], language(second, 3e-3, EPOCHS), "student")
    return {"pad_teacher": teacher}


@stage_function("toy/pad_rows")
def generate(stage: Stage, kind: str, count: int, *more: list[Dataset]) -> Dataset:
    """`count` rows of a generator in `tsalign.recipes.pad.toy.rows`, as shards."""
    return shards(stage, getattr(rows, kind), stage.seed, count, *more)


@generate.expects
def _expect_rows(stage: PlannedStage, kind: str, count: int, *more: list[Dataset]) -> Dataset:
    stage.needs("", ONE_TASK, {"rows": count})
    return stage.dataset(count)
