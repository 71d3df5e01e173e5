"""SimPO (Meng et al. 2024): a preference loss on length-normalised log-probs, without a reference model."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.config import SimPOTrainConfig
from tsalign.data.tensors import response_logps
from tsalign.training.examples import Batch, Example
from tsalign.training.objectives.dpo import sequences


def simpo_loss(means: Tensor, beta: float, gamma: float) -> Tensor:
    """-log sigmoid(beta * (mean log-prob of chosen - of rejected) - gamma), [B].

    Args:
        means: log-probs of chosen and rejected, divided by their lengths, float32 [B, 2].
    """
    return -F.logsigmoid(beta * (means[:, 0] - means[:, 1]) - gamma)


class SimPO:
    """L = SimPO + nll * NLL(y+) / |y+|. Rows: preferences."""

    model: Literal["causal"] = "causal"
    per: Literal["example"] = "example"
    sides = ("chosen", "rejected")
    values = ""

    def __init__(self, config: SimPOTrainConfig) -> None:
        self.beta, self.gamma, self.nll = config.beta, config.gamma, config.nll

    def encode(self, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Example:
        """Two sequences: chosen and rejected."""
        ids, lengths = sequences(row, tokenizer)
        return Example(ids, lengths, [0.0, 0.0])

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over the pairs; reports loss, NLL, margin of mean log-probs, and beta times the mean as reward."""
        sums = response_logps(model, batch.padded, batch.response_lengths).sum(1)
        means = (sums / batch.response_lengths).view(-1, 2)
        preference, nll = simpo_loss(means, self.beta, self.gamma), -means[:, 0]
        chosen, rejected = means.detach().T
        report = {
            "simpo": preference.detach(),
            "nll": nll.detach(),
            "margin": chosen - rejected,
            "accuracy": (chosen > rejected).float(),
            "chosen_reward": self.beta * chosen,
            "rejected_reward": self.beta * rejected,
        }
        total = ((preference + self.nll * nll) * batch.weight).sum()
        return total, {name: (value * batch.weight).sum() for name, value in report.items()}
