"""Scorers: what turns (prompt, completion) into a number. A new one is a file here and a line in `SCORERS`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

from tsalign.common import registry
from tsalign.common.errors import TsalignError
from tsalign.common.progress import Advance, unseen
from tsalign.config import EndpointConfig, EngineConfig, JudgingConfig, ModelConfig, Placement, ResourceConfig
from tsalign.data.pairs import was_cut
from tsalign.engines import Failed
from tsalign.runs.artifacts import Endpoint, Model, writer_from
from tsalign.runs.plan import Amount, Plan, times

# A name in a config `<scorer>:<rest>` -> what makes the scorer from the rest and a function that finds models.
SCORERS = {
    "reward_model": "tsalign.scoring.reward_model:by_name",
    "logprob": "tsalign.scoring.logprob:by_name",
    "judge": "tsalign.scoring.judge:pair_by_name",
    "judge_axes": "tsalign.scoring.judge:axes_by_name",
    "judge_axes_pair": "tsalign.scoring.judge:axes_pair_by_name",
    "option_probability": "tsalign.recipes.pad.option_probability:by_name",
    "icl_accuracy": "tsalign.recipes.arte.icl_accuracy:by_name",
}
FindModel = Callable[[ModelConfig | EndpointConfig, str], Model | Endpoint]


class Item(NamedTuple):
    """A completion to score. Token ids are those of the model that wrote it, where known.

    Attributes:
        group: items of one call with the same number compete for one prompt; only comparative scorers look at it.
        row: what the item comes from, for scorers that need more than its text.
        cut: whether the completion ended at `max_tokens`.
    """

    prompt: list[dict[str, str]]
    completion: str
    prompt_ids: list[int] | None = None
    token_ids: list[int] | None = None
    group: int = 0
    row: Mapping[str, Any] = MappingProxyType({})
    cut: bool = False


class LoadedScorer(ABC):
    """A scorer in its actor, with what it needs in memory.

    Attributes:
        counts: sums since a stage last took them: `calls` (what was asked of the model), `tokens` (read and written),
            and others of the scorer's own.
        reasons: why items of the last call have no score, by index.
        unanswered: indices of those of them about which no answer came at all; asking later may help.
        stop: why no more can be asked for now, after the last call: the service is down.
        report: called with the share of the items in work that got done since it was last called.
    """

    def __init__(self) -> None:
        self.report: Advance = unseen
        self.counts: Counter[str] = Counter()
        self.reasons: dict[int, str] = {}
        self.unanswered: set[int] = set()
        self.stop = ""

    @abstractmethod
    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item, in order; None where it could not be scored."""

    def scored(self, items: list[Item]) -> list[float | None]:
        """As a call, but None, with the reason, also for what is no finite number: no such score enters a row.

        Raises:
            TsalignError: not one score an item.
        """
        self.reasons, self.unanswered = {}, set()
        scores = self(items)
        if len(scores) != len(items):
            raise TsalignError(
                f"{type(self).__qualname__}: {len(scores)} scores for {len(items)} items; give one each."
            )
        made_up = {index: score for index, score in enumerate(scores) if score is not None and not math.isfinite(score)}
        self.reasons |= {index: f"the score is {score}, not a finite number" for index, score in made_up.items()}
        return [None if index in made_up else score for index, score in enumerate(scores)]

    def failure(self, what: str, first: int, scores: Sequence[float | None]) -> Failed:
        """What a row failed of whose items, from index `first` on, got these scores in the last call.

        Args:
            what: failed, as the message begins.
        """
        missing = first + scores.index(None)
        reason = f"{what}: {self.reasons[missing]}" if missing in self.reasons else what
        return Failed(reason, not self.unanswered.isdisjoint(range(first, first + len(scores))))


class Scorer(ABC):
    """Plain data that travels to an actor and is loaded there; its fields make its fingerprint."""

    @property
    @abstractmethod
    def who(self) -> str:
        """The role of the model that scores, for costs and plans; empty where no model is asked."""

    @property
    def comparative(self) -> bool:
        """Whether scores mean something only among the items of one group."""
        return False

    @property
    def remote(self) -> bool:
        """Whether it only asks a service, so that its actors need no GPU."""
        return False

    def configured(self, judging: JudgingConfig) -> Scorer:
        """The same scorer, its language model loaded and asked as a config says.

        Raises:
            TsalignError: keys are given that it has no use for.
        """
        if judging != JudgingConfig():
            raise TsalignError("evaluation.judging: this judge asks no language model; remove these keys.")
        return self

    @abstractmethod
    def load(self) -> LoadedScorer:
        """The function that scores lists of items."""

    def check(self, plan: Plan) -> None:  # noqa: B027  # many have nothing to check
        """Note in `plan` what keeps the scorer from being loaded, as far as that is cheap to know."""

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """What scoring this many rows needs, for a plan: unit -> amount at most."""
        return {"scores": times(rows, completions)}


def placement(scorers: Iterable[Scorer], resources: ResourceConfig) -> Placement:
    """The actors in which scorers score."""
    return resources.mine if all(scorer.remote for scorer in scorers) else resources.score


def scorer_from_name(name: str, find_model: FindModel = writer_from) -> Scorer:
    """The scorer that a config names: `reward_model:<model>`, `judge:<model>@<url>`, ..., or `module:function`.

    Args:
        find_model: what makes a model of its config and role.
    """
    kind, _, rest = name.partition(":")
    if kind in registry.names("scorers", SCORERS):
        made: Scorer = registry.find("scorers", SCORERS, kind, "scorer")(rest, find_model)
        return made
    from tsalign.scoring.function import PythonFunction

    return PythonFunction(name)


def without_templates(judging: JudgingConfig) -> EngineConfig:
    """How a judge is loaded that reads probabilities, and asks in no words.

    Raises:
        TsalignError: there are templates.
    """
    if judging.templates:
        raise TsalignError("evaluation.judging.templates: this judge is not asked in words; remove them.")
    return judging.engine_keys()


def local_model(find_model: FindModel, name: str, role: str) -> Model:
    """The model of a name, run by our own actors."""
    found = find_model(ModelConfig(model=name), role)
    assert isinstance(found, Model)
    return found


def items(row: dict[str, Any], group: int = 0) -> list[Item]:
    """The completions of a candidate set, or chosen and rejected of a preference, in that order."""
    if "completions" in row:
        return [
            Item(row["prompt"], c["text"], row.get("prompt_ids"), c["token_ids"], group, row, c["finish"] == "length")
            for c in row["completions"]
        ]
    prompt, ids = row["prompt"], row.get("prompt_ids")
    return [
        Item(prompt, row[side][-1]["content"], ids, row.get(f"{side}_ids"), group, row, was_cut(row, side))
        for side in ("chosen", "rejected")
    ]
