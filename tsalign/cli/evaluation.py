"""`evaluate`: two models under one judge, with the keys of a config as options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from tsalign.cli.execution import execute, report
from tsalign.cli.options import Address, Overrides, Storage, Verbose
from tsalign.cli.terminal import app


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
    address: Address = None,
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
    report(execute(content, parse_assignments(overrides or [])))


def _model(given: str) -> dict[str, str]:
    """`org/name` is a model that we load, `name@https://host/v1` one behind an API."""
    name, _, url = given.partition("@http")
    return {"model": name, "url": f"http{url}"} if url else {"model": given}


def _named_set(given: str) -> tuple[str, str]:
    name, sign, location = given.partition("=")
    return (name, location) if sign else (Path(given.rpartition(":")[2]).stem, given)
