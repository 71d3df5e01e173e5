"""Padding to tensors, and the two forward passes that everything shares: reward and log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase


class Padded(NamedTuple):
    """Left-padded sequences: `input_ids`, `attention_mask`, `position_ids`, each int64 [S, T]."""

    input_ids: Tensor
    attention_mask: Tensor
    position_ids: Tensor


def padding_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to pad with that never ends a sequence, so that pooling by "last token that is not padding" is right.

    It is the tokenizer's own pad token unless that is also its end-of-sequence token.
    """
    pad, eos = tokenizer.pad_token_id, tokenizer.eos_token_id
    return int(pad) if pad is not None and pad != eos else int(eos == 0)


def pad(sequences: Sequence[Sequence[int]], padding: int, device: torch.device | str = "cpu") -> Padded:
    """Sequences as one left-padded block on `device`."""
    longest = max(len(sequence) for sequence in sequences)
    ids = [[padding] * (longest - len(sequence)) + list(sequence) for sequence in sequences]
    mask = [[0] * (longest - len(sequence)) + [1] * len(sequence) for sequence in sequences]
    attention = torch.tensor(mask, device=device)
    return Padded(torch.tensor(ids, device=device), attention, (attention.cumsum(1) - 1).clamp(min=0))


def finite(weight: Tensor) -> bool:
    """Whether a tensor holds neither infinite nor undefined numbers; formats that pack numbers are taken on trust."""
    if weight.dtype not in (torch.float32, torch.bfloat16, torch.float16, torch.float64) or not weight.numel():
        return True
    return bool(torch.stack(weight.aminmax()).isfinite().all())  # makes no second tensor of that size


def rewards(model: Any, padded: Padded) -> Tensor:
    """Scores of a sequence classifier with one label, float32 [S]."""
    return model(**padded._asdict(), use_cache=False).logits[:, 0].float()


def response_logps(model: Any, padded: Padded, response_lengths: Tensor) -> Tensor:
    """Log-probs of the response tokens, float32 [S, R], right-aligned, zero before each response.

    Logits are made for the last R + 1 positions only, R being the longest response in the batch.
    """
    longest = int(response_lengths.max())
    logits = model(**padded._asdict(), use_cache=False, logits_to_keep=longest + 1).logits[:, :-1].float()
    labels = padded.input_ids[:, -longest:, None]  # [S, R, 1]
    logps = logits.gather(2, labels)[..., 0] - logits.logsumexp(2)
    return logps * response_mask(response_lengths, longest)


def response_mask(response_lengths: Tensor, longest: int) -> Tensor:
    """1.0 on response tokens of a right-aligned block, float32 [S, R]."""
    countdown = torch.arange(longest, 0, -1, device=response_lengths.device)
    return (countdown[None] <= response_lengths[:, None]).float()
