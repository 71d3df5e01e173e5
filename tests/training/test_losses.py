"""Losses against values computed by hand, and their gradients."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tsalign.training.objectives.dpo import dpo_loss
from tsalign.training.objectives.ranking import logistic, margin_ranking, ordered_pairs


def test_dpo_is_ln2_where_policy_equals_reference() -> None:
    logps = torch.tensor([[-3.0, -7.5], [-100.0, -1.0]])
    loss, implicit = dpo_loss(logps, logps.clone(), beta=0.1)
    assert loss.tolist() == pytest.approx([math.log(2)] * 2, abs=1e-7)
    assert implicit.abs().max() == 0


def test_dpo_by_hand() -> None:
    # beta * ((-10 + 12) - (-11 + 10)) = 0.1 * 3 = 0.3; -log sigmoid(0.3) = log(1 + e^-0.3) = 0.554355
    loss, implicit = dpo_loss(torch.tensor([[-10.0, -11.0]]), torch.tensor([[-12.0, -10.0]]), beta=0.1)
    assert loss.item() == pytest.approx(0.5543552, abs=1e-6)
    assert implicit[0].tolist() == pytest.approx([0.2, -0.1])


def test_dpo_is_finite_far_out() -> None:
    loss, _ = dpo_loss(torch.tensor([[-5000.0, -1.0]]), torch.tensor([[-1.0, -5000.0]]), beta=1.0)
    assert loss.item() == pytest.approx(9998.0)


def test_margin_ranking_by_hand() -> None:
    assert margin_ranking(torch.tensor([0.3, 1.0, 2.0, -1.0]), 1.0).tolist() == pytest.approx([0.7, 0.0, 0.0, 2.0])


def test_logistic_by_hand() -> None:
    # log(1 + e^-(d - m)): d = 0, m = 0 -> ln 2; d = 2, m = 1 -> log(1 + e^-1) = 0.3132617
    assert logistic(torch.tensor([0.0]), 0.0).item() == pytest.approx(math.log(2))
    assert logistic(torch.tensor([2.0]), 1.0).item() == pytest.approx(0.3132617, abs=1e-6)


@pytest.mark.parametrize("loss", [margin_ranking, logistic])
def test_ranking_gradients(loss) -> None:
    difference = torch.tensor([0.3, 1.7, -0.4], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda d: loss(d, 1.0), difference)


def test_dpo_gradients() -> None:
    policy = torch.randn(4, 2, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(4, 2, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda p: dpo_loss(p, reference, 0.3)[0], policy)


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=12))
def test_ordered_pairs_are_all_within_group_and_ordered(items: list[tuple[int, int]]) -> None:
    group = torch.tensor([g for g, _ in items])
    values = torch.tensor([float(v) for _, v in items])
    better, worse = ordered_pairs(values, group)
    found = set(zip(better.tolist(), worse.tolist()))
    expected = {(i, j) for i, (gi, vi) in enumerate(items) for j, (gj, vj) in enumerate(items) if gi == gj and vi > vj}
    assert found == expected
