"""How much one example helps a student: its accuracy with the example as the only demonstration (ARTE)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tsalign.config import AnsweringConfig, ModelConfig
from tsalign.engines import Completion, Engine, Request, open_engine
from tsalign.evaluation.exact_match import matches
from tsalign.runs.artifacts import Model, model_from
from tsalign.tasks import Task, read_tasks
from tsalign.templates import render, texts

if TYPE_CHECKING:
    from tsalign.scoring import Item

Example = tuple[str, str, str]  # task, question, rationale


@dataclass(frozen=True)
class ICLAccuracy:
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

    def load(self) -> LoadedICLAccuracy:
        """A function from items to accuracies."""
        return LoadedICLAccuracy(self, open_engine(self.student, self.answering))


class LoadedICLAccuracy:
    """Asks all questions about all examples of a call at once, example by example, so that engines cache the prefix.

    Attributes:
        counts: student generations and the tokens they wrote, since somebody last cleared them.
    """

    def __init__(self, scorer: ICLAccuracy, engine: Engine) -> None:
        self.template, self.engine = scorer.template, engine
        self.tasks = {task.name: task for task in scorer.tasks}
        self.counts: Counter[str] = Counter()

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One accuracy an item; None where a request failed. Equal examples are asked about once."""
        shown = [(item.row["task"], item.row["question"], item.completion) for item in items]
        examples = list(dict.fromkeys(shown))
        requests = [request for example in examples for request in self._requests(example)]
        answers = iter(self.engine.generate(requests))
        accuracy: dict[Example, float | None] = {}
        for example in examples:
            wanted = [one.answer for one in self.tasks[example[0]].preference]
            given = [next(answers) for _ in wanted]
            written = [one for one in given if isinstance(one, Completion)]
            self.counts["generations"] += len(given)
            self.counts["completion_tokens"] += sum(len(one.token_ids) for one in written)
            right = sum(matches(one.text, truth) for one, truth in zip(written, wanted))
            accuracy[example] = right / len(wanted) if len(written) == len(wanted) else None
        return [accuracy[example] for example in shown]

    def _requests(self, example: Example) -> list[Request]:
        name, question, rationale = example
        task, shown = self.tasks[name], [{"question": question, "rationale": rationale}]
        return [
            Request(
                render(self.template, description=task.description, examples=shown, question=one.question),
                seed=0,
                temperature=0.0,
            )
            for one in task.preference
        ]


def icl_accuracy_by_name(name: str) -> ICLAccuracy:
    """What `icl_accuracy:<student>@<tasks>` names."""
    model, _, tasks = name.rpartition("@")
    student = model_from(ModelConfig(model=model), "icl_accuracy")
    return ICLAccuracy(student, read_tasks([tasks]), texts({})["arte_answer"], AnsweringConfig())
