"""Scorers: what turns (prompt, completion) into a number. A new one is a file here and a line in `SCORERS`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from tsalign.config import ModelConfig
from tsalign.runs.artifacts import model_from
from tsalign.scoring.function import PythonFunction
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.reward_model import RewardModel


class Item(NamedTuple):
    """A completion to score. Token ids are those of the model that wrote it, where known."""

    prompt: list[dict[str, str]]
    completion: str
    prompt_ids: list[int] | None = None
    token_ids: list[int] | None = None


class Scorer(Protocol):
    """Plain data that travels to an actor and is loaded there; its fields make its fingerprint."""

    def load(self) -> Callable[[list[Item]], list[float | None]]:
        """The function that scores a batch, in order; None where an item could not be scored."""


SCORERS: dict[str, Callable[[str], Scorer]] = {
    "reward": lambda model: RewardModel(model_from(ModelConfig(model=model), "reward")),
    "logprob": lambda model: LogProb(model_from(ModelConfig(model=model), "logprob"), "mean", sampled_tokens=False),
    "function": PythonFunction,
}


def named(name: str) -> Scorer:
    """The scorer that a config names: `reward:<model>`, `logprob:<model>`, or `module:function`."""
    kind, _, rest = name.partition(":")
    return SCORERS[kind](rest) if kind in SCORERS else PythonFunction(name)


def items(row: dict[str, Any]) -> list[Item]:
    """The completions of a candidate set, or chosen and rejected of a preference, in that order."""
    if "completions" in row:
        return [Item(row["prompt"], c["text"], row["prompt_ids"], c["token_ids"]) for c in row["completions"]]
    return [
        Item(row["prompt"], row[side][-1]["content"], row.get("prompt_ids"), row.get(f"{side}_ids"))
        for side in ("chosen", "rejected")
    ]
