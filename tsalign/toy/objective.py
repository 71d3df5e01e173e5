"""How the toy teacher learns: a ranking over groups of replies, helped by a signal on every token.

From pairs alone a short training leaves a teacher that a policy soon learns to fool; asking of each token whether it
is the right one shows the teacher where replies go wrong.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.config import CustomTrainConfig
from tsalign.data.chat import encode_pair
from tsalign.data.tensors import response_mask
from tsalign.training.examples import Batch, Example
from tsalign.training.objectives.ranking import logistic, ordered_pairs


class GroupReward:
    """L = mean over a group's pairs of -log sigmoid(r+ - r-) + mean over tokens of BCE(token is the right one).

    Rows: `prompt`, `texts`, `scores`, and `reference`, the right reply. An example's values hold two numbers for
    each text: its score, and which of its tokens are right, as the bits of an integer.
    """

    model: Literal["reward"] = "reward"
    per: Literal["example"] = "example"
    sides = ()
    values = "score, right tokens as bits"

    def __init__(self, config: CustomTrainConfig) -> None:
        """Nothing to choose."""

    def encode(self, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Example | None:
        """One sequence per text; None if all score equally."""
        if len(set(row["scores"])) < 2:
            return None
        pairs = [encode_pair(tokenizer, row["prompt"], text) for text in row["texts"]]
        _, right = encode_pair(tokenizer, row["prompt"], row["reference"])
        values = [value for score, (_, r) in zip(row["scores"], pairs) for value in (score, float(matches(r, right)))]
        return Example([p + r for p, r in pairs], [len(r) for _, r in pairs], values)

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over the groups; reports pair accuracy, scores of both sides, and token loss."""
        target, right = batch.values.view(-1, 2).T
        output = model(**batch.padded._asdict(), use_cache=False, output_hidden_states=True)
        scores, examples = output.logits[:, 0].float(), len(batch.weight)

        better, worse = ordered_pairs(target, batch.group)
        group = batch.group[better]
        share = batch.weight[group] / torch.bincount(group, minlength=examples)[group]
        gap = scores[better] - scores[worse]

        longest = int(batch.response_lengths.max())
        hidden = output.hidden_states[-1][:, -longest:].float()  # [S, R, H]
        position = torch.arange(longest, device=hidden.device) - (longest - batch.response_lengths[:, None])
        label = (right.long()[:, None] >> position.clamp(min=0)) & 1
        each = F.binary_cross_entropy_with_logits(hidden @ readout(hidden), label.float(), reduction="none")
        mask = response_mask(batch.response_lengths, longest)
        per_text = (each * mask).sum(1) / batch.response_lengths
        size = torch.bincount(batch.group, minlength=examples)[batch.group]
        token_loss = (per_text * batch.weight[batch.group] / size).sum()

        report = {
            "accuracy": ((gap > 0).float() * share).sum(),
            "better_score": (scores[better].detach() * share).sum(),
            "worse_score": (scores[worse].detach() * share).sum(),
            "token_loss": token_loss.detach(),
        }
        return (logistic(gap, margin=0.0) * share).sum() + token_loss, report


def readout(hidden: Tensor) -> Tensor:
    """A fixed direction in which the hidden state tells whether a token is right: no weights to drop afterwards."""
    sign = 1 - 2 * (torch.arange(hidden.shape[-1], device=hidden.device) % 2)
    return sign / math.sqrt(hidden.shape[-1])


def matches(response: list[int], right: list[int]) -> int:
    """Bit i is set where token i is that of the right reply. Replies beyond 24 tokens do not fit a float32."""
    return sum(1 << i for i, (one, two) in enumerate(zip(response[:24], right)) if one == two)
