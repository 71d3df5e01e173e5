"""`quickstart`, `run` and `resume`: what makes a run, or goes on with one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from tsalign.cli.execution import execute, report, resumable
from tsalign.cli.options import Address, Config, Overrides, RetryFailed, RunName, Storage, Verbose
from tsalign.cli.terminal import app, out
from tsalign.common.errors import TsalignError

if TYPE_CHECKING:
    from upath import UPath


@app.command()
def quickstart(
    recipe: Annotated[str, typer.Option(help="ts-align, pad, arte or citing")] = "ts-align",
    seed: Annotated[int, typer.Option(help="random seed of the run")] = 0,
    seeds: Annotated[
        int,
        typer.Option(min=1, help="number of runs, with consecutive seeds from --seed; the table shows mean and spread"),
    ] = 1,
    baselines: Annotated[bool, typer.Option(help="also run the recipe's controls and compare")] = False,
    run: Annotated[str | None, typer.Option(help="name of the run; default: quickstart, or quickstart-RECIPE")] = None,
    storage: Storage = "runs",
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Run a recipe in the built-in world; it takes minutes on two CPU cores."""
    from tsalign.recipes import find, with_quickstart
    from tsalign.report.table import variants_table

    chosen_recipe = find(recipe)
    if chosen_recipe.quickstart is None:
        raise TsalignError(f"--recipe: {recipe} has no quickstart; expected {', '.join(with_quickstart())}.")
    name = run or ("quickstart" if recipe == "ts-align" else f"quickstart-{recipe}")
    folders: dict[str, list[UPath]] = {}
    for variant, changes in {recipe: {}, **(chosen_recipe.controls if baselines else {})}.items():
        for number in range(seed, seed + seeds):
            parts = [name, *([variant] if variant != recipe else []), *([f"seed{number}"] if seeds > 1 else [])]
            chosen = {"storage": storage, "seed": number, **changes, "run": "-".join(parts)}
            folders.setdefault(variant, []).append(execute(chosen_recipe.quickstart, chosen))
        if variant == recipe:
            report(folders[recipe][0])
    if baselines or seeds > 1:
        out.print(variants_table(folders), highlight=False)


@app.command("run")
def run_command(
    config: Config,
    overrides: Overrides = None,
    retry_failed: RetryFailed = False,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Run a config; if a run of that name exists, resume it."""
    from tsalign.config import parse_assignments

    report(execute(config, parse_assignments(overrides or []), retry_failed))


@app.command()
def resume(
    run: RunName,
    storage: Storage = "runs",
    retry_failed: RetryFailed = False,
    address: Address = None,
    verbose: Verbose = False,
) -> None:
    """Resume an interrupted run; finished stages are skipped."""
    from tsalign import api
    from tsalign.report.summary import find_run

    folder = find_run(run, storage)
    with resumable(folder):
        api.resume(folder.name, str(folder.parent), retry_failed)
    report(folder)
