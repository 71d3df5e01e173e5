"""What a config would do and need, counted from the config and the prompt files; no model, no Ray."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tsalign.common.errors import TsalignError
from tsalign.config import EndpointConfig, ModelConfig, RunConfig, SamplingConfig, TeacherConfig
from tsalign.plan import arte, citing, pad, ts_align
from tsalign.plan.steps import Count, Plan, Step, actor_gpus

PLANS: dict[str, Callable[[Any], Plan]] = {
    "ts-align": ts_align.plan,
    "pad": pad.plan,
    "arte": arte.plan,
    "citing": citing.plan,
}


def plan(config: RunConfig) -> Plan:
    """The plan of a config.

    Raises:
        TsalignError: its recipe has none, or a prompt file is not there.
    """
    if config.recipe not in PLANS:
        raise TsalignError(f"recipe {config.recipe} has no plan to show; these have: {', '.join(PLANS)}.")
    return PLANS[config.recipe](config)


def plan_tables(config: RunConfig) -> RenderableType:
    """The plan for the terminal: models, stages, counts, and needs at the peak."""
    made = plan(config)
    cpus, gpus = _peak(config, made.steps)
    rounds = f"{made.iterations} iteration{'s' * (made.iterations > 1)}"
    where = escape(f"{config.storage}/{config.run or '<recipe and time>'}")
    title = f"[bold]{config.recipe}[/], {rounds}, into {where}"
    peak = f"\nat the peak: {cpus:g} CPU, {gpus:g} GPU. Nothing was started."
    return Group(
        title,
        *_samplings(config),
        "",
        _models(config),
        "",
        _stages(config, made.steps),
        "",
        _counts(made),
        peak,
    )


def _samplings(config: RunConfig) -> list[str]:
    return [
        f"{name}: engine {s.engine}, {s.k} a prompt, temperature {s.temperature:g}, up to {s.max_tokens} tokens"
        for name, s in vars(config).items()
        if isinstance(s, SamplingConfig)
    ]


def _peak(config: RunConfig, steps: list[Step]) -> tuple[float, float]:
    teacher = getattr(config, "teacher", None)
    deployed = teacher if isinstance(teacher, TeacherConfig) and not teacher.url else None
    cpus, gpus = 0.0, 0.0
    for step in steps:
        beside = deployed.max_replicas if deployed and step.asks_teacher else 0
        service = (beside * deployed.cpus, beside * deployed.gpus) if deployed else (0, 0)
        cpus = max(cpus, step.placement.replicas * step.placement.cpus + service[0])
        gpus = max(gpus, step.placement.replicas * actor_gpus(step.placement) + service[1])
    return cpus, gpus


def _models(config: RunConfig) -> Table:
    table = _table("role", "model", "runs as")
    for role, model in vars(config).items():
        if isinstance(model, ModelConfig | EndpointConfig):
            table.add_row(role, model.model, _runs_as(model))
    return table


def _runs_as(model: ModelConfig | EndpointConfig) -> str:
    if isinstance(model, EndpointConfig):
        return f"endpoint at {model.url}"
    if not isinstance(model, TeacherConfig):
        return "actors of each stage"
    if model.url:
        return f"service at {model.url}"
    return f"service, 0 to {model.max_replicas} replicas x {model.cpus:g} CPU, {model.gpus:g} GPU"


def _stages(config: RunConfig, steps: list[Step]) -> Table:
    table = _table("stage", "who", "actors", "work in one iteration")
    for step in steps:
        gpus = f", {actor_gpus(step.placement):g} GPU" if actor_gpus(step.placement) else ""
        parallel = config.resources.sample.tensor_parallel if step.placement is config.resources.sample else 1
        split = f", tensor parallel {parallel}" if parallel > 1 else ""
        actors = f"{step.placement.replicas} x {step.placement.cpus:g} CPU{gpus}{split}"
        table.add_row(step.stage, step.model, actors, step.work)
    return table


def _counts(made: Plan) -> Table:
    """Each amount in an iteration and in total."""
    table = _table("at most", "an iteration", "in total", numbers_from=1)
    for what, count in made.counts.items():
        table.add_row(what, f"{count.each:,}", f"{total(count, made.iterations):,}")
    return table


def total(count: Count, iterations: int) -> int:
    """An amount over the whole run."""
    return count.each * iterations + count.once


def _table(*columns: str, numbers_from: int = 99) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place >= numbers_from else "left")
    return table
