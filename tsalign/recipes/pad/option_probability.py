"""How often a model picks a completion when it is shown beside each of its rivals: PAD's calibrated preference.

Every two completions of a group make one multiple-choice question; the model is not asked to write, only for the
probabilities of its next token.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path

from tsalign.common.progress import out_of
from tsalign.config import EngineConfig, JudgingConfig
from tsalign.data.chat import encode_prompt
from tsalign.engines import HF, check_engine, open_logprob_engine
from tsalign.prompts.templates import render, texts
from tsalign.runs.artifacts import Model
from tsalign.runs.plan import Amount, Plan, times
from tsalign.scoring import FindModel, Item, LoadedScorer, Scorer, local_model, without_templates

TOP = 20  # next tokens looked at
SHORTER_THAN = 3  # characters of a token that still names an option: "A", "A)", "(A"
EPSILON = 1e-8


def option_probability(next_token: Mapping[str, float], option: str) -> float:
    """Probability of the tokens that name an option: those that contain its letter and are shorter than 3 characters.

    Args:
        next_token: log-probs of the likeliest next tokens, by text. They are not renormalised.
    """
    named = [logp for text, logp in next_token.items() if option in text and len(text.strip()) < SHORTER_THAN]
    return sum(map(math.exp, named))


def log_selection(wins: float, rivals: int) -> float:
    """log((1e-8 + the summed probability of being picked) / rivals)."""
    return math.log((EPSILON + wins) / rivals)


@dataclass(frozen=True)
class OptionProbability(Scorer):
    """Scores each completion with the log of its mean probability of being picked over a rival of its group.

    Attributes:
        template: text of the question, given `prompt` (messages), `a` and `b`.
        swap_options: ask in both orders and average; else the earlier completion is always A (PAD's code).
        max_option_tokens: tokens of this model to which a completion is truncated.
        inference: which engine, and its limits.
    """

    model: Model
    template: str
    swap_options: bool = True
    max_option_tokens: int = 2500
    inference: EngineConfig = HF

    @property
    def who(self) -> str:
        """The model's role."""
        return self.model.role

    @property
    def comparative(self) -> bool:
        """It compares the completions of a group."""
        return True

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """A question about every two completions of a row, in one order or both."""
        pairs = None if completions is None else completions * (completions - 1) / 2
        return {"questions": times(rows, pairs, 2 if self.swap_options else 1)}

    def check(self, plan: Plan) -> None:
        """That the model and its engine are there."""
        check_engine(plan, self.model, self.inference)

    def configured(self, judging: JudgingConfig) -> OptionProbability:
        """Loaded as the config says."""
        return replace(self, inference=without_templates(judging))

    def load(self) -> Questions:
        """A function from items to scores; None for one without a rival, or whose question is too long."""
        return Questions(self)


class Questions(LoadedScorer):
    """Asks about all groups of a call at once.

    Counts questions as `calls`, their tokens, and as `unclear_mass` the probability that went to neither option.
    """

    def __init__(self, scorer: OptionProbability) -> None:
        super().__init__()
        self.scorer = scorer
        self.engine = open_logprob_engine(scorer.model, scorer.inference)
        self.counts = self.engine.counts

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item; None without a rival, or where the question is too long."""
        groups: dict[int, list[int]] = defaultdict(list)
        for index, item in enumerate(items):
            groups[item.group].append(index)
        asked = [pair for members in groups.values() for pair in combinations(members, 2)]
        if self.scorer.swap_options:
            asked += [(b, a) for a, b in asked]
        options = [self._shortened(item.completion) for item in items]
        questions = [self._question(items[a], options[a], options[b]) for a, b in asked]
        wins, lost = [0.0] * len(items), set()
        found = self.engine.next_token_logprobs(questions, TOP, done=out_of(len(questions), self.report))
        for (a, b), shown in zip(asked, found):
            if shown is None:
                lost |= {a, b}
                continue
            first, second = (option_probability(shown, option) for option in "AB")
            wins[a] += first
            wins[b] += second
            self.counts["unclear_mass"] += 1 - first - second  # type: ignore[assignment]
        orders = 2 if self.scorer.swap_options else 1
        rivals = [len(groups[item.group]) - 1 for item in items]
        return [
            None if index in lost or not rivals[index] else log_selection(wins[index] / orders, rivals[index])
            for index in range(len(items))
        ]

    def _question(self, item: Item, a: str, b: str) -> list[int]:
        return encode_prompt(self.engine.tokenizer, render(self.scorer.template, prompt=item.prompt, a=a, b=b))

    def _shortened(self, text: str) -> str:
        ids = self.engine.tokenizer(text, add_special_tokens=False).input_ids
        limit = self.scorer.max_option_tokens
        return text if len(ids) <= limit else str(self.engine.tokenizer.decode(ids[:limit]))


def by_name(name: str, find_model: FindModel) -> OptionProbability:
    """What `option_probability:<model>` names."""
    return OptionProbability(local_model(find_model, name, "judge"), texts(Path(__file__).parent)["pad_choice"])
