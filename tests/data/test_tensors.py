"""Padding and log-probs by hand: nothing depends on what else is in the batch."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoModelForCausalLM, PreTrainedModel

from tsalign.data.tensors import pad, padding_id, response_logps, response_mask
from tsalign.runs.artifacts import Model

SEQUENCES = st.lists(st.lists(st.integers(1, 99), min_size=1, max_size=7), min_size=1, max_size=5)


@given(SEQUENCES)
def test_padding_is_on_the_left_and_masked(sequences: list[list[int]]) -> None:
    padded = pad(sequences, 0)
    longest = max(map(len, sequences))
    assert padded.input_ids.shape == padded.attention_mask.shape == padded.position_ids.shape
    assert padded.input_ids.shape == (len(sequences), longest)
    for row, sequence in enumerate(sequences):
        start = longest - len(sequence)
        assert padded.input_ids[row, start:].tolist() == sequence
        assert padded.attention_mask[row].tolist() == [0] * start + [1] * len(sequence)
        assert padded.position_ids[row, start:].tolist() == list(range(len(sequence)))
        assert padded.input_ids[row, :start].tolist() == [0] * start


@pytest.mark.parametrize(
    ("pad_token", "end_token", "expected"),
    [(5, 2, 5), (2, 2, 0), (None, 2, 0), (None, 0, 1), (0, 0, 1), (0, 2, 0)],
)
def test_the_padding_never_ends_a_sequence(pad_token: int | None, end_token: int, expected: int) -> None:
    tokenizer = SimpleNamespace(pad_token_id=pad_token, eos_token_id=end_token)
    found = padding_id(tokenizer)  # type: ignore[arg-type]
    assert found == expected
    assert found != end_token


def test_the_mask_is_right_aligned() -> None:
    assert response_mask(torch.tensor([1, 3, 2]), 3).tolist() == [[0, 0, 1], [1, 1, 1], [0, 1, 1]]


@pytest.fixture(scope="module")
def policy(models: dict[str, Model]) -> PreTrainedModel:
    return AutoModelForCausalLM.from_pretrained(models["policy"].path).eval()


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 5)), min_size=1, max_size=4), st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_log_probs_are_those_of_each_sequence_alone(
    policy: PreTrainedModel, shapes: list[tuple[int, int]], seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    sequences = [torch.randint(5, 60, (prompt + answer,), generator=generator).tolist() for prompt, answer in shapes]
    lengths = torch.tensor([answer for _, answer in shapes])
    with torch.no_grad():
        together = response_logps(policy, pad(sequences, 0), lengths)
        for row, (sequence, (_, answer)) in enumerate(zip(sequences, shapes)):
            logps = policy(torch.tensor([sequence])).logits[0].double().log_softmax(-1)
            expected = [logps[i - 1, sequence[i]].item() for i in range(len(sequence) - answer, len(sequence))]
            assert together[row, -answer:].tolist() == pytest.approx(expected, abs=1e-4)
            assert together[row, :-answer].abs().sum() == 0
