"""Training rows of ARTE's toy models: episodes for the student, drafts and rationales for the teacher."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tsalign.data.sources import Message
from tsalign.prompts.templates import render, texts
from tsalign.recipes.arte.toy.world import (
    KNOWN_TASKS,
    OTHER_NAMES,
    RULES,
    TEST_TASKS,
    TUNE_TASKS,
    Rule,
    Style,
    confused,
    draw,
    rationale,
    text,
)

QUICKSTART = Path(__file__).parents[1] / "quickstart.yaml"
Row = dict[str, Any]

ZEROS = 0.6  # of the teacher's questions
MALFORMED = 0.02
# How each technique answers: with which style, and how often by the right rule.
TECHNIQUES: dict[str, tuple[Style, float]] = {
    "arte_rationale_expert": ("steps", 0.85),
    "arte_rationale_recall": ("rule", 0.6),
    "arte_rationale_plain": ("bare", 0.9),
    "arte_rationale_eliminate": ("steps", 0.3),
}
# Without a technique: any of these, by chance.
NAIVE: dict[tuple[Style, bool], float] = {
    ("bare", True): 0.45,
    ("steps", True): 0.2,
    ("rule", True): 0.1,
    ("steps", False): 0.15,
    ("bare", False): 0.1,
}


@cache
def templates() -> dict[str, str]:
    """The quickstart's templates: what the models are trained on is what the recipe asks."""
    return texts(QUICKSTART.parent, yaml.safe_load(QUICKSTART.read_text())["templates"])


def student_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n questions with no to three examples before them, and the answer in steps by the examples' rule.

    Half of the tasks are known by name. Of the others the rule has to be found in the examples, and where these do
    not tell it, the answer follows any.
    """
    rng = random.Random(f"student-{seed}")
    known = list(KNOWN_TASKS)
    for _ in range(n):
        if rng.random() < 0.5:
            name, shots = rng.choice(known), rng.choices([0, 1, 3], [0.5, 0.25, 0.25])[0]
            rule = KNOWN_TASKS[name]
        else:
            name, shots = rng.choice(OTHER_NAMES), rng.choices([0, 1, 3], [0.1, 0.75, 0.15])[0]
            rule = rng.choice(RULES)
        style: Style = rng.choices(("steps", "rule", "bare"), (0.4, 0.25, 0.35))[0]
        shown = [draw(rng, 0.25) for _ in range(shots)]
        examples = [{"question": text(numbers), "rationale": rationale(rule, numbers, style)} for numbers in shown]
        asked = draw(rng, 0.08)
        prompt = render(templates()["arte_answer"], description=name, examples=examples, question=text(asked))
        yield {"prompt": prompt, "completion": rationale(rule, asked, "rule" if style == "rule" and shots else "steps")}


def teacher_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n drafts of questions, rationales by a technique, and rationales by none."""
    rng = random.Random(f"teacher-{seed}")
    tasks = TEST_TASKS | TUNE_TASKS
    for _ in range(n):
        name = rng.choice(list(tasks))
        kind = rng.random()
        if kind < 0.3:
            yield _draft(rng, name, tasks[name])
        elif kind < 0.65:
            technique = rng.choice(list(TECHNIQUES))
            style, right = TECHNIQUES[technique]
            yield _rationale(rng, technique, name, tasks[name], style, rng.random() < right)
        else:
            style, correct = rng.choices(list(NAIVE), list(NAIVE.values()))[0]
            yield _rationale(rng, "arte_rationale", name, tasks[name], style, correct)


def _rationale(rng: random.Random, template: str, name: str, rule: Rule, style: Style, correct: bool) -> Row:
    numbers = draw(rng, 0.3)
    prompt: list[Message] = render(templates()[template], description=name, question=text(numbers))
    return {"prompt": prompt, "completion": rationale(rule if correct else confused(name, rule), numbers, style)}


def _draft(rng: random.Random, name: str, rule: Rule) -> Row:
    seeds = [{"question": text(n), "answer": str(rule.answer(n))} for n in (draw(rng) for _ in range(3))]
    prompt = render(templates()["arte_questions"], description=name, seeds=seeds, asked=5)
    blocks = []
    for number in range(1, 6):
        asked = draw(rng, ZEROS)
        end = "" if rng.random() < MALFORMED else "</target>"
        inner = f"<input> {text(asked)} </input> <target> {rule.answer(asked)} {end}"
        blocks.append(f"<Question_{number}> {inner} </Question_{number}>")
    return {"prompt": prompt, "completion": " ".join(blocks)}
