"""Batches by token budget, steps and learning rates."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tsalign.config import SFTTrainConfig
from tsalign.data.batching import by_tokens
from tsalign.training.schedule import learning_rate, micro_batches, step_indices, total_steps

LENGTHS = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(LENGTHS, st.integers(1, 300))
def test_token_batches_hold_every_item_once_within_budget(lengths: list[int], budget: int) -> None:
    batches = by_tokens(lengths, budget)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or len(batch) * max(lengths[i] for i in batch) <= budget


@given(LENGTHS, st.integers(20, 300), st.integers(1, 4))
def test_micro_batches_are_equal_in_number_and_complete(lengths: list[int], budget: int, workers: int) -> None:
    indices = [100 + i for i in range(len(lengths))]
    shares = micro_batches(indices, lengths, [2] * len(lengths), budget, workers)
    assert len({len(share) for share in shares}) == 1
    assert len(shares) == workers
    real = [i for share in shares for micro in share for i, w in zip(micro.indices, micro.weights) if w]
    assert sorted(real) == indices
    for micro in (micro for share in shares for micro in share):
        padded = 2 * len(micro.indices) * max(lengths[i - 100] for i in micro.indices)
        assert len(micro.indices) == 1 or padded <= budget


@given(st.integers(1, 50), st.integers(1, 20), st.sampled_from([0.5, 1.0, 2.0, 2.5]), st.data())
def test_resuming_gives_the_same_steps(examples: int, batch: int, epochs: float, data: st.DataObject) -> None:
    config = SFTTrainConfig(batch_size=batch, epochs=epochs)
    whole = list(step_indices(examples, config, seed=3))
    assert len(whole) == total_steps(examples, config)
    first = data.draw(st.integers(0, len(whole)))
    assert list(step_indices(examples, config, seed=3, first=first)) == whole[first:]


def test_an_epoch_sees_every_example_once() -> None:
    steps = list(step_indices(10, SFTTrainConfig(batch_size=4, epochs=2), seed=0))
    assert [len(step) for step in steps] == [4, 4, 2, 4, 4, 2]
    first, second = [i for step in steps[:3] for i in step], [i for step in steps[3:] for i in step]
    assert sorted(first) == sorted(second) == list(range(10))
    assert first != second


@pytest.mark.parametrize(("schedule", "last"), [("cosine", 0.0245), ("linear", 0.1), ("constant", 1.0)])
def test_learning_rate_warms_up_and_decays(schedule: str, last: float) -> None:
    config = SFTTrainConfig(learning_rate=1.0, warmup=0.5, schedule=schedule)
    rates = [learning_rate(step, 20, config) for step in range(20)]
    assert rates[:10] == pytest.approx([0.1 * i for i in range(1, 11)])
    assert rates[10] == 1.0
    assert rates[-1] == pytest.approx(last, abs=1e-3)
