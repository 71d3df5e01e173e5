"""Direct preference optimisation (Rafailov et al. 2023, equation 7), with an NLL term on the chosen completion."""

from __future__ import annotations

from typing import Any, Literal

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.config import DPOTrainConfig
from tsalign.data.chat import sampled_or_encoded
from tsalign.data.pairs import was_cut
from tsalign.data.tensors import response_logps
from tsalign.training.examples import Batch, Example


def dpo_loss(policy: Tensor, reference: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """-log sigmoid of the scaled difference of log-ratios.

    Args:
        policy, reference: summed log-probs of chosen and rejected, float32 [B, 2].

    Returns:
        loss [B], and implicit rewards beta * (policy - reference) [B, 2].
    """
    implicit = beta * (policy - reference)
    return -F.logsigmoid(implicit[:, 0] - implicit[:, 1]), implicit


def sequences(row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> tuple[list[list[int]], list[int]]:
    """Chosen and rejected as prompt + response tokens, with the responses' lengths.

    The tokens that the policy sampled where the row has them, else the texts through the chat template.
    """
    prompt, known = row["prompt"], row.get("prompt_ids")
    pairs = [
        sampled_or_encoded(
            tokenizer, prompt, row[side][-1]["content"], known, row.get(f"{side}_ids"), was_cut(row, side)
        )
        for side in ("chosen", "rejected")
    ]
    return [prompt + response for prompt, response in pairs], [len(response) for _, response in pairs]


class DPO:
    """L = -log sigmoid(beta [(log pi - log ref)(y+) - (log pi - log ref)(y-)]) + nll * NLL(y+) / |y+|.

    Rows: preferences with `score.reference`, the reference's summed log-probs of chosen and rejected.
    """

    model: Literal["causal"] = "causal"
    per: Literal["example"] = "example"
    sides = ("chosen", "rejected")
    values = "reference log-prob"

    def __init__(self, config: DPOTrainConfig) -> None:
        self.beta, self.nll = config.beta, config.nll

    def encode(self, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Example:
        """Two sequences with the reference's log-probs as values."""
        ids, lengths = sequences(row, tokenizer)
        return Example(ids, lengths, list(row["score.reference"]))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over the pairs; reports margins, accuracy, and implicit rewards and log-probs of each side."""
        logps = response_logps(model, batch.padded, batch.response_lengths).sum(1).view(-1, 2)  # [B, 2]
        preference, implicit = dpo_loss(logps, batch.values.view(-1, 2), self.beta)
        nll = -logps[:, 0] / batch.response_lengths.view(-1, 2)[:, 0]
        chosen, rejected = implicit.detach().T
        report = {
            "dpo": preference.detach(),
            "nll": nll.detach(),
            "margin": chosen - rejected,
            "accuracy": (chosen > rejected).float(),
            "chosen_reward": chosen,
            "rejected_reward": rejected,
            "chosen_logp": logps[:, 0].detach(),
            "rejected_logp": logps[:, 1].detach(),
        }
        total = ((preference + self.nll * nll) * batch.weight).sum()
        return total, {name: (value * batch.weight).sum() for name, value in report.items()}
