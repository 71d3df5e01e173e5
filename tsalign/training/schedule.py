"""Which examples make each optimiser step, and at what learning rate: fixed by the seed, so a resume can skip."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from tsalign.config import TrainConfig
from tsalign.data.batching import by_tokens


@dataclass(frozen=True)
class MicroBatch:
    """Example indices of one forward pass, with weight 0 for fillers."""

    indices: list[int]
    weights: list[float]


def total_steps(examples: int, config: TrainConfig) -> int:
    """Optimiser steps of a training; the last batch of an epoch may be smaller."""
    return math.ceil(config.epochs * math.ceil(examples / config.batch_size))


def step_indices(examples: int, config: TrainConfig, seed: int, first: int = 0) -> Iterator[list[int]]:
    """Example indices of each optimiser step from step `first` on; a new shuffle every epoch."""
    per_epoch = math.ceil(examples / config.batch_size)
    order, epoch = np.zeros(0, int), -1
    for step in range(first, total_steps(examples, config)):
        if epoch != step // per_epoch:
            epoch = step // per_epoch
            order = np.random.default_rng([seed, epoch]).permutation(examples)
        start = (step % per_epoch) * config.batch_size
        yield order[start : start + config.batch_size].tolist()


def micro_batches(
    indices: Sequence[int], longest: Sequence[int], width: Sequence[int], budget: int, workers: int
) -> list[list[MicroBatch]]:
    """One step's examples dealt to the workers: an equal number of micro-batches each, within the token budget.

    Args:
        longest, width: of the examples at `indices`: tokens of the longest sequence, number of sequences.

    Collective operations need the same number of passes on every worker, so batches are split, and where there
    are too few examples, filled up with a copy of weight 0.
    """
    batches = by_tokens(longest, budget, width)
    while len(batches) % workers:
        largest = max(batches, key=len)
        if len(largest) == 1:
            break
        batches.remove(largest)
        batches += [largest[::2], largest[1::2]]
    real = [MicroBatch([indices[i] for i in batch], [1.0] * len(batch)) for batch in batches]
    shortest = min(range(len(indices)), key=lambda i: longest[i])
    filler = MicroBatch([indices[shortest]], [0.0])
    real += [filler] * (-len(real) % workers)
    return [real[worker::workers] for worker in range(workers)]


def learning_rate(step: int, steps: int, config: TrainConfig) -> float:
    """The rate of step 0, 1, ...: linear warm-up, then cosine, linear, or no decay to zero.

    The shapes of `transformers.get_scheduler`, but step 0 learns (theirs has rate 0), and there is no state to restore.
    """
    warmup = math.ceil(config.warmup * steps)
    if step < warmup:
        return config.learning_rate * (step + 1) / warmup
    done = (step - warmup) / max(1, steps - warmup)
    decay = {"cosine": 0.5 * (1 + math.cos(math.pi * done)), "linear": 1 - done, "constant": 1.0}
    return config.learning_rate * decay[config.schedule]
