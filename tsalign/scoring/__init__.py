"""Scorers: what turns (prompt, completion) into a number. A new one is a file here and a line in `SCORERS`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

from tsalign.config import ModelConfig
from tsalign.runs.artifacts import model_from
from tsalign.scoring.function import PythonFunction
from tsalign.scoring.icl_accuracy import icl_accuracy_by_name
from tsalign.scoring.judge import judge_by
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.option_probability import OptionProbability
from tsalign.scoring.reward_model import RewardModel
from tsalign.templates import texts


class Item(NamedTuple):
    """A completion to score. Token ids are those of the model that wrote it, where known.

    Attributes:
        group: items of one call with the same number compete for one prompt; comparative scorers heed it.
        row: what the item comes from, for scorers that need more than its text.
    """

    prompt: list[dict[str, str]]
    completion: str
    prompt_ids: list[int] | None = None
    token_ids: list[int] | None = None
    group: int = 0
    row: Mapping[str, Any] = MappingProxyType({})


class Scorer(Protocol):
    """Plain data that travels to an actor and is loaded there; its fields make its fingerprint."""

    def load(self) -> Callable[[list[Item]], list[float | None]]:
        """The function that scores a batch, in order; None where an item could not be scored.

        It may keep `counts`, sums of what it did, which a stage reports and clears; and `reasons`, why items of its
        last call have no score, by index.
        """


SCORERS: dict[str, Callable[[str], Scorer]] = {
    "reward_model": lambda model: RewardModel(model_from(ModelConfig(model=model), "reward")),
    "logprob": lambda model: LogProb(model_from(ModelConfig(model=model), "logprob"), "mean", sampled_tokens=False),
    "option_probability": lambda model: OptionProbability(
        model_from(ModelConfig(model=model), "option_probability"), texts({})["pad_choice"]
    ),
    "icl_accuracy": icl_accuracy_by_name,
    "judge": judge_by("pair"),
    "judge_axes": judge_by("axes"),
    "judge_axes_pair": judge_by("axes_pair"),
    "function": PythonFunction,
}


def named(name: str) -> Scorer:
    """The scorer that a config names: `reward_model:<model>`, `judge:<model>@<url>`, ..., or `module:function`."""
    kind, _, rest = name.partition(":")
    return SCORERS[kind](rest) if kind in SCORERS else PythonFunction(name)


def why_none(scorer: Any, index: int) -> str:
    """Why a loaded scorer gave the item of that index no score in its last call, as far as it says."""
    reason = getattr(scorer, "reasons", {}).get(index)
    return f": {reason}" if reason else ""


def comparative(scorer: Scorer) -> bool:
    """Whether its scores mean something only among the items of one group."""
    return bool(getattr(scorer, "comparative", False))


def items(row: dict[str, Any], group: int = 0) -> list[Item]:
    """The completions of a candidate set, or chosen and rejected of a preference, in that order."""
    if "completions" in row:
        return [
            Item(row["prompt"], c["text"], row.get("prompt_ids"), c["token_ids"], group, row)
            for c in row["completions"]
        ]
    return [
        Item(row["prompt"], row[side][-1]["content"], row.get("prompt_ids"), row.get(f"{side}_ids"), group, row)
        for side in ("chosen", "rejected")
    ]
