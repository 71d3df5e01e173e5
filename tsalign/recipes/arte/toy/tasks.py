"""The tasks of ARTE's toy world, with labelled questions whose answers are known."""

from __future__ import annotations

import random

from tsalign.recipes.arte.tasks import Question, Task
from tsalign.recipes.arte.toy.world import TEST_TASKS, TUNE_TASKS, Rule, draw, text

TASKS = {"arte": TEST_TASKS, "arte-tune": TUNE_TASKS}
SEEDS, PREFERENCE, TEST = 6, 12, 60


def toy_tasks(name: str) -> list[Task]:
    """The tasks `arte` or `arte-tune`; no question is in two of a task's parts."""
    return [_task(task, rule) for task, rule in TASKS[name].items()]


def _task(name: str, rule: Rule) -> Task:
    rng = random.Random(f"task-{name}")
    drawn: dict[str, Question] = {}
    while len(drawn) < SEEDS + PREFERENCE + TEST:
        numbers = draw(rng)
        drawn[text(numbers)] = Question(text(numbers), str(rule.answer(numbers)))
    asked = tuple(drawn.values())
    seeds, preference, test = asked[:SEEDS], asked[SEEDS : SEEDS + PREFERENCE], asked[SEEDS + PREFERENCE :]
    return Task(name, name, seeds, preference, test)
