"""What a config would do and need, counted from the config and the prompt files; no model, no Ray."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow.parquet as pq
from rich.console import Group, RenderableType
from rich.table import Table
from upath import UPath

from tsalign.config import (
    AlignConfig,
    DPOTrainConfig,
    EvaluationConfig,
    MiningConfig,
    ModelConfig,
    Placement,
    RewardTrainConfig,
    SamplePlacement,
    TeacherConfig,
    TrainConfig,
)
from tsalign.data.sources import TOY_PROMPTS, expand
from tsalign.toy.world import FAMILIES


@dataclass(frozen=True)
class Step:
    """One stage: who works, on which actors, and how much in one iteration."""

    stage: str
    model: str
    placement: Placement
    work: str
    asks_teacher: bool = False


@dataclass(frozen=True)
class Budget:
    """Upper bounds of one iteration, before bad rows and identical candidates drop out."""

    prompts: int
    completions: int
    student_scores: int
    teacher_calls: int
    evaluation_completions: int
    evaluation_teacher_calls: int


def budget(config: AlignConfig) -> Budget:
    """Count prompts, and what is made of them in one iteration."""
    every = sum(count_prompts(location) for location in _list(config.data.prompts))
    held_out = round(every * config.data.eval_fraction)
    prompts = min(every - held_out, config.data.prompts_per_iteration or every)
    exam = config.evaluation
    k, mining = config.sampling.k, getattr(config, "mining", None)
    questions = min(exam.prompts_per_set, held_out) + sum(_questions(exam, place) for place in exam.sets.values())
    return Budget(
        prompts=prompts,
        completions=prompts * k,
        student_scores=_selected(mining, prompts) * k,
        teacher_calls=prompts * _asked(mining, k) if mining else 0,
        evaluation_completions=questions * len(exam.temperatures) * exam.k,
        evaluation_teacher_calls=questions * exam.k if hasattr(config, "teacher") else 0,
    )


def count_prompts(location: str) -> int:
    """Rows of prompt files: JSONL lines, a JSON array's length, or what a Parquet footer says.

    Raises:
        TsalignError: no such file.
    """
    return TOY_PROMPTS[location] if location in TOY_PROMPTS else sum(_rows(file) for file in expand(location))


def _questions(exam: EvaluationConfig, location: str) -> int:
    """Prompts that evaluation takes from one location; each family of the toy world is a set."""
    sets = len(FAMILIES) if location in TOY_PROMPTS else 1
    return sets * min(exam.prompts_per_set, count_prompts(location) // sets)


def _rows(path: UPath) -> int:
    with path.open("rb", compression="gzip" if path.suffix == ".gz" else None) as file:
        if ".parquet" in path.suffixes:
            return int(pq.ParquetFile(file).metadata.num_rows)
        if ".json" in path.suffixes:
            return len(json.load(file))
        return sum(1 for line in file if line.strip())


def plan_tables(config: AlignConfig) -> RenderableType:
    """The plan for the terminal: models, stages, counts, and needs at the peak."""
    counts = budget(config)
    found = list(steps(config, counts))
    cpus, gpus = _peak(config, found)
    sampling, name = config.sampling, config.run or "<recipe and time>"
    title = (
        f"[bold]{config.recipe}[/], {config.iterations} iterations, into {config.storage}/{name}\n"
        f"engine {sampling.engine}: {sampling.k} completions a prompt, temperature {sampling.temperature:g}, "
        f"up to {sampling.max_tokens} tokens\n"
    )
    peak = f"\nat the peak: {cpus:g} CPU, {gpus:g} GPU. Nothing was started."
    return Group(title, _models(config), "", _stages(config, found), "", _counts(counts, config), peak)


def steps(config: AlignConfig, counts: Budget) -> Iterator[Step]:
    """The stages of one iteration that a config's keys imply, in order."""
    where, mining = config.resources, getattr(config, "mining", None)
    yield Step("candidates", "policy", where.sample, f"{counts.completions:,} completions")
    if counts.student_scores:
        yield Step("scores", "student", where.score, f"{counts.student_scores:,} scores")
    if mining:
        calls = counts.teacher_calls
        yield Step("preferences", "teacher", where.mine, f"{calls:,} teacher calls, {mining.strategy}", calls > 0)
    for key, training in vars(config).items():
        if isinstance(training, TrainConfig):
            yield from _training(config, key, training)
    yield Step("answers", "policy", where.sample, f"{counts.evaluation_completions:,} completions, held-out")
    yield Step("evaluation", config.evaluation.judge, where.score, "win rate and agreement", asks_teacher=True)


def _training(config: AlignConfig, key: str, training: TrainConfig) -> Iterator[Step]:
    where, mining = config.resources, getattr(config, "mining", None)
    passes = f"{training.epochs:g} epochs, ZeRO {training.zero_stage}, {training.precision}"
    if isinstance(training, RewardTrainConfig):
        if mining is None or mining.strategy != "student-only":
            yield Step("student", f"student, {key}", where.train_student, passes)
        return
    if isinstance(training, DPOTrainConfig):
        yield Step("reference", f"{training.reference} policy", where.score, "log-probs of the preferences")
    yield Step("policy", f"policy, {key}", where.train_policy, passes)


def actor_gpus(placement: Placement) -> float:
    """GPUs of one actor; a tensor-parallel one takes several."""
    return placement.gpus * (placement.tensor_parallel if isinstance(placement, SamplePlacement) else 1)


def _selected(mining: MiningConfig | None, prompts: int) -> int:
    """Prompts for which the student selects among the candidates."""
    if mining is None or mining.strategy not in ("ts-align", "off-policy", "student-only"):
        return 0
    return round(prompts * (1 - mining.refresh))


def _asked(mining: MiningConfig, k: int) -> int:
    """Teacher calls a prompt. `refresh` splits the prompts and leaves the calls as they are."""
    return {"teacher-all": k, "student-only": 0}.get(mining.strategy, min(2, k))


def _list(locations: str | list[str]) -> list[str]:
    return [locations] if isinstance(locations, str) else locations


def _peak(config: AlignConfig, found: list[Step]) -> tuple[float, float]:
    teacher = getattr(config, "teacher", None)
    deployed = teacher if teacher and not teacher.url else None
    cpus, gpus = 0.0, 0.0
    for step in found:
        beside = deployed.max_replicas if deployed and step.asks_teacher else 0
        service = (beside * deployed.cpus, beside * deployed.gpus) if deployed else (0, 0)
        cpus = max(cpus, step.placement.replicas * step.placement.cpus + service[0])
        gpus = max(gpus, step.placement.replicas * actor_gpus(step.placement) + service[1])
    return cpus, gpus


def _models(config: AlignConfig) -> Table:
    table = _table("role", "model", "runs as")
    for role, model in vars(config).items():
        if isinstance(model, ModelConfig):
            table.add_row(role, model.model, _runs_as(model))
    return table


def _runs_as(model: ModelConfig) -> str:
    if not isinstance(model, TeacherConfig):
        return "actors of each stage"
    if model.url:
        return f"service at {model.url}"
    return f"service, 0 to {model.max_replicas} replicas x {model.cpus:g} CPU, {model.gpus:g} GPU"


def _stages(config: AlignConfig, found: list[Step]) -> Table:
    table = _table("stage", "who", "actors", "work in one iteration")
    for step in found:
        gpus = f", {actor_gpus(step.placement):g} GPU" if actor_gpus(step.placement) else ""
        parallel = config.resources.sample.tensor_parallel if step.placement is config.resources.sample else 1
        split = f", tensor parallel {parallel}" if parallel > 1 else ""
        actors = f"{step.placement.replicas} x {step.placement.cpus:g} CPU{gpus}{split}"
        table.add_row(step.stage, step.model, actors, step.work)
    return table


def _counts(counts: Budget, config: AlignConfig) -> Table:
    """Each amount in an iteration and in total; the initial policy's answers are made and scored once."""
    table, rounds = _table("at most", "an iteration", "in total", numbers_from=1), config.iterations
    answers, asked = counts.evaluation_completions, counts.evaluation_teacher_calls
    for what, each, once in (
        ("prompts", counts.prompts, 0),
        ("completions", counts.completions, 0),
        ("student scores", counts.student_scores, 0),
        ("teacher calls, mining", counts.teacher_calls, 0),
        ("teacher calls, evaluation", asked, asked * len(config.evaluation.temperatures)),
        ("evaluation completions", answers, answers),
    ):
        table.add_row(what, f"{each:,}", f"{each * rounds + once:,}")
    return table


def _table(*columns: str, numbers_from: int = 99) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place >= numbers_from else "left")
    return table
