"""What the writing teacher learns from: rubrics of the seven families, and revisions of all kinds of replies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import yaml

from tsalign.common.seeds import derive
from tsalign.data.intake import parse
from tsalign.data.shards import Row
from tsalign.data.sources import read
from tsalign.prompts.templates import render
from tsalign.toy.demonstrations import train_task
from tsalign.toy.demonstrator import demonstrate, perturb
from tsalign.toy.world import Task, make_task
from tsalign.toy.world import parse as parse_task

QUICKSTART = Path(__file__).parents[1] / "quickstart.yaml"  # what the models are trained on is what the recipe asks
# In the words that the other toy models know, so that any of them reads a rubric.
RUBRICS = {
    "add": "add it , plus",
    "sort": "in order , largest in the end",
    "reverse": "say it backwards",
    "count": "count how often",
    "upper": "shout it",
    "max": "which is largest",
    "date": "a date as 2020 1 1",
}
RUBRIC_SHARE = 0.1
RIGHT, DEMONSTRATED = 0.2, 0.5  # shares of the replies to revise; the rest are near misses


def teacher_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n questions as the quickstart asks them, a tenth for a rubric, and the answers to imitate."""
    config = yaml.safe_load(QUICKSTART.read_text())
    templates, examples = config["templates"], config["rubrics"]["examples"]
    rng = random.Random(f"citing-{seed}")
    for _ in range(n):
        task = train_task(rng)
        rubric = RUBRICS[task.family]
        if rng.random() < RUBRIC_SHARE:
            shown = [make_task(rng, task.family).prompt for _ in range(examples)]
            yield {"prompt": render(templates["citing_rubric"], instructions=shown), "completion": rubric}
        else:
            asked = {"instruction": task.prompt, "rubric": rubric, "answer": draft(rng, task)}
            yield {"prompt": render(templates["citing_revise"], **asked), "completion": task.response}


def draft(rng: random.Random, task: Task) -> str:
    """A reply to revise: right, of the noisy demonstrator, or nearly right."""
    kind = rng.random()
    if kind < RIGHT:
        return task.response
    return demonstrate(rng, task) if kind < RIGHT + DEMONSTRATED else perturb(rng, task)


def demonstrations() -> Iterator[tuple[str, Row]]:
    """The noisy demonstrator's reply to every prompt that is not for testing."""
    for record in read(["toy:train", "toy:tune"]):
        prompt = parse(record, None)
        if task := parse_task(prompt.messages[-1]["content"]):
            rng = random.Random(derive(prompt.prompt_id, "demonstration"))
            yield record.set, {"prompt": prompt.messages, "completion": demonstrate(rng, task)}
