"""Batches by tokens: every sequence in one batch, none over its budget, similar lengths together."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tsalign.data.batching import by_tokens

ITEMS = st.lists(st.tuples(st.integers(1, 60), st.integers(1, 4)), max_size=30)


@given(ITEMS, st.integers(1, 200))
def test_batches_hold_everything_within_the_budget(items: list[tuple[int, int]], budget: int) -> None:
    lengths, width = [length for length, _ in items], [sequences for _, sequences in items]
    batches = by_tokens(lengths, budget, width)
    assert sorted(index for batch in batches for index in batch) == list(range(len(items)))
    for batch in batches:
        padded = max(lengths[i] for i in batch) * sum(width[i] for i in batch)
        assert padded <= budget or len(batch) == 1, "only an item that is too large by itself goes beyond"


@given(ITEMS, st.integers(1, 200))
def test_longest_first_so_that_neighbours_are_alike(items: list[tuple[int, int]], budget: int) -> None:
    lengths = [length for length, _ in items]
    order = [lengths[index] for batch in by_tokens(lengths, budget) for index in batch]
    assert order == sorted(lengths, reverse=True)


def test_batches_by_hand() -> None:
    assert by_tokens([], 10) == []
    assert by_tokens([3, 9, 3, 4], 9) == [[1], [3, 0], [2]]
    assert by_tokens([5, 5], 10, [2, 1]) == [[0], [1]]
    assert by_tokens([50], 10) == [[0]]
