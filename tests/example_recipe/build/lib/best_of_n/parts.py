"""One part of each other kind that a package can add: a scorer, an objective and an engine."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from tsalign.config import EngineConfig
from tsalign.data.chat import encode_pair
from tsalign.engines import Completion, Request
from tsalign.runs.artifacts import Model
from tsalign.scoring import FindModel, Item, LoadedScorer, Scorer
from tsalign.training.examples import Example
from tsalign.training.objectives.sft import SFT


@dataclass(frozen=True)
class Length(Scorer):
    """The nearer a completion is to a number of characters, the better."""

    characters: int

    @property
    def who(self) -> str:
        return ""

    def load(self) -> LoadedScorer:
        return LoadedLength(self.characters)


class LoadedLength(LoadedScorer):
    """The function of `Length`."""

    def __init__(self, characters: int) -> None:
        super().__init__()
        self.characters = characters

    def __call__(self, items: list[Item]) -> list[float | None]:
        return [-float(abs(len(item.completion) - self.characters)) for item in items]


def length_by_name(name: str, find_model: FindModel) -> Length:
    """What `length:<characters>` names."""
    return Length(int(name))


class FirstToken(SFT):
    """SFT on the first token of the completion only."""

    def encode(self, row: dict[str, Any], tokenizer: Any) -> Example:
        prompt, response = encode_pair(tokenizer, row["prompt"], row["completion"])
        return Example([prompt + response[:1]], [1], [0.0])


class Parrot:
    """An engine that says what it was told."""

    def __init__(self, writer: Model, config: EngineConfig, tensor_parallel: int) -> None:
        self.counts: Counter[str] = Counter()

    def generate(self, requests: list[Request]) -> list[Completion]:
        return [Completion(request.prompt[-1]["content"], [], "stop") for request in requests]
