"""Pairwise ranking losses for reward models: margin ranking (TS-Align) and logistic (Bradley-Terry)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.config import LogisticTrainConfig, MarginRankingTrainConfig
from tsalign.data.chat import encode_pair
from tsalign.data.tensors import rewards
from tsalign.training.examples import Batch, Example


def margin_ranking(difference: Tensor, margin: float) -> Tensor:
    """max(0, m - (r+ - r-)), elementwise."""
    return F.relu(margin - difference)


def logistic(difference: Tensor, margin: float) -> Tensor:
    """-log sigmoid(r+ - r- - m), elementwise."""
    return -F.logsigmoid(difference - margin)


def ordered_pairs(values: Tensor, group: Tensor) -> tuple[Tensor, Tensor]:
    """Indices (better, worse) of all pairs within a group whose values differ, int64 [P] each."""
    same = group[:, None] == group[None]
    better, worse = torch.nonzero(same & (values[:, None] > values[None]), as_tuple=True)
    return better, worse


class PairwiseRanking:
    """Mean of `pair_loss` over the ordered pairs of each example.

    Rows: preferences (`chosen`, `rejected`), or rankings (`texts` with `scores`).
    """

    model: Literal["reward"] = "reward"
    per: Literal["example"] = "example"
    sides = ()
    values = "target"

    def __init__(self, pair_loss: Callable[[Tensor, float], Tensor], margin: float) -> None:
        self.pair_loss, self.margin = pair_loss, margin

    def encode(self, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Example | None:
        """One sequence a completion, with the target scores as values; None where all are tied."""
        if "chosen" in row:
            texts, values = [row["chosen"][-1]["content"], row["rejected"][-1]["content"]], [1.0, 0.0]
        else:
            texts, values = row["texts"], list(row["scores"])
        if len(set(values)) < 2:
            return None
        pairs = [encode_pair(tokenizer, row["prompt"], text) for text in texts]
        return Example([p + r for p, r in pairs], [len(r) for _, r in pairs], values)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over the examples of the mean over their pairs; reports pair accuracy, both sides' scores, their gap."""
        scores = rewards(model, batch.padded)
        better, worse = ordered_pairs(batch.values, batch.group)
        example = batch.group[better]
        share = batch.weight[example] / torch.bincount(example, minlength=len(batch.weight))[example]
        gap = scores[better] - scores[worse]
        report = {
            "accuracy": (gap > 0).float(),
            "margin": gap.detach(),
            "better_score": scores[better].detach(),
            "worse_score": scores[worse].detach(),
        }
        total = (self.pair_loss(gap, self.margin) * share).sum()
        return total, {name: (value * share).sum() for name, value in report.items()}


def MarginRanking(config: MarginRankingTrainConfig) -> PairwiseRanking:
    """The student's distillation loss of TS-Align."""
    return PairwiseRanking(margin_ranking, config.margin)


def Logistic(config: LogisticTrainConfig) -> PairwiseRanking:
    """The Bradley-Terry form."""
    return PairwiseRanking(logistic, config.margin)
