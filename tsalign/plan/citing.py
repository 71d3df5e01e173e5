"""The plan of `citing`."""

from __future__ import annotations

from collections.abc import Iterator

from tsalign.config import EndpointConfig
from tsalign.plan.steps import Count, Plan, Step, questions, training, training_prompts
from tsalign.recipes.citing.config import CITINGConfig


def plan(config: CITINGConfig) -> Plan:
    """Drafts and the teacher's revisions of them in each iteration; rubrics are written once, a category each."""
    prompts, exam = training_prompts(config), config.evaluation
    drafts = 0 if config.imitates else prompts * config.sampling.k
    answers = questions(config) * exam.k * len(exam.temperatures)
    steps = 1 + config.passes if config.method == "citing" else 1
    counts = {
        "prompts": Count(prompts),
        "drafts": Count(drafts),
        "teacher revisions": Count(drafts),
        "evaluation completions": Count(answers * steps, answers),
    }
    return Plan(config.iterations, list(_steps(config, counts)), counts)


def _steps(config: CITINGConfig, counts: dict[str, Count]) -> Iterator[Step]:
    where = config.resources
    asking = where.mine if isinstance(config.teacher, EndpointConfig) else where.sample
    yield Step("rubrics", "teacher", asking, f"once: one for each category ({config.rubrics.categories})")
    yield Step("matched", f"encoder {config.rubrics.encoder.model}", where.score, "once: a rubric for each prompt")
    if config.imitates:
        yield Step("demonstrations", "file", where.mine, f"{config.demonstrations}")
    else:
        yield Step("candidates", "policy", where.sample, f"{counts['drafts'].each:,} completions")
        yield Step("revisions", "teacher", asking, f"{counts['teacher revisions'].each:,} revisions")
    yield training("policy", f"policy, {config.method}", where.train_policy, config.tune)
    if config.preference:
        yield Step("reference", "policy", where.score, "log-probs of revisions and drafts")
        yield training("preferring", "policy, preference", where.train_policy, config.preference)
    yield Step("answers", "policy", where.sample, f"{counts['evaluation completions'].each:,} completions, held-out")
    yield Step("evaluation", config.evaluation.judge, where.score, "win rate of each step")
