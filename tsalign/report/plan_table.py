"""A plan for the terminal: who works, in which stages, on how many actors, and what that comes to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import groupby

from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tsalign.config import EvaluationConfig, Placement, RunConfig, SamplePlacement, SamplingConfig
from tsalign.report.turns import Turn, by_stage, enough, peak, turns
from tsalign.runs.machine import room, shortages
from tsalign.runs.nodes import size_of
from tsalign.runs.plan import Amount, Need, Plan, plus

IN_MILLIONS = 10_000_000  # amounts from here on


def plan_table(config: RunConfig, plan: Plan) -> RenderableType:
    """What a run with this config would do: models, stages, totals, and the resources that it needs at the peak."""
    last = _iterations(plan)
    rounds = f", {last} iteration{'s' * (last > 1)}" if last else ""
    where = escape(f"{config.storage}/{config.run or '<recipe and time>'}")
    (cpus, gpus), (few_cpus, few_gpus) = peak(plan), enough(plan)
    return Group(
        f"[bold]{config.recipe}[/]{rounds}, into {where}",
        *_how_it_writes(config),
        "",
        _roles(plan),
        "",
        _stages(plan, last),
        "",
        _totals(plan, last),
        "",
        _turns(plan, last),
        "",
        *(escape(f"not counted: {location} ({why})") for location, why in plan.uncounted.items()),
        *(escape(f"does not fit here: {line}") for line in _too_large(config, plan)),
        f"enough, where stages take turns: {few_cpus:g} CPU, {few_gpus:g} GPU",
        f"at the peak: {cpus:g} CPU, {gpus:g} GPU. Nothing was started.",
    )


def _too_large(config: RunConfig, plan: Plan) -> Iterator[str]:
    """What would not fit this machine, or the cluster that is connected; a plan may be made for another one."""
    have = room()
    return iter(()) if have is None else shortages(plan, config.resources, have)


def totals(plan: Plan) -> dict[str, list[Amount]]:
    """Such as `policy completions` -> how many outside the iterations, in the first iteration, in the second, ...

    What it takes to measure the run is apart from what the alignment takes, and comes last.
    """
    found: dict[str, list[Amount]] = defaultdict(lambda: [0.0] * (1 + _iterations(plan)))
    for need in sorted((need for need in plan.needs if need.who), key=lambda need: need.measures):
        for unit, amount in need.work.items():
            amounts = found[f"{need.who} {unit}" + ", measuring" * need.measures]
            amounts[need.iteration] = plus(amounts[need.iteration], amount)
    return dict(found)


def _iterations(plan: Plan) -> int:
    return max((need.iteration for need in plan.needs), default=0)


def _how_it_writes(config: RunConfig) -> Iterator[str]:
    for name, part in vars(config).items():
        if isinstance(part, SamplingConfig):
            length = f"up to {part.max_tokens:,} tokens"
            yield f"{name}: engine {part.engine}, {part.k} a prompt, temperature {part.temperature:g}, {length}"
        elif isinstance(part, EvaluationConfig):
            at = ", ".join(f"{temperature:g}" for temperature in part.temperatures)
            yield escape(f"{name}: judged by {part.judge}, {part.k} a prompt, temperature {at}")


def _roles(plan: Plan) -> Table:
    table = _table("role", "model", "runs as")
    for role in dict.fromkeys(plan.roles):
        table.add_row(role.who, escape(role.model), escape(role.runs_as))
    return table


def _stages(plan: Plan, last: int) -> Table:
    """The stages outside the iterations, then those of the last one."""
    table = _table("stage", "who", "actors", "work, at most")
    for iteration, title in {0: "once", last: f"iteration {last} of {last}"}.items():
        if last:
            table.add_row(f"[dim]{title}[/]")
        for name, needs in by_stage(need for need in plan.needs if need.iteration == iteration):
            actors = _actors(needs[0].placement)
            for who, own in groupby(needs, key=lambda need: need.who):
                table.add_row(name, who, actors, escape(_work(list(own))))
                name = actors = ""
    return table


def _actors(place: Placement) -> str:
    number = f"{place.least} to {place.most}" if place.least < place.most else f"{place.most}"
    split = place.tensor_parallel if isinstance(place, SamplePlacement) else 1
    parallel = f", tensor parallel {split}" if split > 1 else ""
    return f"{number} x {size_of(place)}{parallel}"


def _work(needs: list[Need]) -> str:
    """All that one model or service does in a stage."""
    amounts = [f"{_shown(amount)} {unit}" for need in needs for unit, amount in need.work.items()]
    return ", ".join([*amounts, *(need.note for need in needs if need.note)])


def _turns(plan: Plan, last: int) -> Table:
    """What each stage holds, and for how long: those outside the iterations, then those of the last one."""
    table = _table("holds while it runs", "CPU", "GPU", "and, while asked", "beside")
    for turn in turns(plan):
        if turn.iteration in (0, last):
            asked = ", ".join(f"{one.who}: 0 to {one.replicas} x {_size(one.cpus, one.gpus)}" for one in turn.asks)
            table.add_row(turn.stage, _span(turn.cpus), _span(turn.gpus), asked, _beside(turn))
    return table


def _beside(turn: Turn) -> str:
    return "its pipeline" if turn.pipeline else "the next" * turn.beside


def _span(amounts: tuple[float, float]) -> str:
    least, most = amounts
    return f"{most:g}" if least == most else f"{least:g} to {most:g}"


def _size(cpus: float, gpus: float) -> str:
    return f"{cpus:g} CPU" + (f", {gpus:g} GPU" if gpus else "")


def _totals(plan: Plan, last: int) -> Table:
    columns = ("once", f"iteration {last}", "in total") if last else ("in total",)
    table = _table("at most", *columns, numbers_from=1)
    for what, amounts in totals(plan).items():
        parts = [amounts[0], amounts[-1]] if last else []
        table.add_row(what, *map(_shown, [*parts, plus(*amounts)]))
    return table


def _shown(amount: Amount) -> str:
    if amount is None:
        return "unknown"
    return f"{amount / 1e6:,.1f} M" if amount >= IN_MILLIONS else f"{amount:,.0f}"


def _table(*columns: str, numbers_from: int = 99) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="dim")
    for place, name in enumerate(columns):
        last = place == len(columns) - 1
        table.add_column(name, justify="right" if place >= numbers_from else "left", no_wrap=not last)
    return table
