"""The `tsalign` command. Results go to stdout, progress and errors to stderr; heavy imports wait until needed."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from typer.core import TyperGroup

from tsalign.common.errors import TsalignError

if TYPE_CHECKING:
    from upath import UPath

# A stage that is cut off when its Ray ends must not start another. Ray reads this when it is imported.
os.environ["RAY_ENABLE_AUTO_CONNECT"] = "0"

out = Console()
errors = Console(stderr=True)


class Commands(TyperGroup):
    """Turns an error that the user can fix into a red message and exit code 2; a crash keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TsalignError as error:
            errors.print(str(error), style="red", markup=False, emoji=False, highlight=False, soft_wrap=True)
            _exit(2)


def _exit(code: int) -> NoReturn:
    """End the command, with what a failed run left."""
    from tsalign.runs.ray_session import leave

    leave(code)
    raise typer.Exit(code) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Align language models with a teacher, on Ray.",
)
serve = typer.Typer(no_args_is_help=True, help="Serve a model over HTTP.")
toy = typer.Typer(no_args_is_help=True, help="The built-in world that quickstart and tests use.")
app.add_typer(serve, name="serve")
app.add_typer(toy, name="toy")

Config = Annotated[Path, typer.Argument(help="YAML file; see `configs/` for examples")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="for example tune.beta=0.2")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="name of the run, or its directory")]
Storage = Annotated[str, typer.Option(help="folder or URI where runs are stored")]
RetryFailed = Annotated[
    bool,
    typer.Option("--retry-failed", help="also ask again for rows that were answered badly"),
]
Json = Annotated[bool, typer.Option("--json", help="print only JSON")]


def _verbose(wanted: bool) -> None:
    if wanted:
        logging.getLogger("tsalign").setLevel(logging.DEBUG)


Verbose = Annotated[
    bool, typer.Option("--verbose", callback=_verbose, help="show what Ray and the workers print and log")
]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tsalign {version('tsalign')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
    verbose: Verbose = False,
) -> None:
    """Options before any command."""


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
            folders.setdefault(variant, []).append(_execute(chosen_recipe.quickstart, chosen))
        if variant == recipe:
            _report(folders[recipe][0])
    if baselines or seeds > 1:
        out.print(variants_table(folders), highlight=False)


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="model to evaluate: hub id, folder, or name@https://host/v1")],
    against: Annotated[str, typer.Option(help="model to compare with: hub id, folder, or name@https://host/v1")],
    sets: Annotated[list[str], typer.Option(help="prompt file, or NAME=FILE; can be repeated")],
    judge: Annotated[str, typer.Option(help="module:function, reward_model:<model>, logprob:<model>, judge:<model>")],
    procedure: Annotated[
        str, typer.Option(help="how MODEL answers: direct, guided or rewrite; set its keys with procedure.KEY=VALUE")
    ] = "direct",
    run: Annotated[str | None, typer.Option(help="name of the run; default: evaluate-TIME")] = None,
    storage: Storage = "runs",
    overrides: Overrides = None,
    verbose: Verbose = False,
) -> None:
    """Compare two models on the same prompts under one judge."""
    from tsalign.config import parse_assignments

    content: dict[str, Any] = {
        "recipe": "evaluate",
        "run": run,
        "storage": storage,
        "model": _model(model),
        "against": _model(against),
        "procedure": {"name": procedure},
        "evaluation": {"judge": judge, "sets": dict(_named_set(given) for given in sets)},
    }
    _report(_execute(content, parse_assignments(overrides or [])))


def _model(given: str) -> dict[str, str]:
    """`org/name` is a model that we load, `name@https://host/v1` one behind an API."""
    name, _, url = given.partition("@http")
    return {"model": name, "url": f"http{url}"} if url else {"model": given}


def _named_set(given: str) -> tuple[str, str]:
    name, sign, location = given.partition("=")
    return (name, location) if sign else (Path(given.rpartition(":")[2]).stem, given)


@app.command("run")
def run_command(
    config: Config, overrides: Overrides = None, retry_failed: RetryFailed = False, verbose: Verbose = False
) -> None:
    """Run a config; if a run of that name exists, resume it."""
    from tsalign.config import parse_assignments

    _report(_execute(config, parse_assignments(overrides or []), retry_failed))


@app.command()
def plan(config: Config, overrides: Overrides = None) -> None:
    """Show what a run would do and need, without starting anything."""
    from tsalign.api import load
    from tsalign.config import parse_assignments
    from tsalign.recipes import find
    from tsalign.report.plan_table import plan_table
    from tsalign.runs import dry_run

    loaded = load(config, parse_assignments(overrides or []))
    out.print(plan_table(loaded, dry_run.plan(loaded, find(loaded.recipe).function)), highlight=False)


@app.command()
def resume(
    run: RunName, storage: Storage = "runs", retry_failed: RetryFailed = False, verbose: Verbose = False
) -> None:
    """Resume an interrupted run; finished stages are skipped."""
    from tsalign import api
    from tsalign.report.summary import find_run

    folder = find_run(run, storage)
    with _resumable(folder):
        api.resume(folder.name, str(folder.parent), retry_failed)
    _report(folder)


@app.command()
def runs(as_json: Json = False, storage: Storage = "runs") -> None:
    """List the runs of a storage folder, newest last."""
    from tsalign.report.summary import list_runs
    from tsalign.report.table import runs_table

    found = list_runs(storage)
    if as_json:
        typer.echo(json.dumps(found))
    elif found:
        out.print(runs_table(found))
    else:
        errors.print(f"no runs in {storage}", markup=False, emoji=False, highlight=False)


@app.command()
def show(run: RunName, as_json: Json = False, storage: Storage = "runs") -> None:
    """Show one run: status, results, and the calls and tokens of its models."""
    from tsalign.report.summary import find_run, summarise_run
    from tsalign.report.table import run_table

    folder = find_run(run, storage)
    if as_json:
        typer.echo(json.dumps(summarise_run(folder)))
    else:
        out.print(run_table(folder), highlight=False)


@serve.command("teacher")
def serve_teacher(config: Config, overrides: Overrides = None, verbose: Verbose = False) -> None:
    """Serve the `teacher` of a config until Ctrl-C, for runs that set its address as teacher.url."""
    from tsalign.config import ServeConfig, override, parse_assignments, read_yaml, validate
    from tsalign.teacher.service import serve_forever

    content = override(read_yaml(config), parse_assignments(overrides or []))
    block = {key: content[key] for key in ServeConfig.model_fields if key in content}
    serve_forever(validate(ServeConfig, block, str(config)).teacher)


@toy.command("build")
def toy_build(
    target: Annotated[Path, typer.Option("--out", help="folder for the models")] = Path("toy-assets"),
    short: Annotated[bool, typer.Option(help="train for a few steps only, as a test")] = False,
    seed: Annotated[int, typer.Option(help="random seed of the trainings")] = 0,
    verbose: Verbose = False,
) -> None:
    """Train the toy world's models from scratch."""
    from tsalign import api
    from tsalign.toy.build import build_config, ship

    api.run(build_config(target, short=short, seed=seed))
    ship(target)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check what this machine has and lacks; exit code 1 if tsalign cannot work on it."""
    from dataclasses import asdict

    from tsalign.doctor import examine, findings_table

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        out.print(findings_table(findings), highlight=False)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _execute(config: Path | dict[str, Any], overrides: dict[str, Any], retry_failed: bool = False) -> UPath:
    """Run a config under a name chosen beforehand, so that Ctrl-C can say how to resume."""
    from tsalign import api
    from tsalign.common.storage import resolve

    loaded = api.load(config, overrides)
    name = api.name_of(loaded)
    folder = resolve(loaded.storage) / name
    with _resumable(folder):
        api.run(loaded.model_copy(update={"run": name}), retry_failed=retry_failed)
    return folder


@contextmanager
def _resumable(folder: UPath) -> Iterator[None]:
    from tsalign.common.storage import resolve
    from tsalign.runs.interrupts import Terminated

    try:
        yield
    except KeyboardInterrupt as error:
        where = "" if folder.parent == resolve("runs") else f" --storage {folder.parent}"
        errors.print(
            f"stopped; to continue: tsalign resume {folder.name}{where}", style="yellow", emoji=False, soft_wrap=True
        )
        # As a shell reports a process that a signal ended.
        _exit(128 + (signal.SIGTERM if isinstance(error, Terminated) else signal.SIGINT))


def _report(folder: UPath) -> None:
    """Print the table of a run, and where its plots are."""
    from tsalign.report.plots import plot_run
    from tsalign.report.table import run_table

    out.print(run_table(folder), highlight=False)
    out.print(f"\nplots: {plot_run(folder)}", markup=False, emoji=False, highlight=False, soft_wrap=True)
