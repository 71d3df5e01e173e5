"""The tasks of ARTE's toy world, with labelled questions whose answers are known."""

from __future__ import annotations

import random

from tsalign.errors import TsalignError
from tsalign.tasks import Question, Task
from tsalign.toy.arte.world import TEST_TASKS, TUNE_TASKS, Rule, draw, text

LOCATIONS = {"toy:arte": TEST_TASKS, "toy:arte-tune": TUNE_TASKS}
SEEDS, PREFERENCE, TEST = 6, 12, 60


def toy_tasks(location: str) -> list[Task]:
    """The tasks of a location; no question is in two of a task's parts.

    Raises:
        TsalignError: no such location.
    """
    if location not in LOCATIONS:
        raise TsalignError(f"tasks: {location}: no such toy tasks; expected {' or '.join(LOCATIONS)}.")
    return [_task(name, rule) for name, rule in LOCATIONS[location].items()]


def _task(name: str, rule: Rule) -> Task:
    rng = random.Random(f"task-{name}")
    drawn: dict[str, Question] = {}
    while len(drawn) < SEEDS + PREFERENCE + TEST:
        numbers = draw(rng)
        drawn[text(numbers)] = Question(text(numbers), str(rule.answer(numbers)))
    asked = tuple(drawn.values())
    seeds, preference, test = asked[:SEEDS], asked[SEEDS : SEEDS + PREFERENCE], asked[SEEDS + PREFERENCE :]
    return Task(name, name, seeds, preference, test)
