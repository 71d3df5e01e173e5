"""Drafts of training data: a teacher writes new questions of a task, and rationales that answer them."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.seeds import derive
from tsalign.config import WritingConfig
from tsalign.data.shards import Row, iterate, read_counts, write_rows
from tsalign.data.sources import Message
from tsalign.engines import Completion, Failed, check_engine
from tsalign.prompts import parsers as parsing
from tsalign.prompts.parsers import Unparsed
from tsalign.prompts.templates import render
from tsalign.recipes.arte.config import DraftConfig
from tsalign.recipes.arte.tasks import SHARD_SIZE, Task, count_in
from tsalign.runs.artifacts import Dataset, Model, fingerprint
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.writing import Written, needs_texts, write

NAIVE = "arte_rationale"
PREFIX = "arte_rationale_"


@dataclass(frozen=True)
class QuestionWriting:
    """Asks for new questions of a task. Rows: `task, description, seeds`."""

    template: str
    asked: int

    def prompts(self, row: Row) -> list[list[Message]]:
        """One prompt a row."""
        return [question_prompt(self.template, row["description"], row["seeds"], self.asked)]

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
        """A row of `prompt_id, task, description, question, answer` for every well-formed question."""
        text = answers[0].text
        made, malformed = parsing.questions(text)
        if not made:
            raise Unparsed("no well-formed question")
        rows = [_question(row, " ".join(question.split()), answer) for question, answer in made]
        reason = f"{malformed} malformed of {malformed + len(made)} questions"
        failed = [Failed(reason).row(row["prompt_id"], text=text)] if malformed else []
        return Written(rows, failed, {"malformed": malformed})


def question_prompt(template: str, description: str, seeds: Sequence[Row], asked: int) -> list[Message]:
    """What the teacher is asked when it drafts; also the prompt of question pairs."""
    return render(template, description=description, seeds=seeds, asked=asked)


def show(task: Task, count: int, *seed: str | int) -> list[Row]:
    """Seed questions to show, drawn by a seed."""
    chosen = random.Random(derive(*seed)).sample(task.seeds, min(count, len(task.seeds)))
    return [{"question": one.question, "answer": one.answer} for one in chosen]


@stage_function("arte/draft")
def draft(
    stage: Stage, teacher: Model, tasks: Sequence[Task], template: str, config: DraftConfig, writing: WritingConfig
) -> Dataset:
    """`config.questions` different new questions a task: rows of `prompt_id, task, description, question, answer`.

    Rounds ask for what is still missing. Left out and counted: repeated questions, and those that are a task's own
    preference or test question (`leaked`). After `config.max_rounds` there may be fewer (`missing`).

    Raises:
        TsalignError: too many texts do not parse, or a task got no question at all.
    """
    found: dict[str, dict[str, Row]] = {task.name: {} for task in tasks}
    counts: Counter[str] = Counter(duplicates=0, leaked=0)
    for number in range(config.max_rounds):
        lacking = [task for task in tasks if len(found[task.name]) < config.questions]
        if not lacking:
            break
        asked = [row for task in lacking for row in _requests(stage, task, config, found[task.name], number)]
        written = _round(stage, teacher, asked, QuestionWriting(template, config.asked), config, writing, number)
        counts.update({name: int(value) for name, value in read_counts(written).items()})
        for task in lacking:
            counts.update(_add(found[task.name], iterate([written]), task, config.questions))
    if empty := next((name for name, rows in found.items() if not rows), None):
        raise TsalignError(f"{stage.name}: no new question for task {empty} in {config.max_rounds} rounds.")
    rows = sorted((row for own in found.values() for row in own.values()), key=lambda row: row["prompt_id"])
    write_rows(stage.out, rows, shard_size=SHARD_SIZE)
    missing = config.questions * len(tasks) - len(rows)
    stage.log({**counts, "rows": len(rows), "missing": missing})
    return Dataset(str(stage.out), stage.fingerprint)


@draft.expects
def _expect_questions(
    stage: PlannedStage,
    teacher: Model,
    tasks: Sequence[Task],
    template: str,
    config: DraftConfig,
    writing: WritingConfig,
) -> Dataset:
    number = count_in(tasks)
    questions = times(number, config.questions)
    # At most every round asks for all of them.
    tokens = times(number, math.ceil(config.questions / config.asked), config.max_rounds, writing.max_tokens)
    check_engine(stage.plan, teacher, writing, stage.resources.sample.tensor_parallel)
    stage.needs(teacher.role, stage.resources.sample, {"questions": questions, "new tokens": tokens})
    return stage.dataset(questions, sets=number)


def _requests(stage: Stage, task: Task, config: DraftConfig, found: Mapping[str, Row], number: int) -> list[Row]:
    prompts = math.ceil((config.questions - len(found)) / config.asked)
    names = [f"{task.name}-{number}-{index}" for index in range(prompts)]
    about = {"task": task.name, "description": task.description}
    return [{"prompt_id": name, **about, "seeds": show(task, config.shown, stage.seed, name)} for name in names]


def _round(
    stage: Stage,
    teacher: Model,
    asked: list[Row],
    questions: QuestionWriting,
    config: DraftConfig,
    writing: WritingConfig,
    number: int,
) -> Dataset:
    """What the teacher writes in one round, kept in `stage.work`: an interrupted stage repeats only its last round."""
    place: UPath = stage.work / f"round-{number}"
    if not (place / "asked").exists():
        write_rows(place / "asked", asked, shard_size=SHARD_SIZE)
    within = replace(
        stage,
        out=place / "written",
        quarantine=stage.quarantine / f"round-{number}",
        max_failed_fraction=config.max_failed_fraction,
        log=lambda _: None,
    )
    return write(within, teacher, Dataset(str(place / "asked"), stage.fingerprint), questions, writing)


def _add(found: dict[str, Row], rows: Any, task: Task, limit: int) -> Counter[str]:
    """Add a task's new questions to `found`; counts those that are not new."""
    known = {" ".join(one.question.split()) for one in (*task.preference, *task.test)}
    counts: Counter[str] = Counter()
    for row in rows:
        if row["task"] != task.name:
            continue
        if row["question"] in known:
            counts["leaked"] += 1
        elif row["question"] in found:
            counts["duplicates"] += 1
        elif len(found) < limit:
            found[row["question"]] = row
    return counts


def _question(row: Row, question: str, answer: str) -> Row:
    return {
        "prompt_id": fingerprint(row["task"], question),
        "task": row["task"],
        "description": row["description"],
        "question": question,
        "answer": answer,
    }


@dataclass(frozen=True)
class RationaleWriting:
    """Asks for one rationale by each technique; the row's `prompt` is always the naive one.

    Attributes:
        naive: template of the step-by-step prompt.
        techniques: task -> technique -> template.
    """

    naive: str
    techniques: dict[str, dict[str, str]]

    def prompts(self, row: Row) -> list[list[Message]]:
        """One prompt a technique."""
        return [self._ask(template, row) for template in self.techniques[row["task"]].values()]

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
        """A candidate set of the rationales that end in an answer, with `techniques` beside `completions`."""
        made, failed = [], []
        for technique, written in zip(self.techniques[row["task"]], answers):
            try:
                parsing.answer(written.text)
                made.append((technique, written))
            except Unparsed as error:
                failed.append(Failed(f"{technique}: {error}").row(row["prompt_id"], text=written.text))
        candidates = {
            "prompt": self._ask(self.naive, row),
            "techniques": [technique for technique, _ in made],
            "completions": [_completion(written) for _, written in made],
        }
        return Written([{**row, **candidates}] if made else [], failed)

    def _ask(self, template: str, row: Row) -> list[Message]:
        return render(template, description=row["description"], question=row["question"])


@stage_function("arte/rationales")
def write_rationales(
    stage: Stage,
    teacher: Model,
    questions: Dataset,
    rationales: RationaleWriting,
    config: DraftConfig,
    writing: WritingConfig,
    temperature: float,
) -> Dataset:
    """Candidate sets of rationales, one set a question; rationales without one final answer go to the quarantine.

    Raises:
        TsalignError: too many do.
    """
    at = writing.model_copy(update={"temperature": temperature})
    within = replace(stage, max_failed_fraction=config.max_failed_fraction)
    return write(within, teacher, questions, rationales, at)


@write_rationales.expects
def _expect_rationales(
    stage: PlannedStage,
    teacher: Model,
    questions: Dataset,
    rationales: RationaleWriting,
    config: DraftConfig,
    writing: WritingConfig,
    temperature: float,
) -> Dataset:
    asked, each = expected(questions), fmean(map(len, rationales.techniques.values()))
    needs_texts(stage, teacher, writing, {"rationales": times(asked.rows, each)})
    return stage.derived(asked, completions=each)


def _completion(written: Completion) -> Row:
    return {"text": written.text, "token_ids": None, "finish": written.finish, "seed": None, "temperature": None}


def techniques(tasks: Sequence[Task], texts: Mapping[str, str]) -> RationaleWriting:
    """A rationale by every technique of a task, or by every shared one (templates `arte_rationale_*`)."""
    shared = {name.removeprefix(PREFIX): text for name, text in texts.items() if name.startswith(PREFIX)}
    return RationaleWriting(texts[NAIVE], {task.name: task.techniques or shared for task in tasks})


def naive(tasks: Sequence[Task], texts: Mapping[str, str]) -> RationaleWriting:
    """A rationale by the step-by-step prompt alone."""
    return RationaleWriting(texts[NAIVE], {task.name: {"naive": texts[NAIVE]} for task in tasks})
