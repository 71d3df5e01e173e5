"""Log-probability of a completion under a causal LM: the reference of DPO."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch

from tsalign.data.batching import by_tokens
from tsalign.data.chat import encode_pair
from tsalign.data.loading import load_for_inference
from tsalign.data.tensors import pad, padding_id, response_logps
from tsalign.runs.artifacts import Model

if TYPE_CHECKING:
    from tsalign.scoring import Item


@dataclass(frozen=True)
class LogProb:
    """Sum or mean of the response tokens' log-probs, in float32.

    Attributes:
        sampled_tokens: score the ids that were sampled, where the item has them; only right when the model
            shares its tokenizer with the writer. Otherwise the text is encoded anew.
    """

    model: Model
    reduce: Literal["sum", "mean"] = "sum"
    sampled_tokens: bool = True
    batch_tokens: int = 16384

    def load(self) -> Callable[[list[Item]], list[float | None]]:
        """A function from items to log-probs."""
        model, tokenizer = load_for_inference(self.model, "causal")
        padding = padding_id(tokenizer)

        def encode(item: Item) -> tuple[list[int], list[int]]:
            if self.sampled_tokens and item.token_ids and item.prompt_ids:
                return item.prompt_ids, item.token_ids
            return encode_pair(tokenizer, item.prompt, item.completion)

        @torch.inference_mode()
        def score(items: list[Item]) -> list[float | None]:
            pairs = [encode(item) for item in items]
            scores: list[float | None] = [None] * len(pairs)
            for batch in by_tokens([len(p) + len(r) for p, r in pairs], self.batch_tokens):
                padded = pad([pairs[i][0] + pairs[i][1] for i in batch], padding, model.device)
                lengths = torch.tensor([len(pairs[i][1]) for i in batch], device=model.device)
                logps = response_logps(model, padded, lengths).sum(1)
                values = logps / lengths if self.reduce == "mean" else logps
                for index, value in zip(batch, values.tolist()):
                    scores[index] = value
            return scores

        return score
