"""Scores of a reward model: a sequence classifier with one label. Used by student, teacher service and judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from tsalign.data.batching import by_tokens
from tsalign.data.chat import encode_pair
from tsalign.data.loading import load_for_inference
from tsalign.data.tensors import pad, padding_id, rewards
from tsalign.runs.artifacts import Model

if TYPE_CHECKING:
    from tsalign.scoring import Item


@dataclass(frozen=True)
class RewardModel:
    """Scores by the classifier's one logit.

    Attributes:
        batch_tokens: padded tokens in one forward pass.
    """

    model: Model
    batch_tokens: int = 32768

    def load(self) -> Callable[[list[Item]], list[float | None]]:
        """A function from items to float32 scores."""
        model, tokenizer = load_for_inference(self.model, "reward")
        padding = padding_id(tokenizer)

        def score(items: list[Item]) -> list[float | None]:
            pairs = (encode_pair(tokenizer, item.prompt, item.completion) for item in items)
            return list(score_sequences(model, [p + r for p, r in pairs], padding, self.batch_tokens))

        return score


@torch.inference_mode()
def score_sequences(
    model: torch.nn.Module, sequences: Sequence[list[int]], padding: int, batch_tokens: int
) -> list[float]:
    """One score a token sequence, in order; batched by length."""
    device = next(model.parameters()).device
    scores = [0.0] * len(sequences)
    for batch in by_tokens([len(sequence) for sequence in sequences], batch_tokens):
        values = rewards(model, pad([sequences[i] for i in batch], padding, device))
        for index, value in zip(batch, values.tolist()):
            scores[index] = value
    return scores
