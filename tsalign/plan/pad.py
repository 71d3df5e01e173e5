"""The plan of `pad`."""

from __future__ import annotations

from collections.abc import Iterator
from math import comb

from tsalign.plan.steps import Count, Plan, Step, questions, training, training_prompts
from tsalign.recipes.pad.config import PADConfig


def plan(config: PADConfig) -> Plan:
    """Completions, and what the teacher is asked about those that are kept, in each iteration."""
    prompts, scoring, exam = training_prompts(config), config.scoring, config.evaluation
    orders = 2 if scoring.swap_options else 1
    answers = questions(config) * exam.k * len(exam.temperatures)
    counts = {
        "prompts": Count(prompts),
        "completions": Count(prompts * config.sampling.k),
        "teacher log-probs": Count(prompts * config.keep if scoring.alpha else 0),
        "teacher questions": Count(prompts * comb(config.keep, 2) * orders if scoring.alpha < 1 else 0),
        "evaluation completions": Count(answers, answers),
    }
    return Plan(config.iterations, list(_steps(config, counts)), counts)


def _steps(config: PADConfig, counts: dict[str, Count]) -> Iterator[Step]:
    where, objective = config.resources, config.tune.objective
    yield Step("candidates", "policy", where.sample, f"{counts['completions'].each:,} completions")
    yield Step("diverse", "edit distance", where.mine, f"the {config.keep} most different of each {config.sampling.k}")
    asked = [f"{counts[name].each:,} {name.split()[1]}" for name in ("teacher log-probs", "teacher questions")]
    yield Step("scores", f"teacher, {config.scoring.engine}", where.score, ", ".join(asked))
    if objective == "dpo":
        yield Step("reference", "policy", where.score, "log-probs of best and worst")
    yield training("policy", f"policy, {objective}", where.train_policy, config.tune)
    yield Step("answers", "policy", where.sample, f"{counts['evaluation completions'].each:,} completions, held-out")
    yield Step("evaluation", config.evaluation.judge, where.score, "win rate")
