"""The plan of `ts-align`."""

from __future__ import annotations

from collections.abc import Iterator

from tsalign.plan.steps import Count, Plan, Step, questions, training, training_prompts
from tsalign.recipes.ts_align.config import MiningConfig, TSAlignConfig

STUDENT_SELECTS = ("ts-align", "off-policy", "student-only")


def plan(config: TSAlignConfig) -> Plan:
    """Prompts, completions, scores and teacher calls of each iteration."""
    prompts, k, exam = training_prompts(config), config.sampling.k, config.evaluation
    selects = config.mining.strategy in STUDENT_SELECTS
    judged = questions(config) * exam.k
    counts = {
        "prompts": Count(prompts),
        "completions": Count(prompts * k),
        "student scores": Count(round(prompts * (1 - config.mining.refresh)) * k if selects else 0),
        "teacher calls, mining": Count(prompts * _asked(config.mining, k)),
        "teacher calls, evaluation": Count(judged, judged * len(exam.temperatures)),
        "evaluation completions": Count(judged * len(exam.temperatures), judged * len(exam.temperatures)),
    }
    return Plan(config.iterations, list(_steps(config, counts)), counts)


def _steps(config: TSAlignConfig, counts: dict[str, Count]) -> Iterator[Step]:
    where, strategy = config.resources, config.mining.strategy
    calls = counts["teacher calls, mining"].each
    yield Step("candidates", "policy", where.sample, f"{counts['completions'].each:,} completions")
    if counts["student scores"].each:
        yield Step("scores", "student", where.score, f"{counts['student scores'].each:,} scores")
    yield Step("preferences", "teacher", where.mine, f"{calls:,} teacher calls, {strategy}", calls > 0)
    if strategy != "student-only":
        yield training("student", "student, distill", where.train_student, config.distill)
    yield Step("reference", f"{config.tune.reference} policy", where.score, "log-probs of the preferences")
    yield training("policy", "policy, tune", where.train_policy, config.tune)
    answers = counts["evaluation completions"].each
    yield Step("answers", "policy", where.sample, f"{answers:,} completions, held-out")
    yield Step("evaluation", config.evaluation.judge, where.score, "win rate")
    yield Step("agreement", "student, teacher", where.score, "pairs ordered alike", asks_teacher=True)


def _asked(mining: MiningConfig, k: int) -> int:
    """Teacher calls a prompt. `refresh` splits the prompts and leaves the calls as they are."""
    return {"teacher-all": k, "student-only": 0}.get(mining.strategy, min(2, k))
