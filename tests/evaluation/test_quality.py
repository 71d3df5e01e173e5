"""Statistics of answers by hand, and what holds of them for any tokens."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsalign.evaluation.quality import Answer, answers_of, distinct, ngrams, quality, repetition

TOKENS = st.lists(st.integers(0, 5), max_size=20)
ANSWERS = st.lists(TOKENS, min_size=1, max_size=6)


def units(*tokens: int) -> Any:
    return np.array(tokens, np.int64)


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ((), 0.0),
        ((7,), 0.0),
        ((7, 7, 7), 0.0),  # no 4-gram to repeat
        ((7, 7, 7, 7), 0.0),
        ((7,) * 16, 1 - 1 / 13),
        ((1, 2, 3, 1, 2, 3, 1, 2), 1 - 3 / 5),  # 1231 2312 3123 1231 2312
        (tuple(range(40)), 0.0),
    ],
)
def test_repetition(tokens: tuple[int, ...], expected: float) -> None:
    assert repetition(units(*tokens)) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ([(1,), (1,), (2,)], (2 / 3, None, None)),
        ([(1, 9), (1, 9), (2, 9)], (3 / 6, 2 / 3, None)),
        ([(1, 2, 3), (1, 2, 4), (5,)], (5 / 7, 3 / 4, 2 / 2)),
        ([(), ()], (None, None, None)),
    ],
)
def test_distinct(answers: list[tuple[int, ...]], expected: tuple[float | None, ...]) -> None:
    found = [units(*answer) for answer in answers]
    assert tuple(distinct(found, n) for n in (1, 2, 3)) == pytest.approx(expected)


@given(ANSWERS, st.integers(1, 4))
def test_distinct_is_that_of_the_n_grams_themselves(answers: list[list[int]], n: int) -> None:
    grams = [tuple(answer[i : i + n]) for answer in answers for i in range(len(answer) - n + 1)]
    found = distinct([units(*answer) for answer in answers], n)
    assert found == (len(set(grams)) / len(grams) if grams else None)
    assert distinct([units(*answer) for answer in answers * 2], n) == (found / 2 if found else None)


@given(TOKENS, st.integers(1, 4))
def test_repetition_grows_when_an_answer_is_said_twice(tokens: list[int], n: int) -> None:
    once, twice = repetition(units(*tokens), n), repetition(units(*tokens, *tokens), n)
    assert 0 <= once < 1
    if len(tokens) >= n:
        assert twice > 0
        assert twice >= once
    # What the tokens are called does not matter.
    assert once == repetition(units(*(1000 - token for token in tokens)), n)


@given(TOKENS, TOKENS)
def test_n_grams_have_the_same_hash_only_where_they_are_the_same(one: list[int], two: list[int]) -> None:
    hashes = [hashed for tokens in (one, two) for hashed in ngrams(units(*tokens), 2).tolist()]
    pairs = [pair for tokens in (one, two) for pair in pairwise(tokens)]
    assert [[a == b for b in hashes] for a in hashes] == [[a == b for b in pairs] for a in pairs]


def test_numbers_of_all_answers() -> None:
    found = quality(
        [Answer(units(1, 2, 3), False, -1.0), Answer(units(4), True, -3.0), Answer(units(1, 2), True, None)]
    )
    assert (found.length, found.cut, found.repetition, found.log_prob) == (2.0, pytest.approx(2 / 3), 0.0, -2.0)
    assert found.distinct == {"1": 4 / 6, "2": 2 / 3, "3": 1.0}
    assert quality([Answer(units(1), False, None)]).log_prob is None


def test_words_stand_in_for_tokens_that_an_endpoint_does_not_show() -> None:
    made = [
        {"text": "so it is so", "token_ids": [], "finish": "stop"},
        {"text": "", "token_ids": [], "finish": "length"},
    ]
    spoken, silent = answers_of(made, None, words=True)
    assert (len(spoken.units), len(set(spoken.units.tolist())), spoken.cut) == (4, 3, False)
    assert (len(silent.units), silent.cut, silent.log_prob) == (0, True, None)
    (sampled,) = answers_of([{"text": "a b", "token_ids": [5, 6, 2], "finish": "stop"}], [-0.5], words=False)
    assert (sampled.units.tolist(), sampled.log_prob) == ([5, 6, 2], -0.5)
