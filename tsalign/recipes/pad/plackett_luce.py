"""Plackett-Luce distributions over the rankings of n items, and how far two of them are apart.

Everything works on scores [B, n] of B prompts and holds n! x n numbers a prompt; for more items see `windows`.
"""

from __future__ import annotations

import math
from functools import cache
from itertools import permutations

import torch
import torch.nn.functional as F
from torch import Tensor


@cache
def rankings(n: int) -> Tensor:
    """All rankings of n items, best first, int64 [n!, n]."""
    return torch.tensor(list(permutations(range(n))))


def ranking_logp(scores: Tensor) -> Tensor:
    """log P of the ranking as given, first item best, from scores [..., n]: sum_k w_k - logsumexp(w_k, ..., w_n)."""
    remaining = scores.flip(-1).logcumsumexp(-1)
    return (scores - remaining.flip(-1)).sum(-1)


def all_logps(scores: Tensor) -> Tensor:
    """log P of every ranking, [B, n!], from scores [B, n]."""
    return ranking_logp(scores[:, rankings(scores.shape[1]).to(scores.device)])


def jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(S || M) / 2 + KL(T || M) / 2 with M = (S + T) / 2, over all rankings, [B]; between 0 and ln 2 (PAD's PPD).

    Args:
        student, teacher: scores [B, n].
    """
    s, t = all_logps(student), all_logps(teacher)
    # log M = log S + softplus(log T - log S) - ln 2: exact where both are equal, finite where one is almost 0.
    from_s, from_t = F.softplus(t - s), F.softplus(s - t)
    return ((s.exp() * (math.log(2) - from_s) + t.exp() * (math.log(2) - from_t)) / 2).sum(1)


def reversed_jensen_shannon(student: Tensor, teacher: Tensor) -> Tensor:
    """KL(M || S) / 2 + KL(M || T) / 2, [B]: what PAD's released code computes with one prompt a device; unbounded."""
    s, t = all_logps(student), all_logps(teacher)
    m = (s.exp() + t.exp()) / 2
    return (m * ((F.softplus(t - s) + F.softplus(s - t)) / 2 - math.log(2))).sum(1)


def ranking_nll(student: Tensor, teacher: Tensor) -> Tensor:
    """-log P_S of the teacher's ranking, [B] (PAD's VPD); the first of equals ranks higher."""
    order = teacher.argsort(stable=True, dim=1, descending=True)
    return -ranking_logp(student.gather(1, order))


def windows(teacher: Tensor, size: int) -> Tensor:
    """Overlapping groups for more than `size` items: the n windows of `size` neighbours in the teacher's order.

    The order is closed to a ring, so that some windows hold both the best and the worst, and every item is in
    exactly `size` of them. Ours: the paper's decomposition is not known.

    Args:
        teacher: scores [B, n].

    Returns:
        indices into the n items, int64 [B, groups, size]; one group of all where n <= size.
    """
    order = teacher.argsort(stable=True, dim=1, descending=True)
    n = teacher.shape[1]
    if n <= size:
        return order[:, None]
    ring = (torch.arange(n)[:, None] + torch.arange(size)) % n
    return order[:, ring.to(order.device)]
