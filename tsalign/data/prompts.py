"""Prompts for training and for evaluation, from files to shards; no conversation is ever in both."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from math import ceil

from upath import UPath

from tsalign.common.errors import TsalignError
from tsalign.common.registry import is_builtin
from tsalign.common.seeds import derive, fraction
from tsalign.config import DataConfig, EvaluationConfig
from tsalign.data.chat import load_tokenizer
from tsalign.data.checks import check_model, check_rows
from tsalign.data.counting import count_rows, count_sets
from tsalign.data.intake import Intake, Prompt, parse
from tsalign.data.shards import Row, write_rows
from tsalign.data.sources import BadRow, absolute, contents, read
from tsalign.data.tasks import in_one_task
from tsalign.runs.artifacts import Dataset, Model, fingerprint
from tsalign.runs.plan import ONE_TASK, Amount, ExpectedDataset, PlannedStage, at_most, plus, times
from tsalign.runs.stage import Stage
from tsalign.runs.stage_function import stage_function

HELD_OUT = "held_out"


@stage_function("prompts")
def load_prompts(stage: Stage, data: DataConfig, sets: dict[str, str], policy: Model) -> Dataset:
    """Training prompts as shards of `prompt_id, set, prompt, prompt_ids`, in an order that depends on the seed alone.

    Left out: duplicates, bad and too long rows (to the quarantine), and prompts used for evaluation (counted as
    `held_out`): those in the evaluation `sets`, and the share `data.eval_fraction`.
    With `data.prompts_per_iteration` the shards make portions of exactly that size; the last portion is
    completed with prompts of the first.

    Raises:
        TsalignError: a file is missing or has no prompts, too many rows are bad, or nothing is left.
    """
    return in_one_task(stage, _training, stage.quarantine, _anchored(data), _absolute(sets), policy, stage.seed)


@load_prompts.reads
def _read_prompts(data: DataConfig, sets: dict[str, str], policy: Model) -> dict[str, str]:
    return contents([*_locations(data), *sets.values()])


@load_prompts.expects
def _expect_prompts(stage: PlannedStage, data: DataConfig, sets: dict[str, str], policy: Model) -> Dataset:
    check_rows(stage.plan, "data.prompts", _locations(data), lambda record: parse(record, data.system))
    check_model(stage.plan, policy, "any")
    found = count_sets(_locations(data), stage.plan)
    prompts = None if found is None else sum(found.values())
    stage.needs("", ONE_TASK, {"prompts": prompts})
    rows = times(prompts, 1 - data.eval_fraction)
    return stage.dataset(rows, sets=None if found is None else len(found))


@stage_function("held_out")
def load_evaluation(stage: Stage, data: DataConfig, evaluation: EvaluationConfig, policy: Model | None) -> Dataset:
    """Held-out prompts: each file of `evaluation.sets`, and `held_out` when `data.eval_fraction` is above zero.

    Of each set, the `evaluation.prompts_per_set` with the lowest content hash, for every seed.

    Args:
        policy: the model whose token ids the rows carry; None for no token ids, when tokenizers differ.

    Raises:
        TsalignError: as `load_prompts`; also no set at all, an empty set, or a set named `held_out` twice.
    """
    _check_sets(data, evaluation)
    anchored = evaluation.model_copy(update={"sets": _absolute(evaluation.sets)})
    return in_one_task(stage, _evaluation, stage.quarantine, _anchored(data), anchored, policy)


@load_evaluation.reads
def _read_held_out(data: DataConfig, evaluation: EvaluationConfig, policy: Model | None) -> dict[str, str]:
    return contents([*(_locations(data) if data.eval_fraction else []), *evaluation.sets.values()])


@load_evaluation.expects
def _expect_held_out(
    stage: PlannedStage, data: DataConfig, evaluation: EvaluationConfig, policy: Model | None
) -> Dataset:
    with stage.plan.checking("evaluation"):
        _check_sets(data, evaluation)
    sizes: list[Amount] = []
    for name, location in evaluation.sets.items():
        check_rows(stage.plan, f"evaluation.sets.{name}", [location], lambda record: parse(record, data.system))
        found = count_sets([location], stage.plan)
        # A built-in name gives several sets, files together the one that the config names.
        sizes += found.values() if found and is_builtin(location) else [count_rows([location], stage.plan)]
    if data.eval_fraction:
        sizes.append(times(count_rows(_locations(data), stage.plan), data.eval_fraction))
    rows = plus(*(at_most(size, evaluation.prompts_per_set) for size in sizes))
    stage.needs("", ONE_TASK, {"prompts": rows})
    return stage.dataset(rows)


def _check_sets(data: DataConfig, evaluation: EvaluationConfig) -> None:
    if not evaluation.sets and not data.eval_fraction:
        raise TsalignError(
            "evaluation: no prompts to evaluate on; "
            "name a prompt file under evaluation.sets, or set data.eval_fraction above 0."
        )
    if HELD_OUT in evaluation.sets and data.eval_fraction:
        raise TsalignError(
            "evaluation.sets: held_out is the name of the set that data.eval_fraction makes; rename yours."
        )


def portion(prompts: Dataset, iteration: int, data: DataConfig) -> Dataset:
    """The shards that an iteration, counted from 1, samples from; after the last portion the first comes again."""
    if data.prompts_per_iteration is None:
        return prompts
    if isinstance(prompts, ExpectedDataset):
        return prompts.limited(data.prompts_per_iteration)
    names = [shard.name for shard in prompts.shards()]
    width = min(ceil(data.prompts_per_iteration / data.shard_size), len(names))
    start = (iteration - 1) % (len(names) // width) * width
    chosen = tuple(names[start : start + width])
    return Dataset(prompts.path, fingerprint(prompts.fingerprint, chosen), chosen)


def _anchored(data: DataConfig) -> DataConfig:
    """With absolute paths: the task may run in another folder than the driver."""
    return data.model_copy(update={"prompts": [absolute(location) for location in _locations(data)]})


def _absolute(sets: dict[str, str]) -> dict[str, str]:
    return {name: absolute(location) for name, location in sets.items()}


def _training(
    out: UPath, quarantine: UPath, data: DataConfig, sets: dict[str, str], policy: Model, seed: int
) -> dict[str, int]:
    reserved = set(_contents(list(sets.values()), data.system))
    rows = []
    with Intake(load_tokenizer(policy), data, quarantine) as intake:
        for prompt in intake.prompts(_locations(data)):
            if prompt.content in reserved or _is_held_out(prompt, data):
                intake.counts["held_out"] += 1
            elif row := intake.encode(prompt, prompt.record.set):
                rows.append(row)
    intake.check()
    if not rows:
        raise TsalignError(
            f"data.prompts: no prompts left for training ({_summary(intake.counts)}); add prompts, or hold out fewer."
        )
    rows.sort(key=lambda row: derive(seed, row["prompt_id"]))
    intake.counts["kept"] = len(rows)
    size = data.prompts_per_iteration or len(rows)
    if len(rows) > size:
        rows += rows[: -len(rows) % size]
    portions = [rows[start : start + size] for start in range(0, len(rows), size)]
    write_rows(out, *portions, shard_size=data.shard_size)
    return dict(intake.counts)


def _evaluation(
    out: UPath, quarantine: UPath, data: DataConfig, evaluation: EvaluationConfig, policy: Model | None
) -> dict[str, int]:
    sets: dict[str, list[tuple[str, Row]]] = {}
    with Intake(load_tokenizer(policy) if policy else None, data, quarantine) as intake:
        for name, prompt in _evaluation_prompts(intake, data, evaluation):
            if row := intake.encode(prompt, name):
                sets.setdefault(name, []).append((prompt.content, row))
    intake.check()
    named = {name for name, location in evaluation.sets.items() if not is_builtin(location)}
    if empty := sorted((named | ({HELD_OUT} if data.eval_fraction else set())) - sets.keys()):
        raise TsalignError(
            f"evaluation set {empty[0]}: no prompts left ({_summary(intake.counts)}); "
            "give it more prompts; for held_out, raise data.eval_fraction."
        )
    best = [sorted(rows, key=lambda pair: pair[0])[: evaluation.prompts_per_set] for rows in sets.values()]
    rows = [row for chosen in best for _, row in chosen]
    intake.counts["kept"] = len(rows)
    write_rows(out, rows, shard_size=data.shard_size)
    return dict(intake.counts)


def _evaluation_prompts(intake: Intake, data: DataConfig, evaluation: EvaluationConfig) -> Iterator[tuple[str, Prompt]]:
    for name, location in evaluation.sets.items():
        for prompt in intake.prompts([location]):
            yield prompt.record.set if is_builtin(location) else name, prompt
    if data.eval_fraction:
        for prompt in intake.prompts(_locations(data)):
            if _is_held_out(prompt, data):
                yield HELD_OUT, prompt


def _contents(locations: list[str], system: str | None) -> Iterator[str]:
    for record in read(locations):
        with suppress(BadRow):  # load_evaluation reports it
            yield parse(record, system).content


def _is_held_out(prompt: Prompt, data: DataConfig) -> bool:
    return fraction(prompt.content, HELD_OUT) < data.eval_fraction


def _locations(data: DataConfig) -> list[str]:
    return [data.prompts] if isinstance(data.prompts, str) else data.prompts


def _summary(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items())
