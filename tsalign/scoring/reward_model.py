"""Scores of a reward model: a sequence classifier with one label. Used by student, teacher service and judge."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from tsalign.common.progress import Advance, out_of, unseen
from tsalign.data.batching import by_tokens
from tsalign.data.chat import encode_pair
from tsalign.data.checks import check_model
from tsalign.data.loading import load_for_inference
from tsalign.data.tensors import pad, padding_id, rewards
from tsalign.runs.artifacts import Model
from tsalign.runs.plan import Plan
from tsalign.scoring import FindModel, Item, LoadedScorer, Scorer, local_model


@dataclass(frozen=True)
class RewardModel(Scorer):
    """Scores by the classifier's one logit.

    Attributes:
        batch_tokens: padded tokens in one forward pass.
    """

    model: Model
    batch_tokens: int = 32768

    @property
    def who(self) -> str:
        """The model's role."""
        return self.model.role

    def check(self, plan: Plan) -> None:
        """That it is a whole reward model."""
        check_model(plan, self.model, "reward")

    def load(self) -> Rewards:
        """A function from items to float32 scores."""
        return Rewards(self)


class Rewards(LoadedScorer):
    """Holds the model; counts sequences as `calls`, and their tokens."""

    def __init__(self, scorer: RewardModel) -> None:
        super().__init__()
        self.model, self.tokenizer = load_for_inference(scorer.model, "reward")
        self.padding, self.batch_tokens = padding_id(self.tokenizer), scorer.batch_tokens

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item."""
        pairs = (encode_pair(self.tokenizer, item.prompt, item.completion) for item in items)
        sequences = [prompt + response for prompt, response in pairs]
        self.counts.update(calls=len(sequences), tokens=sum(map(len, sequences)))
        scores = score_sequences(
            self.model, sequences, self.padding, self.batch_tokens, out_of(len(sequences), self.report)
        )
        return list(scores)


@torch.inference_mode()
def score_sequences(
    model: torch.nn.Module, sequences: Sequence[list[int]], padding: int, batch_tokens: int, done: Advance = unseen
) -> list[float]:
    """One score a token sequence, in order; batched by length. `done` hears how many more have one."""
    device = next(model.parameters()).device
    scores = [0.0] * len(sequences)
    for batch in by_tokens([len(sequence) for sequence in sequences], batch_tokens):
        values = rewards(model, pad([sequences[i] for i in batch], padding, device))
        for index, value in zip(batch, values.tolist()):
            scores[index] = value
        done(len(batch))
    return scores


def by_name(name: str, find_model: FindModel) -> RewardModel:
    """What `reward_model:<model>` names."""
    return RewardModel(local_model(find_model, name, "judge"))
