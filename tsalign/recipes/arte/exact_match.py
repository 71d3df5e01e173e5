"""Exact match: a model answers labelled questions after 0 or more examples; what stands in <ans> is right or wrong."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from tsalign.common.storage import write_json
from tsalign.data.shards import Row, iterate
from tsalign.data.sources import Message
from tsalign.engines import Completion
from tsalign.prompts import parsers
from tsalign.prompts.templates import render
from tsalign.recipes.arte.config import AnsweringConfig
from tsalign.recipes.arte.tasks import Task
from tsalign.runs.artifacts import Dataset, Model
from tsalign.runs.plan import PlannedStage, expected, times
from tsalign.runs.report import Column, Report, Table, warnings_of
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function
from tsalign.stages.writing import Written, needs_texts, write


def matches(text: str, truth: str) -> bool:
    """Whether a text's one <ans> holds exactly the right answer."""
    try:
        return parsers.answer(text) == truth
    except parsers.Unparsed:
        return False


@dataclass(frozen=True)
class Answering:
    """Asks a question once for each number of examples, which are the first seed questions of its task."""

    template: str
    tasks: tuple[Task, ...]
    shots: tuple[int, ...]

    def prompts(self, row: Row) -> list[list[Message]]:
        """One prompt a number of shots."""
        task = next(task for task in self.tasks if task.name == row["task"])
        examples = [{"question": seed.question, "rationale": seed.shown} for seed in task.seeds]
        return [
            render(self.template, description=task.description, examples=examples[:count], question=row["question"])
            for count in self.shots
        ]

    def read(self, row: Row, answers: Sequence[Completion]) -> Written:
        """The row with `shots`, `answers` and `correct`; an answer that does not parse is wrong, and counted."""
        texts = [answer.text for answer in answers]
        unparsed = sum(not _parses(text) for text in texts)
        correct = [matches(text, row["answer"]) for text in texts]
        made = {**row, "shots": list(self.shots), "answers": texts, "correct": correct}
        return Written([made], counts={"unparsed": unparsed})


@stage_function("arte/answer")
def answer(stage: Stage, model: Model, questions: Dataset, answering: Answering, writing: AnsweringConfig) -> Dataset:
    """A model's answers: the questions with `shots`, `answers` and `correct`."""
    return write(stage, model, questions, answering, writing)


@answer.expects
def _expect_answers(
    stage: PlannedStage, model: Model, questions: Dataset, answering: Answering, writing: AnsweringConfig
) -> Dataset:
    asked = expected(questions)
    needs_texts(stage, model, writing, {"answers": times(asked.rows, len(answering.shots))})
    return stage.derived(asked)


@stage_function("arte/exact_match", measures=True)
def exact_match(
    stage: Stage, model: Model, questions: Dataset, answering: Answering, writing: AnsweringConfig, baseline: Dataset
) -> Dataset:
    """As `answer`, with `summary.json` and a report of how many are right, beside those of `baseline`.

    The summary is {"exact_match": {shots: {"mean": mean of the tasks, "by_task": ...}}, "baseline": the same}.

    Args:
        baseline: the answers of the model as it was before.
    """
    answered = answer(stage, model, questions, answering, writing)
    rates, before = right_answers(answered), right_answers(baseline)
    write_json(stage.out / "summary.json", {"exact_match": rates, "baseline": before})
    replace(report_of(rates, before), warnings=warnings_of(stage.out)).write(stage.out)
    stage.log({f"exact_match_{shots}_shot": rate["mean"] for shots, rate in rates.items()})
    return answered


@exact_match.expects
def _expect_exact_match(
    stage: PlannedStage,
    model: Model,
    questions: Dataset,
    answering: Answering,
    writing: AnsweringConfig,
    baseline: Dataset,
) -> Dataset:
    return answer.expect(stage, model, questions, answering, writing)


def right_answers(answered: Dataset) -> dict[str, dict[str, Any]]:
    """Number of shots -> share of right answers, by task and as the mean of the tasks."""
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in iterate([answered], ["task", "shots", "correct"]):
        for shots, correct in zip(row["shots"], row["correct"]):
            right[str(shots)][row["task"]].append(correct)
    rates = {shots: {task: fmean(own) for task, own in sorted(tasks.items())} for shots, tasks in right.items()}
    return {shots: {"mean": fmean(by_task.values()), "by_task": by_task} for shots, by_task in rates.items()}


def report_of(rates: dict[str, dict[str, Any]], before: dict[str, dict[str, Any]]) -> Report:
    """Exact match by task, before and after; the chart has only the first number of shots of before."""
    first = next(iter(before))
    columns = {
        f"{shots}-shot, before": _column(rate, f"{shots}-shot, before" if shots == first else "")
        for shots, rate in before.items()
    }
    columns |= {f"{shots}-shot": _column(rate, f"{shots}-shot") for shots, rate in rates.items()}
    return Report(
        results={f"{shots}-shot exact match": rate["mean"] for shots, rate in rates.items()},
        table=Table("task", columns, "Exact match on the test sets"),
    )


def _column(rate: dict[str, Any], bar: str) -> Column:
    return Column(rate["by_task"], rate["mean"], percent=True, bar=bar)


def _parses(text: str) -> bool:
    try:
        parsers.answer(text)
    except parsers.Unparsed:
        return False
    return True
