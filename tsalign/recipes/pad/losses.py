"""Preference-aligned distillation (PAD, arXiv 2502.14272): the teacher's distribution over rankings, learnt."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.data.chat import sampled_or_encoded
from tsalign.data.tensors import response_logps
from tsalign.recipes.pad.config import PADTrainConfig
from tsalign.recipes.pad.plackett_luce import jensen_shannon, ranking_nll, reversed_jensen_shannon, windows
from tsalign.training.examples import Batch, Example

Loss = Callable[[Tensor, Tensor], Tensor]


def decomposed(loss: Loss, student: Tensor, teacher: Tensor, size: int) -> Tensor:
    """Mean of a loss over groups of at most `size` responses (see `windows`), [B].

    Args:
        loss: of student's and teacher's scores [B, n].
        student, teacher: scores [B, n].
    """
    groups = windows(teacher, size)
    examples, count, width = groups.shape
    flat = groups.flatten(1)
    s, t = (scores.gather(1, flat).view(-1, width) for scores in (student, teacher))
    return loss(s, t).view(examples, count).mean(1)


class PAD:
    """L = D(P_S, P_T) + nll * NLL(y_best) / |y_best|, with P the Plackett-Luce distributions over a prompt's rankings.

    The student's scores are beta * log pi(y | x) / |y|; the teacher's are given, already scaled. There is no
    reference model. The NLL term, on the response that the teacher likes best, is ours.

    Rows: candidate sets with `score.teacher`.
    """

    model: Literal["causal"] = "causal"
    per: Literal["example"] = "example"
    sides = ()
    values = "teacher score"

    def __init__(self, divergence: Loss, config: PADTrainConfig) -> None:
        self.divergence, self.beta, self.nll, self.size = divergence, config.beta, config.nll, config.group_size

    def encode(self, row: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> Example:
        """One sequence a response, with the teacher's scores as values."""
        prompt, known = row["prompt"], row.get("prompt_ids")
        pairs = [
            sampled_or_encoded(tokenizer, prompt, made["text"], known, made["token_ids"], made["finish"] == "length")
            for made in row["completions"]
        ]
        return Example([p + r for p, r in pairs], [len(r) for _, r in pairs], list(row["score.teacher"]))

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """Sum over the prompts; reports divergence, NLL, how often student and teacher agree on a
        pair's order, and the student's scores of the responses that the teacher likes best and least.
        """
        means = response_logps(model, batch.padded, batch.response_lengths).sum(1) / batch.response_lengths
        sizes = torch.bincount(batch.group, minlength=len(batch.weight))
        total, report = means.new_zeros(()), defaultdict[str, Tensor](lambda: means.new_zeros(()))
        for size in sizes.unique().tolist():  # prompts with equally many responses together
            weight, own = batch.weight[sizes == size], (sizes == size)[batch.group]
            student, teacher = means[own].view(-1, size), batch.values[own].view(-1, size)
            divergence = decomposed(self.divergence, self.beta * student, teacher, self.size)
            best, worst = (student.gather(1, at[:, None])[:, 0] for at in (teacher.argmax(1), teacher.argmin(1)))
            total = total + ((divergence - self.nll * best) * weight).sum()
            values = {
                "divergence": divergence,
                "nll": -best,
                "accuracy": concordance(student, teacher),
                "best_reward": self.beta * best,
                "worst_reward": self.beta * worst,
            }
            for name, value in values.items():
                report[name] = report[name] + (value.detach() * weight).sum()
        return total, report


def concordance(student: Tensor, teacher: Tensor) -> Tensor:
    """Share of the pairs the teacher orders that the student orders the same way, [B]; 0 if it orders none."""
    s, t = (scores[:, :, None] - scores[:, None] for scores in (student, teacher))
    return ((s > 0) & (t > 0)).sum((1, 2)) / (t > 0).sum((1, 2)).clamp(min=1)


def PPD(config: PADTrainConfig) -> PAD:
    """Probabilistic preference distillation: the Jensen-Shannon divergence, as the paper defines it."""
    return PAD(jensen_shannon, config)


def VPD(config: PADTrainConfig) -> PAD:
    """Vanilla preference distillation: the negative log-likelihood of the teacher's ranking."""
    return PAD(ranking_nll, config)


def ReleasedPAD(config: PADTrainConfig) -> PAD:
    """The divergence as the authors' code computes it at one prompt a device, for reproduction."""
    return PAD(reversed_jensen_shannon, config)
