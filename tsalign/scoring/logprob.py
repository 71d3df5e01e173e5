"""Log-probability of a completion under a causal LM: the reference of DPO, and a teacher's own preference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from tsalign.config import SamplingConfig
from tsalign.data.chat import encode_pair
from tsalign.engines import HF, open_white_box
from tsalign.runs.artifacts import Model

if TYPE_CHECKING:
    from tsalign.scoring import Item


@dataclass(frozen=True)
class LogProb:
    """Sum or mean of the response tokens' log-probs, in float32; None where the engine cannot take the sequence.

    Attributes:
        sampled_tokens: score the ids that were sampled, where the item has them; only right when the model
            shares its tokenizer with the writer. Otherwise the text is encoded anew.
        inference: which engine, and its limits.
    """

    model: Model
    reduce: Literal["sum", "mean"] = "sum"
    sampled_tokens: bool = True
    inference: SamplingConfig = HF

    def load(self) -> Callable[[list[Item]], list[float | None]]:
        """A function from items to log-probs."""
        return LogProbs(self)


class LogProbs:
    """Holds the model.

    Attributes:
        counts: tokens read, prompts and completions together.
    """

    def __init__(self, scorer: LogProb) -> None:
        self.scorer = scorer
        self.engine = open_white_box(scorer.model, scorer.inference)
        self.counts: Counter[str] = Counter()

    def __call__(self, items: list[Item]) -> list[float | None]:
        pairs = [self._encoded(item) for item in items]
        self.counts["tokens"] += sum(len(prompt) + len(response) for prompt, response in pairs)
        return [self._reduced(logps) for logps in self.engine.logprobs(pairs)]

    def _encoded(self, item: Item) -> tuple[list[int], list[int]]:
        if self.scorer.sampled_tokens and item.token_ids and item.prompt_ids:
            return item.prompt_ids, item.token_ids
        return encode_pair(self.engine.tokenizer, item.prompt, item.completion)

    def _reduced(self, logps: list[float] | None) -> float | None:
        if logps is None:
            return None
        return sum(logps) / (len(logps) if self.scorer.reduce == "mean" else 1)
