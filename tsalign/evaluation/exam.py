"""What every policy of a run is evaluated on: held-out prompts, and the initial policy's answers to them."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from tsalign.config import DataConfig, EvaluationConfig, SamplingConfig
from tsalign.data.prompts import load_evaluation
from tsalign.evaluation.stage import evaluate
from tsalign.runs.artifacts import Dataset, Endpoint, Model
from tsalign.runs.iteration import Iteration
from tsalign.runs.run import Run
from tsalign.runs.stage_function import measuring
from tsalign.scoring import Scorer, scorer_from_name
from tsalign.scoring.logprob import LogProb
from tsalign.scoring.stage import score
from tsalign.stages.sampling import sample


class Examined(Protocol):
    """The keys of a config that an exam reads."""

    @property
    def data(self) -> DataConfig: ...
    @property
    def sampling(self) -> SamplingConfig: ...
    @property
    def evaluation(self) -> EvaluationConfig: ...


class Exam:
    """Prepared at the start of a run, alongside its first stages; each iteration's policy is examined.

    Args:
        scorers: applied to the initial policy's answers besides the judge.
        tokens_of: the policy whose tokens the prompts carry, where all examined models share its tokenizer.

    Attributes:
        base: the initial policy's answers, with the judge's scores and those of `scorers`.
        likelihood: `initial`, the mean log-prob of an answer's tokens under the initial policy; nothing where that is
            behind an endpoint.
    """

    def __init__(
        self,
        run: Run,
        cfg: Examined,
        base: Model | Endpoint,
        scorers: Mapping[str, Scorer] = MappingProxyType({}),
        tokens_of: Model | None = None,
    ) -> None:
        self.cfg, self.scorers = cfg.evaluation, dict(scorers)
        self.sampling = cfg.sampling.model_copy(update={"k": cfg.evaluation.k})
        self.judge = scorer_from_name(cfg.evaluation.judge, run.model).configured(cfg.evaluation.judging)
        # In stages of their own: two large models do not fit into one actor.
        initial = isinstance(base, Model) and LogProb(base, "mean", sampled_tokens=tokens_of is not None)
        self.likelihood: dict[str, Scorer] = {"initial": initial} if initial else {}
        self.held_out = run.stage("held_out", load_evaluation, cfg.data, cfg.evaluation, tokens_of)
        self.base = run.overlap(self._set, run, base)

    def _set(self, run: Run, base: Model | Endpoint) -> Dataset:
        answers = run.stage(
            "base_answers", measuring(sample), base, self.held_out, self.sampling, self.cfg.temperatures
        )
        if self.likelihood:
            answers = run.stage("base_likelihood", measuring(score), answers, self.likelihood)
        # A judge that compares has to see both answers: nothing of its verdict can be had beforehand.
        scorers = self.scorers if self.judge.comparative else {"judge": self.judge, **self.scorers}
        # Apart, so that what waits for a service holds no GPU that the service may need.
        for asked in (False, True):
            if part := {name: scorer for name, scorer in scorers.items() if scorer.remote == asked}:
                name = "base_scores_asked" if asked else "base_scores"
                answers = run.stage(name, measuring(score), answers, part)
        return answers

    def examine(self, it: Iteration, policy: Model) -> Dataset:
        """The policy's answers at all temperatures, judged against the initial policy's: verdicts."""
        answers = it.stage("answers", measuring(sample), policy, self.held_out, self.sampling, self.cfg.temperatures)
        return self.compare(it, answers)

    def compare(self, it: Iteration, answers: Dataset) -> Dataset:
        """Verdicts on answers to the held-out prompts, however they were made."""
        if self.likelihood:
            answers = it.stage("likelihood", measuring(score), answers, self.likelihood)
        return it.stage("evaluation", evaluate, answers, self.base.result(), self.judge, self.cfg)

    def compare_steps(self, it: Iteration, answers: Mapping[str, Dataset]) -> None:
        """Verdicts on each step of a procedure; those on the last are the stage `evaluation`."""
        *steps, (_, last) = answers.items()
        for step, made in steps:
            it.stage(f"evaluation_{step}", evaluate, made, self.base.result(), self.judge, self.cfg, step)
        self.compare(it, last)
