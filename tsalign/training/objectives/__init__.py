"""Objectives: what is encoded from a row, and the loss. A new one is a file here and a line in `OBJECTIVES`."""

from __future__ import annotations

from typing import Any, Literal, Protocol

from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from tsalign.common import registry
from tsalign.config import ConfigModel
from tsalign.training.examples import Batch, Example

Row = dict[str, Any]


class Objective(Protocol):
    """A loss over examples, as sums, so that the loop can normalise over a whole optimiser step."""

    @property
    def model(self) -> Literal["causal", "reward"]:
        """Which head the model needs."""

    @property
    def per(self) -> Literal["example", "token"]:
        """What the loss is a mean over."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Names of an example's sequences, such as chosen and rejected; empty where they are numbered."""

    @property
    def values(self) -> str:
        """What an example's values are, in words; empty where they mean nothing."""

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> Example | None:
        """A row as an example; None where the row teaches nothing."""

    def loss(self, model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum over the batch, float32 scalar, and sums per example to report.

        Where a loss compares, it reports the rewards of both sides.
        """


OBJECTIVES = {
    "sft": "tsalign.training.objectives.sft:SFT",
    "dpo": "tsalign.training.objectives.dpo:DPO",
    "simpo": "tsalign.training.objectives.simpo:SimPO",
    "margin_ranking": "tsalign.training.objectives.ranking:MarginRanking",
    "logistic": "tsalign.training.objectives.ranking:Logistic",
    "pad_ppd": "tsalign.recipes.pad.losses:PPD",
    "pad_vpd": "tsalign.recipes.pad.losses:VPD",
    "pad_released": "tsalign.recipes.pad.losses:ReleasedPAD",
}


def build(name: str, config: ConfigModel) -> Objective:
    """The objective of a registered name or `module:Class`, made from its training config.

    Raises:
        TsalignError: no such objective.
    """
    made: Objective = registry.find("objectives", OBJECTIVES, name, "objective")(config)
    return made
