"""Objectives: what is encoded from a row, and the loss. A new one is a file here and a line in `OBJECTIVES`."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, Protocol

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from tsalign.config import Section
from tsalign.errors import TsalignError
from tsalign.training.examples import Batch, Example
from tsalign.training.objectives.dpo import DPO
from tsalign.training.objectives.pad import PPD, VPD, ReleasedPAD
from tsalign.training.objectives.ranking import Logistic, MarginRanking
from tsalign.training.objectives.sft import SFT
from tsalign.training.objectives.simpo import SimPO

Row = dict[str, Any]


class Objective(Protocol):
    """A loss over examples, as sums, so that the loop can normalise over a whole optimiser step."""

    @property
    def model(self) -> Literal["causal", "reward"]:
        """Which head the model needs."""

    @property
    def per(self) -> Literal["example", "token"]:
        """What the loss is a mean over."""

    def encode(self, row: Row, tokenizer: PreTrainedTokenizerBase) -> Example | None:
        """A row as an example; None where the row teaches nothing."""

    def loss(self, model: Any, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The weighted sum over the batch, float32 scalar, and sums per example to report."""


OBJECTIVES: dict[str, Callable[[Any], Objective]] = {
    "sft": SFT,
    "dpo": DPO,
    "margin_ranking": MarginRanking,
    "logistic": Logistic,
    "pad_ppd": PPD,
    "pad_vpd": VPD,
    "pad_released": ReleasedPAD,
    "simpo": SimPO,
}


def build(name: str, config: Section) -> Objective:
    """The objective of a registered name or `module:Class`, made from its training config.

    Raises:
        TsalignError: no such objective.
    """
    if ":" in name:
        module, _, attribute = name.partition(":")
        return getattr(import_module(module), attribute)(config)
    if name not in OBJECTIVES:
        raise TsalignError(f"objective {name!r}: expected one of {', '.join(OBJECTIVES)}, or module:Class")
    return OBJECTIVES[name](config)
