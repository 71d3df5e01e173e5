"""Losses against values computed by hand, and their gradients."""

import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from tsalign.common.errors import TsalignError
from tsalign.config import (
    CustomTrainConfig,
    DPOTrainConfig,
    LogisticTrainConfig,
    MarginRankingTrainConfig,
    SFTTrainConfig,
    SimPOTrainConfig,
    TrainConfig,
)
from tsalign.toy.objective import GroupReward
from tsalign.training import objectives
from tsalign.training.examples import Batch, Example, collate
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


class Unigrams(nn.Module):
    """A language model that gives tokens 0 to 3 the probabilities 1/2, 1/4, 1/8, 1/8 wherever they stand."""

    def forward(self, input_ids: Tensor, logits_to_keep: int, **_: Any) -> Any:
        logits = torch.tensor([0.5, 0.25, 0.125, 0.125]).log()
        return SimpleNamespace(logits=logits.expand(len(input_ids), logits_to_keep, 4))


class LastToken(nn.Module):
    """A reward model whose score is the number of the last token."""

    def forward(self, input_ids: Tensor, **_: Any) -> Any:
        hidden = torch.zeros(*input_ids.shape, 4)
        return SimpleNamespace(logits=input_ids[:, -1:].float(), hidden_states=[hidden])


def batch(*examples: Example, weights: list[float] | None = None) -> Batch:
    return collate(examples, weights or [1.0] * len(examples), 0, torch.device("cpu"))


def reported(objective: objectives.Objective, model: nn.Module, given: Batch) -> dict[str, float]:
    return {name: value.item() for name, value in objective.loss(model, given)[1].items()}


def test_dpo_reports_the_implicit_rewards_of_both_sides() -> None:
    # chosen 0 1: -ln 2 - 2 ln 2 = -3 ln 2, rejected 2: -3 ln 2; the reference says -4 ln 2 and -1 ln 2; beta 0.5:
    # 0.5 (-3 + 4) ln 2 and 0.5 (-3 + 1) ln 2. The second example is a filler.
    ln2 = math.log(2)
    example = Example([[3, 3, 0, 1], [3, 3, 2]], [2, 1], [-4 * ln2, -ln2])
    report = reported(
        objectives.build("dpo", DPOTrainConfig(reference="previous", beta=0.5)),
        Unigrams(),
        batch(example, Example([[1, 1], [1, 0]], [1, 1], [0.0, 0.0]), weights=[1.0, 0.0]),
    )
    assert report["chosen_reward"] == pytest.approx(0.5 * ln2)
    assert report["rejected_reward"] == pytest.approx(-ln2)
    assert report["margin"] == pytest.approx(1.5 * ln2)
    assert report["accuracy"] == 1.0
    assert report["chosen_logp"] == pytest.approx(-3 * ln2)
    assert report["rejected_logp"] == pytest.approx(-3 * ln2)


def test_simpo_reports_beta_times_the_mean_logprobs_of_both_sides() -> None:
    # means: -1.5 ln 2 for 0 1 and -3 ln 2 for 2
    report = reported(
        objectives.build("simpo", SimPOTrainConfig(beta=2.0)),
        Unigrams(),
        batch(Example([[3, 3, 0, 1], [3, 3, 2]], [2, 1], [0.0, 0.0])),
    )
    assert report["chosen_reward"] == pytest.approx(-3 * math.log(2))
    assert report["rejected_reward"] == pytest.approx(-6 * math.log(2))
    assert report["margin"] == pytest.approx(1.5 * math.log(2))


@pytest.mark.parametrize("config", [MarginRankingTrainConfig(), LogisticTrainConfig()], ids=["margin", "logistic"])
def test_ranking_losses_report_the_scores_of_both_sides(config: TrainConfig) -> None:
    # targets 2, 1, 0 score 3, 0, 1: pairs (3, 0), (3, 1), (0, 1); a second example: (2, 1)
    report = reported(
        objectives.build(config.objective, config),
        LastToken(),
        batch(Example([[9, 3], [9, 0], [9, 1]], [1, 1, 1], [2, 1, 0]), Example([[9, 1], [9, 2]], [1, 1], [0, 1])),
    )
    assert report["better_score"] == pytest.approx(6 / 3 + 2)
    assert report["worse_score"] == pytest.approx(2 / 3 + 1)
    assert report["margin"] == pytest.approx(4 / 3 + 1)
    assert report["accuracy"] == pytest.approx(2 / 3 + 1)


def test_the_toy_teacher_reports_the_scores_of_both_sides() -> None:
    # hidden states of zero say 1/2 of every token: a token loss of ln 2
    example = Example([[9, 3], [9, 1]], [1, 1], [1.0, 1.0, 0.0, 0.0])
    report = reported(
        GroupReward(CustomTrainConfig(objective="tsalign.toy.objective:GroupReward")), LastToken(), batch(example)
    )
    assert report == pytest.approx(
        {"accuracy": 1.0, "better_score": 3.0, "worse_score": 1.0, "token_loss": math.log(2)}
    )


class Own:
    """An objective of somebody else's: nothing but what the loop asks for."""

    def __init__(self, config: Any) -> None:
        self.config = config


def test_objectives_by_name_by_entry_point_and_by_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = SFTTrainConfig()
    assert type(objectives.build("sft", config)).__name__ == "SFT"
    made = objectives.build(f"{__name__}:Own", config)
    assert isinstance(made, Own)
    assert made.config is config
    package = tmp_path / "own-1.0.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: own\nVersion: 1.0\n")
    (package / "entry_points.txt").write_text(f"[tsalign.objectives]\nown = {__name__}:Own\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert isinstance(objectives.build("own", config), Own)
    with pytest.raises(TsalignError, match=r"objective: 'none' is not one of sft, dpo, .*own"):
        objectives.build("none", config)
