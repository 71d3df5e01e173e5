"""Item response theory: planted parameters are found again, and extreme items stay finite."""

from __future__ import annotations

import torch

from tsalign.recipes.arte.irt import fit, most_discriminative


def planted(subjects: int, items: int, seed: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Answers, discriminations and difficulties of a world that the model describes exactly."""
    torch.manual_seed(seed)
    ability, difficulty = torch.randn(subjects), torch.randn(items)
    discrimination = torch.exp(0.5 * torch.randn(items))
    chance = torch.sigmoid(discrimination * (ability[:, None] - difficulty))
    return torch.rand(subjects, items) < chance, discrimination, difficulty


def correlation(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1])


def test_planted_parameters_are_recovered() -> None:
    correct, discrimination, difficulty = planted(2000, 40, seed=1)
    found = fit(correct)
    assert correlation(found.difficulty, difficulty) > 0.98
    assert correlation(found.discrimination, discrimination) > 0.93
    assert float((found.discrimination / discrimination).log().abs().median()) < 0.15


def test_the_top_items_are_the_planted_ones() -> None:
    torch.manual_seed(0)
    discrimination = torch.tensor([3.0, 0.2] * 10)
    chance = torch.sigmoid(discrimination * (torch.randn(400)[:, None] - 0.5 * torch.randn(20)))
    best, _ = most_discriminative(torch.rand(400, 20) < chance, keep=10)
    assert best == list(range(0, 20, 2))


def test_items_that_all_or_none_answer_stay_finite() -> None:
    correct = torch.tensor([[1, 0, 1], [1, 0, 0], [1, 0, 1], [1, 0, 0]])
    found = fit(correct)
    for values in found:
        assert torch.isfinite(values).all()
    assert float(found.difficulty[0]) < float(found.difficulty[2]) < float(found.difficulty[1])
