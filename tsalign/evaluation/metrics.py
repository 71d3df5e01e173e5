"""Win rate, agreement and their uncertainty: pure functions of scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats


def outcome(policy: float, base: float, tie_margin: float = 0.0) -> float:
    """1.0 where the policy's score is higher, 0.0 where the base's is, 0.5 within the tie margin."""
    if abs(policy - base) <= tie_margin:
        return 0.5
    return float(policy > base)


def bootstrap_mean(by_set: Sequence[Sequence[float]], seed: int, draws: int = 2000) -> tuple[float, float]:
    """95 % interval of the mean of set means, prompts drawn anew within each set (percentile bootstrap)."""
    # SciPy takes two values at least; one twice, drawn anew, is still that one.
    samples = [values if len(values) > 1 else [*values, *values] for values in by_set]
    drawn = scipy.stats.bootstrap(
        samples,
        _mean_of_means,
        n_resamples=draws,
        batch=100,  # 100 resamples of all prompts in memory at once
        vectorized=True,
        method="percentile",
        rng=seed,
    )
    low, high = drawn.confidence_interval
    return float(low), float(high)


def _mean_of_means(*samples: np.ndarray, axis: int) -> np.ndarray:
    return np.mean([sample.mean(axis) for sample in samples], axis=0)


def agreements(judge: Sequence[float], other: Sequence[float]) -> tuple[float, int]:
    """Of the pairs of one prompt's completions that the judge tells apart: how many `other` orders the same way.

    A tie of `other` counts half.

    Returns:
        (agreeing, pairs).
    """
    agreeing, pairs = 0.0, 0
    for i in range(len(judge)):
        for j in range(i):
            if judge[i] != judge[j]:
                pairs += 1
                agreeing += outcome(other[i], other[j]) if judge[i] > judge[j] else outcome(other[j], other[i])
    return agreeing, pairs
