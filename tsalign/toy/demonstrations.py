"""Training rows of the toy world: replies to imitate, scored groups and pairs to learn a ranking from."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tsalign.toy.demonstrator import demonstrate, perturb
from tsalign.toy.oracle import grade
from tsalign.toy.world import Task, make_task, parse, split_of

Row = dict[str, Any]
Samples = Mapping[str, Sequence[str]]


def train_task(rng: random.Random) -> Task:
    """Draw a task of the train split."""
    while True:
        task = make_task(rng)
        if split_of(task.prompt) == "train":
            return task


def clean_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n prompts with their right replies."""
    rng = random.Random(f"clean-{seed}")
    for _ in range(n):
        task = train_task(rng)
        yield {"prompt": task.messages, "completion": task.response}


def noisy_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n prompts with the noisy demonstrator's replies."""
    rng = random.Random(f"noisy-{seed}")
    for _ in range(n):
        task = train_task(rng)
        yield {"prompt": task.messages, "completion": demonstrate(rng, task)}


def _task_with_samples(rng: random.Random, samples: Samples, prompts: Sequence[str]) -> tuple[Task, Sequence[str]]:
    task = parse(rng.choice(prompts)) if prompts else train_task(rng)
    if task is None or split_of(task.prompt) != "train":
        raise ValueError("samples must answer prompts of the train split")
    return task, samples.get(task.prompt, ())


def teacher_groups(seed: int, n: int, base_samples: Samples | None = None) -> Iterator[Row]:
    """Yield n prompts, each with a group of different replies, their oracle scores and the right reply.

    A group holds the right reply half of the time, two demonstrations, two near-misses, and, when
    `base_samples` maps train prompts to replies of a policy, up to three of those.
    """
    rng = random.Random(f"groups-{seed}")
    samples = base_samples or {}
    prompts = list(samples)
    for _ in range(n):
        task, own = _task_with_samples(rng, samples, prompts)
        replies = [task.response] if rng.random() < 0.5 else []
        replies += [demonstrate(rng, task) for _ in range(2)]
        replies += [perturb(rng, task) for _ in range(2)]
        replies += rng.sample(own, min(3, len(own)))
        group = list(dict.fromkeys(replies))
        scores = [grade(task.messages, reply) for reply in group]
        yield {"prompt": task.messages, "texts": group, "scores": scores, "reference": task.response}


def student_pairs(seed: int, n: int, flip: float = 0.25, base_samples: Samples | None = None) -> Iterator[Row]:
    """Yield n preference pairs of different worth, a share `flip` of them with the labels exchanged.

    The pairs are demonstrations, or replies of a policy when `base_samples` maps train prompts to them.
    """
    rng = random.Random(f"pairs-{seed}")
    samples = base_samples or {}
    prompts = list(samples)
    made = 0
    while made < n:
        task, own = _task_with_samples(rng, samples, prompts)
        pair = rng.sample(own, 2) if own else [demonstrate(rng, task), demonstrate(rng, task)]
        worse, better = sorted(pair, key=lambda reply: grade(task.messages, reply))
        if grade(task.messages, worse) == grade(task.messages, better):
            continue
        chosen, rejected = (worse, better) if rng.random() < flip else (better, worse)
        made += 1
        yield {
            "prompt": task.messages,
            "chosen": [{"role": "assistant", "content": chosen}],
            "rejected": [{"role": "assistant", "content": rejected}],
        }
