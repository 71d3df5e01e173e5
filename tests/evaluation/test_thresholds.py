"""When a win rate is doubted: healthy numbers say nothing; degenerate text says what it is, in one line."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tsalign.evaluation.quality import Quality
from tsalign.evaluation.thresholds import warnings

BASE = Quality(length=200.0, cut=0.03, repetition=0.01, distinct={"1": 0.09, "2": 0.4, "3": 0.7}, log_prob=-0.9)
DEGENERATE = "the win rate may come from degenerate text; look at the samples."


@pytest.mark.parametrize(
    "policy",
    [
        {},
        {"log_prob": -0.3},  # surer of itself
        {"log_prob": -1.6, "length": 420.0, "distinct": {"1": 0.05, "2": 0.3, "3": 0.6}},  # longer, as after DPO
        {"repetition": 0.08, "cut": 0.3},
        {"log_prob": None},
    ],
)
def test_healthy_answers_are_not_doubted(policy: dict[str, Any]) -> None:
    assert warnings(BASE, replace(BASE, **policy), tied=0.45) == ()


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (
            {"log_prob": -7.1},
            "are very unlikely under the initial policy (log-prob -7.1 per token, its own: -0.9): " + DEGENERATE,
        ),
        ({"repetition": 0.92}, "repeat themselves (92.0 % of 4-grams, before: 1.0 %): " + DEGENERATE),
        (
            {"distinct": {"1": 0.001, "2": 0.002, "3": 0.002}},
            "are much alike (distinct-3 0.002, before: 0.700): " + DEGENERATE,
        ),
        (
            {"cut": 0.61},
            "are cut at max_tokens (61.0 % of them, before: 3.0 %): the judge saw them unfinished; raise max_tokens.",
        ),
        (
            {"log_prob": -7.1, "repetition": 0.5, "cut": 1.0},
            "are very unlikely under the initial policy (log-prob -7.1 per token, its own: -0.9), repeat themselves "
            "(50.0 % of 4-grams, before: 1.0 %) and are cut at max_tokens (100.0 % of them, before: 3.0 %): "
            + DEGENERATE,
        ),
    ],
)
def test_degenerate_answers_make_one_line(policy: dict[str, Any], said: str) -> None:
    assert warnings(BASE, replace(BASE, **policy), tied=0.1) == (f"the policy's answers {said}",)


def test_a_judge_that_ties_most_answers_is_told_apart() -> None:
    assert warnings(BASE, BASE, tied=0.6) == (
        "the judge ties 60.0 % of the answers: the win rate rests on the others.",
    )


def test_answers_of_one_word_have_no_pairs_to_compare() -> None:
    short = Quality(length=1.0, cut=0.0, repetition=0.0, distinct={"1": 0.2, "2": None, "3": None})
    assert warnings(short, short, tied=0.5) == ()
    (said,) = warnings(short, replace(short, distinct={"1": 0.01, "2": None, "3": None}), tied=0.5)
    assert "are much alike (distinct-1 0.010, before: 0.200)" in said
