"""How much one example helps a student: its accuracy with the example as the only demonstration (ARTE)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from tsalign.common.progress import out_of
from tsalign.engines import Completion, Engine, Request, check_engine, open_engine, request_from
from tsalign.prompts.templates import render, texts
from tsalign.recipes.arte.config import AnsweringConfig
from tsalign.recipes.arte.exact_match import matches
from tsalign.recipes.arte.tasks import Task, read_tasks
from tsalign.runs.artifacts import Model
from tsalign.runs.plan import Amount, Plan, times
from tsalign.scoring import FindModel, Item, LoadedScorer, Scorer, local_model

Example = tuple[str, str, str]  # task, question, rationale


@dataclass(frozen=True)
class ICLAccuracy(Scorer):
    """Share of a task's preference questions that the student answers exactly, at temperature 0, shown one example.

    Items come from rows with `task` and `question`; the completion is the example's rationale.

    Attributes:
        tasks: with the preference questions.
        template: of the student's prompt; given description, examples and question.
    """

    student: Model
    tasks: tuple[Task, ...]
    template: str
    answering: AnsweringConfig

    @property
    def who(self) -> str:
        """The student's role."""
        return self.student.role

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """Every completion is shown before each preference question of its task."""
        answers = times(rows, completions, fmean(len(task.preference) for task in self.tasks))
        return {"answers": answers, "new tokens": times(answers, self.answering.max_tokens)}

    def check(self, plan: Plan) -> None:
        """That the student and its engine are there."""
        check_engine(plan, self.student, self.answering)

    def load(self) -> LoadedICLAccuracy:
        """A function from items to accuracies."""
        return LoadedICLAccuracy(self, open_engine(self.student, self.answering))


class LoadedICLAccuracy(LoadedScorer):
    """Asks all questions about all examples of a call at once, example by example, so that engines cache the prefix.

    Counts the student's answers as `calls`, and the tokens of prompts and answers.
    """

    def __init__(self, scorer: ICLAccuracy, engine: Engine) -> None:
        super().__init__()
        self.template, self.answering, self.engine = scorer.template, scorer.answering, engine
        self.counts = engine.counts
        self.tasks = {task.name: task for task in scorer.tasks}

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One accuracy an item; None where a request failed. Equal examples are asked about once."""
        shown = [(item.row["task"], item.row["question"], item.completion) for item in items]
        examples = list(dict.fromkeys(shown))
        requests = [request for example in examples for request in self._requests(example)]
        answers = iter(self.engine.generate(requests, done=out_of(len(requests), self.report)))
        accuracy: dict[Example, float | None] = {}
        for example in examples:
            wanted = [one.answer for one in self.tasks[example[0]].preference]
            given = [next(answers) for _ in wanted]
            written = [one for one in given if isinstance(one, Completion)]
            right = sum(matches(one.text, truth) for one, truth in zip(written, wanted))
            accuracy[example] = right / len(wanted) if len(written) == len(wanted) else None
        return [accuracy[example] for example in shown]

    def _requests(self, example: Example) -> list[Request]:
        name, question, rationale = example
        task, shown = self.tasks[name], [{"question": question, "rationale": rationale}]
        return [
            request_from(
                self.answering,
                render(self.template, description=task.description, examples=shown, question=one.question),
                seed=0,
                temperature=0.0,
            )
            for one in task.preference
        ]


def by_name(name: str, find_model: FindModel) -> ICLAccuracy:
    """What `icl_accuracy:<student>@<tasks>` names."""
    model, _, tasks = name.rpartition("@")
    student, template = local_model(find_model, model, "judge"), texts(Path(__file__).parent)["arte_answer"]
    return ICLAccuracy(student, read_tasks([tasks]), template, AnsweringConfig())
