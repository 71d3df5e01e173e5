"""Drafts that a student has scored -> pairs that align the teacher, and rows that the student learns from."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterable, Sequence
from statistics import fmean
from typing import Literal

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.seeds import derive
from tsalign.data.pairs import best_and_worst, preference, random_pair
from tsalign.data.shards import Row, iterate, write_rows
from tsalign.data.tasks import in_one_task
from tsalign.prompts.templates import render
from tsalign.recipes.arte.config import DraftConfig, PairConfig
from tsalign.recipes.arte.drafting import question_prompt, show
from tsalign.recipes.arte.tasks import SHARD_SIZE, Task, count_in
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import ONE_TASK, PlannedStage, at_most, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

SCORE = "score.student"
Choice = Literal["only", "best", "random"]


def question_score(row: Row) -> float:
    """How much a question helps the student: the mean over its rationales."""
    return fmean(row[SCORE])


def question_pairs(scored: Sequence[Row], pairs: PairConfig, size: int, seed: int) -> list[tuple[list[Row], list[Row]]]:
    """Random questions of the top against random ones of the bottom share of a task's questions.

    Args:
        size: questions in a completion, as many as the prompt asks for, or as the shares hold.

    Returns:
        `pairs.questions` pairs (better, worse); none if top and bottom score the same.
    """
    ranked = sorted(scored, key=lambda row: (-question_score(row), row["prompt_id"]))
    quantile = int(len(ranked) * pairs.share)
    top, bottom = ranked[:quantile], ranked[len(ranked) - quantile :]
    if not top or question_score(top[-1]) <= question_score(bottom[0]):
        return []
    rng, count = random.Random(seed), min(size, quantile)
    return [(rng.sample(top, count), rng.sample(bottom, count)) for _ in range(pairs.questions)]


def rationale_pair(row: Row, keep_ties: bool = False, seed: int = 0) -> Row | None:
    """The preference between a question's best and worst rationale under the naive prompt.

    None if the student scores all equally; with `keep_ties`, two random different ones instead.
    """
    made, scores = row["completions"], row[SCORE]
    texts = [completion["text"] for completion in made]
    best, worst = best_and_worst(scores)
    if scores[best] == scores[worst]:
        if not keep_ties:
            return None
        best, worst = random_pair(texts, derive(seed, row["prompt_id"]))
    if texts[best] == texts[worst]:
        return None
    return preference(row["prompt_id"], row["task"], row["prompt"], made[best], made[worst])


def tagged_questions(questions: Iterable[Row]) -> str:
    """Questions as the teacher is asked to write them, numbered from 1."""
    return "\n".join(
        f"<Question_{number}>\n<input>{one['question']}</input>\n<target>{one['answer']}</target>\n</Question_{number}>"
        for number, one in enumerate(questions, 1)
    )


@stage_function("arte/question_pairs")
def pair_questions(
    stage: Stage, scored: Dataset, tasks: Sequence[Task], template: str, pairs: PairConfig, drafts: DraftConfig
) -> Dataset:
    """Question-level preferences of all tasks, under the prompt that asks for questions.

    Raises:
        TsalignError: in no task is any question worth more than another.
    """
    return in_one_task(stage, _question_level, stage.seed, scored, list(tasks), template, pairs, drafts)


@pair_questions.expects
def _expect_question_pairs(
    stage: PlannedStage, scored: Dataset, tasks: Sequence[Task], template: str, pairs: PairConfig, drafts: DraftConfig
) -> Dataset:
    rows = times(count_in(tasks), pairs.questions)
    stage.needs("", ONE_TASK, {"rows": rows})
    return stage.dataset(rows, completions=2.0)


@stage_function("arte/rationale_pairs")
def pair_rationales(stage: Stage, scored: Dataset, pairs: PairConfig) -> Dataset:
    """Rationale-level preferences, under the naive prompt.

    Raises:
        TsalignError: every set is tied.
    """
    return in_one_task(stage, _rationale_level, stage.seed, scored, pairs)


@pair_rationales.expects
def _expect_rationale_pairs(stage: PlannedStage, scored: Dataset, pairs: PairConfig) -> Dataset:
    sets = expected(scored)
    rows = at_most(sets.rows, times(sets.sets, pairs.rationales))
    stage.needs("", ONE_TASK, {"rows": rows})
    return stage.dataset(rows, completions=2.0)


def _question_level(
    out: UPath, seed: int, scored: Dataset, tasks: list[Task], template: str, pairs: PairConfig, drafts: DraftConfig
) -> dict[str, float]:
    rows, tied = [], 0
    by_task = _by_task(scored)
    for task in tasks:
        made = question_pairs(by_task.get(task.name, []), pairs, drafts.asked, derive(seed, task.name))
        tied += not made
        for number, (better, worse) in enumerate(made):
            name = f"{task.name}-{number}"
            prompt = question_prompt(template, task.description, show(task, drafts.shown, seed, name), drafts.asked)
            sides = ({"text": tagged_questions(side), "finish": "stop"} for side in (better, worse))
            rows.append(preference(name, task.name, prompt, *sides))
    return {"rows": _written(out, rows), "tied_tasks": tied}


def _rationale_level(out: UPath, seed: int, scored: Dataset, pairs: PairConfig) -> dict[str, float]:
    rows, tied = [], 0
    for _, own in sorted(_by_task(scored).items()):
        made = [rationale_pair(row, pairs.keep_ties, seed) for row in sorted(own, key=lambda row: row["prompt_id"])]
        tied += made.count(None)
        rows += [row for row in made if row][: pairs.rationales]
    return {"rows": _written(out, rows), "tied": tied}


@stage_function("arte/sft_rows")
def sft_rows(stage: Stage, candidates: Dataset, choice: Choice, template: str, count: int) -> Dataset:
    """`count` rows a task for the student: a question as it is tested without examples, and a rationale.

    Args:
        choice: the only rationale of each set, the one that the student scored best, or a random one.
        template: of the student's prompt.

    Raises:
        TsalignError: a task has fewer.
    """
    return in_one_task(stage, _sft_rows, stage.seed, candidates, choice, template, count)


@sft_rows.expects
def _expect_sft_rows(stage: PlannedStage, candidates: Dataset, choice: Choice, template: str, count: int) -> Dataset:
    rows = times(expected(candidates).sets, count)
    stage.needs("", ONE_TASK, {"rows": rows})
    return stage.dataset(rows)


def _sft_rows(
    out: UPath, seed: int, candidates: Dataset, choice: Choice, template: str, count: int
) -> dict[str, float]:
    rows = []
    for task, own in sorted(_by_task(candidates).items()):
        if len(own) < count:
            raise TsalignError(f"rows_per_task: task {task} has {len(own)} questions, not {count}; draft more of them.")
        own.sort(key=lambda row: derive(seed, row["prompt_id"]))
        rows += [_sft_row(row, choice, template, seed) for row in own[:count]]
    rows.sort(key=lambda row: derive(seed, row["prompt_id"], "order"))
    return {"rows": write_rows(out, rows, shard_size=SHARD_SIZE)}


def _sft_row(row: Row, choice: Choice, template: str, seed: int) -> Row:
    made = row["completions"]
    choices = {
        "only": lambda: 0,
        "best": lambda: best_and_worst(row[SCORE])[0],
        "random": lambda: random.Random(derive(seed, row["prompt_id"])).randrange(len(made)),
    }
    prompt = render(template, description=row["description"], examples=[], question=row["question"])
    chosen, named = made[choices[choice]()], {"prompt_id": row["prompt_id"], "set": row["task"]}
    return {**named, "prompt": prompt, "completion": chosen["text"], "finish": chosen["finish"]}


def _by_task(dataset: Dataset) -> dict[str, list[Row]]:
    rows: dict[str, list[Row]] = defaultdict(list)
    for row in iterate([dataset]):
        rows[row["task"]].append(row)
    return rows


def _written(out: UPath, pairs: list[Row]) -> int:
    """How many preferences were written.

    Raises:
        TsalignError: there is none.
    """
    if not pairs:
        raise TsalignError(
            "no preference: the student scores all drafts of every task equally; draft more, or set keep_ties."
        )
    return write_rows(out, pairs, shard_size=SHARD_SIZE)
