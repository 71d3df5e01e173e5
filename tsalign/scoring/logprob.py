"""Log-probability of a completion under a causal LM: the reference of DPO, and a teacher's own preference."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from tsalign.common.progress import out_of
from tsalign.config import DPOTrainConfig, EngineConfig, JudgingConfig
from tsalign.data.chat import sampled_or_encoded
from tsalign.engines import HF, check_engine, open_logprob_engine
from tsalign.runs.artifacts import Model
from tsalign.runs.plan import Amount, Plan, times
from tsalign.scoring import FindModel, Item, LoadedScorer, Scorer, local_model, without_templates


@dataclass(frozen=True)
class LogProb(Scorer):
    """Sum or mean of the response tokens' log-probs, in float32; None where the engine cannot take the sequence.

    Attributes:
        sampled_tokens: score the ids that were sampled, where the item has them; only right when the model
            shares its tokenizer with the writer. Otherwise the text is encoded anew.
        inference: which engine, and its limits.
    """

    model: Model
    reduce: Literal["sum", "mean"] = "sum"
    sampled_tokens: bool = True
    inference: EngineConfig = HF

    @property
    def who(self) -> str:
        """The model's role."""
        return self.model.role

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """The log-probs of every completion."""
        return {"log-probs": times(rows, completions)}

    def check(self, plan: Plan) -> None:
        """That the model and its engine are there."""
        check_engine(plan, self.model, self.inference)

    def configured(self, judging: JudgingConfig) -> LogProb:
        """Loaded as the config says."""
        return replace(self, inference=without_templates(judging))

    def load(self) -> LogProbs:
        """A function from items to log-probs."""
        return LogProbs(self)


class LogProbs(LoadedScorer):
    """Holds the model; counts sequences as `calls`, and the tokens of prompts and completions."""

    def __init__(self, scorer: LogProb) -> None:
        super().__init__()
        self.scorer = scorer
        self.engine = open_logprob_engine(scorer.model, scorer.inference)
        self.counts = self.engine.counts

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One log-prob an item."""
        pairs = [self._encoded(item) for item in items]
        found = self.engine.logprobs(pairs, done=out_of(len(pairs), self.report))
        beyond = f"the sequence has more tokens than max_model_len {self.scorer.inference.max_model_len} leaves"
        self.reasons = {index: beyond for index, logps in enumerate(found) if logps is None}
        return [self._reduced(logps) for logps in found]

    def _encoded(self, item: Item) -> tuple[list[int], list[int]]:
        known = (item.prompt_ids, item.token_ids) if self.scorer.sampled_tokens else (None, None)
        return sampled_or_encoded(self.engine.tokenizer, item.prompt, item.completion, *known, item.cut)

    def _reduced(self, logps: list[float] | None) -> float | None:
        if logps is None:
            return None
        return sum(logps) / (len(logps) if self.scorer.reduce == "mean" else 1)


def reference_scores(model: Model, tune: DPOTrainConfig, written: EngineConfig) -> dict[str, Scorer]:
    """What adds `score.reference`, DPO's summed log-probs, for a scoring stage.

    Args:
        written: how the completions were written; the reference has the same limits, by `tune.reference_engine`.
    """
    return {"reference": LogProb(model, inference=written.engine_keys(engine=tune.reference_engine))}


def by_name(name: str, find_model: FindModel) -> LogProb:
    """What `logprob:<model>` names: the mean log-prob of the text."""
    return LogProb(local_model(find_model, name, "judge"), "mean", sampled_tokens=False)
