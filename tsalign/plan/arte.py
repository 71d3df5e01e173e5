"""The plan of `arte`."""

from __future__ import annotations

from collections.abc import Iterator

from tsalign.plan.steps import Count, Plan, Step, training
from tsalign.recipes.arte.config import ARTEConfig
from tsalign.recipes.arte.tasks import Task, read_tasks

TECHNIQUES = 4  # of a task that brings none of its own


def plan(config: ARTEConfig) -> Plan:
    """Drafts, what the student is asked about them, pairs, and tailored rows; there is one round."""
    tasks = read_tasks(config.tasks)
    drafts = config.drafts.questions * len(tasks)
    written = sum(config.drafts.questions * (len(task.techniques) or TECHNIQUES) for task in tasks)
    tests = sum(len(task.test) for task in tasks) * len(config.shots)
    aligned = config.aligned_on
    counts = {
        "tasks": Count(len(tasks)),
        "draft questions": Count(drafts),
        "draft rationales": Count(written),
        "answers that select items": Count(_item_answers(config, tasks)),
        "student answers to drafts": Count(_answers(config, tasks)),
        "question pairs": Count(config.pairs.questions * len(tasks) if "questions" in aligned else 0),
        "rationale pairs": Count(
            min(config.pairs.rationales or config.drafts.questions, config.drafts.questions) * len(tasks)
            if "rationales" in aligned
            else 0
        ),
        "tailored rationales": Count(drafts if aligned else 0),
        "training rows": Count(config.rows_per_task * len(tasks)),
        "test answers": Count(tests, tests),
    }
    return Plan(1, list(_steps(config, {name: count.each for name, count in counts.items()})), counts)


def _answers(config: ARTEConfig, tasks: tuple[Task, ...]) -> int:
    """Every draft as the one example before every preference question."""
    if config.ablation == "random-rationale":
        return 0
    keep = config.select_items.keep if config.select_items else None
    drafted = [config.drafts.questions * (len(task.techniques) or TECHNIQUES) for task in tasks]
    return sum(number * len(task.preference[:keep]) for number, task in zip(drafted, tasks))


def _item_answers(config: ARTEConfig, tasks: tuple[Task, ...]) -> int:
    if config.select_items is None:
        return 0
    subjects = len(config.select_items.models) * len(config.select_items.shots)
    return subjects * sum(len(task.preference) for task in tasks)


def _steps(config: ARTEConfig, counts: dict[str, int]) -> Iterator[Step]:
    where = config.resources
    if config.select_items:
        models = f"{len(config.select_items.models)} models"
        yield Step("items", models, where.sample, f"{counts['answers that select items']:,} answers")
    yield Step("drafts", "teacher", where.sample, f"{counts['draft questions']:,} questions")
    yield Step("rationales", "teacher", where.sample, f"{counts['draft rationales']:,} rationales")
    if counts["student answers to drafts"]:
        yield Step("scores", "student", where.score, f"{counts['student answers to drafts']:,} answers after one draft")
    if config.aligned_on:
        pairs = counts["question pairs"] + counts["rationale pairs"]
        yield Step("reference", "teacher", where.score, f"log-probs of {pairs:,} pairs")
        yield training("teacher", f"teacher, {' and '.join(config.aligned_on)}", where.train_teacher, config.align)
        yield Step("questions", "aligned teacher", where.sample, f"{counts['draft questions']:,} questions")
        yield Step("tailored", "aligned teacher", where.sample, f"{counts['tailored rationales']:,} rationales")
    yield training("student", f"student, {counts['training rows']:,} rows", where.train_student, config.tune)
    yield Step("exact_match", "student", where.sample, f"{counts['test answers']:,} answers")
