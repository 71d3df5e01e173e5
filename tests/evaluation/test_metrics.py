"""Win rates and agreement by hand."""

import pytest

from tsalign.evaluation.metrics import agreements, bootstrap_mean, outcome


def test_outcomes() -> None:
    assert [outcome(1, 0), outcome(0, 1), outcome(1, 1), outcome(1.0, 0.95, 0.1)] == [1.0, 0.0, 0.5, 0.5]


def test_agreement_counts_pairs_that_the_judge_tells_apart() -> None:
    # pairs: (0,1) judge 3>1, other 5>2 agrees; (0,2) judge ties; (1,2) judge 1<3, other ties: half
    assert agreements([3, 1, 3], [5, 2, 2]) == (1.5, 2)


def test_bootstrap_brackets_the_mean_of_set_means() -> None:
    sets = [[1.0] * 30 + [0.0] * 10, [1.0] * 20 + [0.0] * 20]
    low, high = bootstrap_mean(sets, seed=0)
    assert low < 0.625 < high
    # normal approximation: sqrt((.75*.25/40 + .5*.5/40) / 4) = 0.0523
    assert high - low == pytest.approx(2 * 1.96 * 0.0523, rel=0.1)
    assert bootstrap_mean(sets, seed=0) == (low, high)


def test_bootstrap_of_sets_with_a_single_prompt() -> None:
    assert bootstrap_mean([[0.5]], seed=0) == (0.5, 0.5)
    low, high = bootstrap_mean([[1.0], [0.0, 1.0] * 20], seed=0)
    assert 0.5 < low < 0.75 < high < 1.0  # the single prompt adds its half, and no spread
