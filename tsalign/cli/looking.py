"""`plan`, `runs`, `show` and `doctor`: what looks, and changes nothing."""

from __future__ import annotations

import json

import typer

from tsalign.cli.options import Config, Json, Overrides, RunName, Storage
from tsalign.cli.terminal import app, errors, out


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
