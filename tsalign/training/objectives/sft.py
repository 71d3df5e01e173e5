"""Supervised fine-tuning: next-token loss on the response."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.config import TrainConfig
from tsalign.data.chat import encode_pair
from tsalign.data.tensors import response_logps
from tsalign.training.examples import Batch, Example


class SFT:
    """L = - sum_t log pi(y_t | x, y_<t) / tokens, over the response tokens of the whole step.

    Rows: `prompt` (messages) and `completion` (text); no end is learnt of those whose `finish` is `length`.
    """

    model: Literal["causal"] = "causal"
    per: Literal["token"] = "token"
    sides = ("completion",)
    values = ""

    def __init__(self, config: TrainConfig) -> None:
        pass

    def encode(self, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Example:
        """Prompt + completion through the chat template."""
        prompt, response = encode_pair(tokenizer, row["prompt"], row["completion"], row.get("finish") == "length")
        return Example([prompt + response], [len(response)], [0.0])

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum of the response tokens' negative log-probs."""
        nll = -response_logps(model, batch.padded, batch.response_lengths).sum(1)  # [S], one sequence an example
        return (nll * batch.weight).sum(), {}
