"""What PAD's teacher learns from: good replies, grades of single replies, and which of two replies is better."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from pathlib import Path

import yaml

from tsalign.data.shards import Row
from tsalign.data.sources import Message
from tsalign.prompts.templates import render
from tsalign.runs.artifacts import Dataset
from tsalign.toy.demonstrations import teacher_groups
from tsalign.toy.stages import texts

QUICKSTART = Path(__file__).parents[1] / "quickstart.yaml"  # what the model is trained on is what the recipe asks
SOFTNESS = 0.2  # a reply is e^5 times likelier than one that the judge scores 1 lower: log-probs then tell how bad
CHOICES, GRADES = 0.55, 0.3  # shares of the second lesson; the rest are replies
GRADE = "## user\n{{ prompt[-1].content }}\n## assistant\n{{ a }}\n## user\nhow ?\n"  # asked for a number up to 10


def replies(seed: int, n: int) -> Iterator[Row]:
    """Yield n prompts with a reply, the better the likelier."""
    rng = random.Random(f"pad-replies-{seed}")
    for group in teacher_groups(seed, n):
        yield _reply(rng, group)


def questions(seed: int, n: int, samples: list[Dataset]) -> Iterator[Row]:
    """Yield n rows: choices as the quickstart asks for them, grades, and replies.

    Args:
        samples: candidate sets of policies, whose completions are among what is compared.
    """
    template = yaml.safe_load(QUICKSTART.read_text())["templates"]["pad_choice"]
    rng = random.Random(f"pad-questions-{seed}")
    for group in teacher_groups(seed + 1, n, texts(samples)):
        kind = rng.random()
        if kind < CHOICES and len(group["texts"]) > 1:
            yield _choice(rng, group, template)
        elif kind < CHOICES + GRADES:
            yield _grade(rng, group)
        else:
            yield _reply(rng, group)


def _reply(rng: random.Random, group: Row) -> Row:
    known, scores = [*group["texts"], group["reference"]], [*group["scores"], 1.0]
    (text,) = rng.choices(known, [math.exp(score / SOFTNESS) for score in scores])
    return {"prompt": group["prompt"], "completion": text}


def _grade(rng: random.Random, group: Row) -> Row:
    text, score = rng.choice(list(zip(group["texts"], group["scores"])))
    return {"prompt": _asked(GRADE, group, a=text), "completion": str(round(10 * score))}


def _choice(rng: random.Random, group: Row, template: str) -> Row:
    (a, of_a), (b, of_b) = rng.sample(list(zip(group["texts"], group["scores"])), 2)
    better = "None" if of_a == of_b else "A" if of_a > of_b else "B"
    return {"prompt": _asked(template, group, a=a, b=b), "completion": better}


def _asked(template: str, group: Row, **options: str) -> list[Message]:
    return render(template, prompt=group["prompt"], **options)
