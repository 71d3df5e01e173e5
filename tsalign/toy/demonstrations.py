"""Training rows of the toy world: demonstrations to imitate, scored groups and pairs to learn a ranking from."""

import random
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tsalign.toy.demonstrator import demonstrate, perturb
from tsalign.toy.world import Task, make_task, split_of

Row = dict[str, Any]
Samples = Mapping[str, Sequence[str]]


def _train_tasks(rng: random.Random) -> Iterator[Task]:
    while True:
        task = make_task(rng)
        if split_of(task.prompt) == "train":
            yield task


def clean_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n prompts with their right replies."""
    for _, task in zip(range(n), _train_tasks(random.Random(f"clean-{seed}"))):
        yield {"prompt": task.messages, "completion": task.response}


def noisy_rows(seed: int, n: int) -> Iterator[Row]:
    """Yield n prompts with the noisy demonstrator's replies."""
    rng = random.Random(f"noisy-{seed}")
    for _, task in zip(range(n), _train_tasks(rng)):
        yield {"prompt": task.messages, "completion": demonstrate(rng, task)}


def _replies(rng: random.Random, task: Task, samples: Sequence[str]) -> list[str]:
    replies = [task.response] if rng.random() < 0.5 else []
    replies += [demonstrate(rng, task) for _ in range(2)]
    replies += [perturb(rng, task) for _ in range(2)]
    replies += rng.sample(samples, min(3, len(samples)))
    return list(dict.fromkeys(replies))


def teacher_groups(seed: int, n: int, base_samples: Samples | None = None) -> Iterator[Row]:
    """Yield n prompts, each with a group of different replies, their oracle scores and the right reply.

    `base_samples` maps prompts to samples of the base policy; its prompts are then mixed with fresh ones.
    """
    rng = random.Random(f"groups-{seed}")
    yield from _groups(rng, n, base_samples or {})
