"""Item response theory: which questions tell weaker from stronger models (2-parameter logistic model)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from tsalign.data.shards import Row, iterate, write_rows
from tsalign.recipes.arte.tasks import SHARD_SIZE
from tsalign.runs.artifacts import Dataset
from tsalign.runs.plan import ONE_TASK, PlannedStage, expected, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

SPREAD = 0.5  # standard deviation of log-discriminations, a priori
NODES = 41  # abilities that the integral is summed over


class ItemParameters(NamedTuple):
    """P(subject j answers item i rightly) = sigmoid(discrimination_i * (ability_j - difficulty_i)).

    Attributes:
        discrimination: float64 [items], positive.
        difficulty: float64 [items].
        ability: float64 [subjects], posterior means.
    """

    discrimination: Tensor
    difficulty: Tensor
    ability: Tensor


def fit(correct: Tensor, steps: int = 100) -> ItemParameters:
    """Marginal maximum a posteriori of the 2-parameter model; abilities are integrated over a standard normal.

    The paper names Bayesian inference in one place and maximum likelihood in another. The priors (difficulty standard
    normal, log-discrimination normal with mean 0 and spread 0.5) keep items that all or none answer
    right finite.

    Args:
        correct: bool or 0/1 [subjects, items].
    """
    truth = correct.to(torch.float64)
    nodes = torch.linspace(-5, 5, NODES, dtype=torch.float64)
    weights = (-nodes.square() / 2).log_softmax(0)
    slope = torch.zeros(truth.shape[1], dtype=torch.float64, requires_grad=True)
    difficulty = torch.zeros_like(slope, requires_grad=True)
    optimiser = torch.optim.LBFGS([slope, difficulty], max_iter=steps, line_search_fn="strong_wolfe")

    def joint() -> Tensor:
        """Log-probability of each subject's answers together with each ability [subjects, nodes]."""
        logits = slope.exp() * (nodes[:, None] - difficulty)
        return truth @ F.logsigmoid(logits).T + (1 - truth) @ F.logsigmoid(-logits).T + weights

    def loss() -> Tensor:
        optimiser.zero_grad()
        prior = difficulty.square().sum() + (slope / SPREAD).square().sum()
        total = prior / 2 - joint().logsumexp(1).sum()
        total.backward()
        return total

    optimiser.step(loss)
    with torch.no_grad():
        return ItemParameters(slope.exp(), difficulty.detach(), joint().softmax(1) @ nodes)


def most_discriminative(correct: Tensor, keep: int) -> tuple[list[int], ItemParameters]:
    """Indices of the `keep` items with the highest discrimination, in the items' order, and all parameters."""
    found = fit(correct)
    order = found.discrimination.argsort(descending=True, stable=True)
    return sorted(order[:keep].tolist()), found


@stage_function("arte/select_items")
def select_items(stage: Stage, answered: Sequence[Dataset], keep: int) -> Dataset:
    """The `keep` most discriminative questions of each task, each task's items fitted by themselves.

    Args:
        answered: one a model, rows with `task, question, answer` and `correct`, one value a number of shots: every
            model and number of shots is a subject.
    """
    items: dict[str, Row] = {}
    for dataset in answered:
        for row in iterate([dataset], ["prompt_id", "task", "question", "answer", "correct"]):
            items.setdefault(row["prompt_id"], {**row, "correct": []})["correct"] += row["correct"]
    kept: list[Row] = []
    for task in sorted({row["task"] for row in items.values()}):
        # A question that some model failed to be asked about has fewer answers, and cannot be compared.
        own = [row for row in items.values() if row["task"] == task]
        whole = [row for row in own if len(row["correct"]) == max(len(row["correct"]) for row in own)]
        best, found = most_discriminative(torch.tensor([row["correct"] for row in whole]).T, keep)
        kept += [{**whole[i], "discrimination": float(found.discrimination[i])} for i in best]
    write_rows(stage.out, kept, shard_size=SHARD_SIZE)
    stage.log({"items": len(items), "rows": len(kept)})
    return Dataset(str(stage.out), stage.fingerprint)


@select_items.expects
def _expect_items(stage: PlannedStage, answered: Sequence[Dataset], keep: int) -> Dataset:
    items = expected(answered[0])
    stage.needs("", ONE_TASK, {"rows": items.rows}, f"{keep} of each task")
    return stage.derived(items, rows=times(items.sets, keep))
