"""A model that writes as judge: asked which of two completions is better, or how good one is on three axes.

The axes are CITING's (arXiv 2310.02527). Asking about every pair in both orders, and averaging, is ours: a judge that
only prefers a place then says nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import permutations
from statistics import fmean
from typing import Literal

from tsalign.common.progress import out_of
from tsalign.config import EndpointConfig, JudgingConfig, ModelConfig, SamplingConfig, validate
from tsalign.data.sources import Message
from tsalign.engines import Completion, Failed, check_engine, open_engine, request_from
from tsalign.prompts import templates
from tsalign.prompts.parsers import Unparsed, axes, choice, winners
from tsalign.runs.artifacts import Endpoint, Model
from tsalign.runs.plan import Amount, Plan, times
from tsalign.scoring import FindModel, Item, LoadedScorer, Scorer

Mode = Literal["pair", "axes", "axes_pair"]
AXES = ("articulate", "in-depth", "comprehensive")
PREFERENCE = "preference"
RAW_CHARACTERS = 500
SHARE = {"A": 1.0, "B": 0.0, "Tie": 0.5, "None": 0.5}  # what the first of two gets
SHORT = SamplingConfig(engine="hf", temperature=0.0, max_tokens=64)


@dataclass(frozen=True)
class LLMJudge(Scorer):
    """Scores by what a model writes about completions; strictly parsed, None where that fails.

    Attributes:
        template: text of the question, given `prompt` (messages) and `completion`, or `a` and `b` for pairs.
        mode: `pair`: which of two is better; the score is the mean share of wins over the others of the group, ties
            half. `axes_pair`: the same on each of three axes; the score is their mean. `axes`: one completion alone,
            1 to 10 on each axis; the score is their mean.
        inference: limits of an answer, and which engine where the model is local.
    """

    writer: Model | Endpoint
    template: str
    mode: Mode = "pair"
    inference: SamplingConfig = SHORT

    @property
    def comparative(self) -> bool:
        """Whether it compares the completions of a group."""
        return self.mode != "axes"

    @property
    def remote(self) -> bool:
        """Whether the model is at an endpoint."""
        return isinstance(self.writer, Endpoint)

    @property
    def who(self) -> str:
        """The role of the model that judges."""
        return self.writer.role

    def work(self, rows: Amount, completions: Amount) -> dict[str, Amount]:
        """One question a completion, or one for every two completions of a row in both orders."""
        asked = completions if not self.comparative or completions is None else completions * (completions - 1)
        return {"questions": times(rows, asked), "new tokens": times(rows, asked, self.inference.max_tokens)}

    def check(self, plan: Plan) -> None:
        """That the model and its engine are there."""
        check_engine(plan, self.writer, self.inference)

    def configured(self, judging: JudgingConfig) -> LLMJudge:
        """Loaded as the config says, and asked by its templates."""
        inference = self.inference.model_copy(update=dict(judging.engine_keys()))
        return replace(self, template=question(self.mode, judging.templates), inference=inference)

    def load(self) -> Asked:
        """A function from items to scores, with the method `by_axis`."""
        return Asked(self)


def question(mode: Mode, templates_: Mapping[str, str] = templates.OURS) -> str:
    """The text of a mode's question, ours or what a config gives instead.

    Raises:
        TsalignError: a template of another name is given, or a file is not there.
    """
    return templates.texts(templates.FOLDER, templates_)[f"judge_{mode}"]


def by_name(mode: Mode, name: str, find_model: FindModel) -> LLMJudge:
    """What `judge:<model>` names, or `judge:<model>@<url>` at an OpenAI-compatible endpoint."""
    model, _, url = name.partition("@")
    block: type[EndpointConfig | ModelConfig] = EndpointConfig if "@" in name else ModelConfig
    config = validate(block, {"model": model, **({"url": url} if "@" in name else {})}, "judge")
    return LLMJudge(find_model(config, "judge"), question(mode), mode)


pair_by_name = partial(by_name, "pair")
axes_by_name = partial(by_name, "axes")
axes_pair_by_name = partial(by_name, "axes_pair")


class Asked(LoadedScorer):
    """Asks about all items of a call at once; where completions compete, about each ordered pair of a group.

    Counts questions as `calls`, the tokens of questions and answers, and how many answers were malformed or missing.
    """

    def __init__(self, scorer: LLMJudge) -> None:
        super().__init__()
        self.scorer = scorer
        self.engine = open_engine(scorer.writer, scorer.inference)
        self.counts = self.engine.counts

    def __call__(self, items: list[Item]) -> list[float | None]:
        """One score an item; None where an answer about it is malformed or missing, or it has no rival."""
        return [fmean(values.values()) if values else None for values in self.by_axis(items)]

    def by_axis(self, items: list[Item]) -> list[dict[str, float] | None]:
        """What the scores are the means of: a value an axis. The mode `pair` has the one axis `preference`."""
        self.reasons, self.unanswered, self.stop = {}, set(), ""
        subjects = _ordered_pairs(items) if self.scorer.comparative else [(index,) for index in range(len(items))]
        gained: list[list[dict[str, float]]] = [[] for _ in items]
        for subject, answer in zip(subjects, self._answers(items, subjects)):
            if isinstance(answer, Failed) and answer.unanswered:
                self.unanswered.update(subject)
                self.stop = answer.reason if answer.down else self.stop
            try:
                values = self._read(answer)
            except Unparsed as error:
                self.reasons.update(dict.fromkeys(subject, str(error)))
                continue
            gained[subject[0]].append(values)
            if len(subject) == 2:
                gained[subject[1]].append({axis: 1 - value for axis, value in values.items()})
        for index in (index for index, own in enumerate(gained) if not own):
            self.reasons.setdefault(index, "no other completion to compare it with")
        return [None if index in self.reasons else _mean(own) for index, own in enumerate(gained)]

    def _answers(self, items: list[Item], subjects: Sequence[tuple[int, ...]]) -> list[Completion | Failed | None]:
        """The answer about each subject; None for two completions that are the same, about which none is asked."""
        asked = [subject for subject in subjects if len(subject) == 1 or _differ(items, subject)]
        requests = [request_from(self.scorer.inference, self._question(items, subject), seed=0) for subject in asked]
        answers = self.engine.generate(requests, done=out_of(len(requests), self.report))
        self.counts["unanswered"] += sum(isinstance(answer, Failed) for answer in answers)
        given = dict(zip(asked, answers))
        return [given.get(subject) for subject in subjects]

    def _question(self, items: list[Item], subject: tuple[int, ...]) -> list[Message]:
        names = ("a", "b") if self.scorer.comparative else ("completion",)
        shown = {name: items[index].completion for name, index in zip(names, subject)}
        return templates.render(self.scorer.template, prompt=items[subject[0]].prompt, **shown)

    def _read(self, answer: Completion | Failed | None) -> dict[str, float]:
        """The value on each axis for the first of two, or for the only one.

        Raises:
            Unparsed: the answer is not as asked, or there is none.
        """
        mode = self.scorer.mode
        if answer is None:
            return dict.fromkeys(AXES if mode == "axes_pair" else (PREFERENCE,), 0.5)
        if isinstance(answer, Failed):
            raise Unparsed(answer.reason)
        try:
            if mode == "axes":
                return axes(answer.text, AXES)
            if mode == "axes_pair":
                return {axis: SHARE[winner] for axis, winner in winners(answer.text, AXES, list(SHARE)).items()}
            return {PREFERENCE: SHARE[choice(answer.text, list(SHARE))]}
        except Unparsed as error:
            self.counts["malformed"] += 1
            raise Unparsed(f"the judge's answer: {error}; it wrote {answer.text[:RAW_CHARACTERS]!r}") from error


def _ordered_pairs(items: list[Item]) -> list[tuple[int, ...]]:
    """Every two items of a group, in both orders."""
    groups: dict[int, list[int]] = defaultdict(list)
    for index, item in enumerate(items):
        groups[item.group].append(index)
    return [pair for members in groups.values() for pair in permutations(members, 2)]


def _differ(items: list[Item], pair: tuple[int, ...]) -> bool:
    return items[pair[0]].completion != items[pair[1]].completion


def _mean(values: list[dict[str, float]]) -> dict[str, float]:
    return {axis: fmean(one[axis] for one in values) for axis in values[0]}
