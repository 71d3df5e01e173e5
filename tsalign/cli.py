"""The `tsalign` command. Results go to stdout, progress and errors to stderr; heavy imports wait until needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from typer.core import TyperGroup

from tsalign.errors import TsalignError

if TYPE_CHECKING:
    from upath import UPath

out = Console()
errors = Console(stderr=True)

VARIANTS: dict[str, dict[str, Any]] = {
    "teacher-all": {"mining.strategy": "teacher-all"},
    "student-only": {"mining.strategy": "student-only"},
    "random": {"mining.strategy": "random"},
    "off-policy": {"mining.strategy": "off-policy"},
    "refresh": {"mining.refresh": 0.5},
}


class Commands(TyperGroup):
    """Turns what the user can mend into one red message and exit code 2; a crash keeps its traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except TsalignError as error:
            errors.print(str(error), style="red", markup=False, highlight=False, soft_wrap=True)
            raise typer.Exit(2) from None


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Align language models with a teacher, on Ray.",
)
serve = typer.Typer(no_args_is_help=True, help="Serve a model over HTTP.")
toy = typer.Typer(no_args_is_help=True, help="The built-in world of quickstart and tests.")
app.add_typer(serve, name="serve")
app.add_typer(toy, name="toy")

Config = Annotated[Path, typer.Argument(help="YAML file; `configs/` holds examples")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="for example tune.beta=0.2")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="name of the run, or its directory")]
Storage = Annotated[str, typer.Option(help="folder or URI that holds the runs")]
Json = Annotated[bool, typer.Option("--json", help="print only JSON")]


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"tsalign {version('tsalign')}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="print it")] = False,
) -> None:
    """Options before any command."""


@app.command()
def quickstart(
    seed: Annotated[int | None, typer.Option(help="another seed gives another run")] = None,
    baselines: Annotated[bool, typer.Option(help="also run the other ways to mine, and compare")] = False,
    run: Annotated[str, typer.Option(help="name of the run")] = "quickstart",
    storage: Storage = "runs",
) -> None:
    """A whole TS-Align run in the built-in world: minutes on two CPU cores."""
    from tsalign.report.table import variants_table

    config = Path(__file__).parent / "toy" / "quickstart.yaml"
    chosen: dict[str, Any] = {"storage": storage} | ({} if seed is None else {"seed": seed})
    folders = {"ts-align": _execute(config, {**chosen, "run": run})}
    _report(folders["ts-align"])
    if not baselines:
        return
    for name, changes in VARIANTS.items():
        folders[name] = _execute(config, {**chosen, **changes, "run": f"{run}-{name}"})
    out.print(variants_table(folders), highlight=False)


@app.command("run")
def run_command(config: Config, overrides: Overrides = None) -> None:
    """Run a config; a run name that exists is resumed."""
    from tsalign.config import parse_assignments

    _report(_execute(config, parse_assignments(overrides or [])))


@app.command()
def plan(config: Config, overrides: Overrides = None) -> None:
    """What a run would do and need; starts nothing."""
    from tsalign.api import load
    from tsalign.config import AlignConfig, parse_assignments
    from tsalign.plan import plan_tables

    loaded = load(config, parse_assignments(overrides or []))
    if not isinstance(loaded, AlignConfig):
        raise TsalignError(f"{config}: recipe {loaded.recipe} has no plan to show; it is not an alignment.")
    out.print(plan_tables(loaded))


@app.command()
def resume(run: RunName, storage: Storage = "runs") -> None:
    """Go on with a run where it was cut; finished stages are skipped."""
    from tsalign import api
    from tsalign.report.summary import find_run

    folder = find_run(run, storage)
    with _resumable(folder):
        api.resume(folder.name, str(folder.parent))
    _report(folder)


@app.command()
def runs(as_json: Json = False, storage: Storage = "runs") -> None:
    """All runs of a storage folder, the newest last."""
    from tsalign.report.summary import list_runs
    from tsalign.report.table import runs_table

    found = list_runs(storage)
    if as_json:
        typer.echo(json.dumps(found))
    elif found:
        out.print(runs_table(found))
    else:
        errors.print(f"no runs in {storage}", markup=False, highlight=False)


@app.command()
def show(run: RunName, as_json: Json = False, storage: Storage = "runs") -> None:
    """One run: status, scores, win rate, agreement, cost."""
    from tsalign.report.summary import find_run, summarise
    from tsalign.report.table import run_table

    folder = find_run(run, storage)
    if as_json:
        typer.echo(json.dumps(summarise(folder)))
    else:
        out.print(run_table(folder), highlight=False)


@serve.command("teacher")
def serve_teacher(config: Config, overrides: Overrides = None) -> None:
    """Serve the teacher of a config until Ctrl-C, for runs that name it by `teacher.url`."""
    from tsalign.api import load
    from tsalign.config import parse_assignments
    from tsalign.teacher.service import serve_forever

    loaded = load(config, parse_assignments(overrides or []))
    if not hasattr(loaded, "teacher"):
        raise TsalignError(f"{config}: recipe {loaded.recipe} has no teacher to serve.")
    serve_forever(loaded.teacher)


@toy.command("build")
def toy_build(
    target: Annotated[Path, typer.Option("--out", help="folder for the models and prompts")] = Path("toy-assets"),
    short: Annotated[bool, typer.Option(help="a few training steps only, for tests")] = False,
    seed: int = 0,
) -> None:
    """Train the toy world's models from nothing."""
    from tsalign.toy.build import build

    build(target, short=short, seed=seed)


@app.command()
def doctor(as_json: Json = False) -> None:
    """What this machine has and lacks for tsalign; exit code 1 where it cannot work."""
    from dataclasses import asdict

    from tsalign.doctor import examine, findings_table

    findings = examine()
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    else:
        out.print(findings_table(findings), highlight=False)
    if any(finding.state == "fail" for finding in findings):
        raise typer.Exit(1)


def _execute(config: Path, overrides: dict[str, Any]) -> UPath:
    """Run a config under a name that is known beforehand, so that Ctrl-C can say how to go on."""
    from tsalign import api
    from tsalign.storage import resolve

    loaded = api.load(config, overrides)
    name = loaded.run or f"{loaded.recipe}-{datetime.now():%Y%m%d-%H%M%S}"
    folder = resolve(loaded.storage) / name
    with _resumable(folder):
        api.run(loaded.model_copy(update={"run": name}))
    return folder


@contextmanager
def _resumable(folder: UPath) -> Iterator[None]:
    from tsalign.storage import resolve

    try:
        yield
    except KeyboardInterrupt:
        where = "" if folder.parent == resolve("runs") else f" --storage {folder.parent}"
        errors.print(f"stopped; to go on: tsalign resume {folder.name}{where}", style="yellow", soft_wrap=True)
        raise typer.Exit(130) from None


def _report(folder: UPath) -> None:
    """The table of a run, and its picture."""
    from tsalign.report.plots import plot_run
    from tsalign.report.table import run_table

    out.print(run_table(folder), highlight=False)
    out.print(f"\nplots: {plot_run(folder)}", markup=False, highlight=False, soft_wrap=True)
